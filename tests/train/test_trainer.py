"""A run: what it leaves doesn't depend on how often it was stopped, and nothing good is lost."""

import math
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from ledger_runs import figures, groups, outcome, run_config, train_run  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from mem1.config import LedgerTasks  # noqa: E402
from mem1.errors import EngineError, StoreError, TrainingError  # noqa: E402
from mem1.packing import sampled_tokens  # noqa: E402
from mem1.rollout import read_trajectories  # noqa: E402
from mem1.rollout.advantages import ADVANTAGES, advantages_of, read_advantages  # noqa: E402
from mem1.train.config import CurriculumConfig, LoraConfig  # noqa: E402
from mem1.train.sources import ROLLOUTS  # noqa: E402
from mem1.train.trainer import BEST_POLICY, CHECKPOINTS  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(autouse=True)
def _interruptible():
    """As in a terminal, even if the tests run in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def config_of(kind, tiny):
    if kind == "ppo":
        return run_config(tiny, "ppo", mini_batch_size=2, eval_every=2)
    if kind == "lora":
        return run_config(tiny, "grpo", lora=LoraConfig(rank=2))
    return run_config(tiny, "grpo", epochs=2)


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """The outcome of a run that nobody stopped."""
    found = {}

    def make(kind):
        if kind not in found:
            folder = tmp_path_factory.mktemp(kind)
            train_run(config_of(kind, tiny), folder)
            found[kind] = outcome(folder)
        return found[kind]

    return make


def interrupting(*, at: int, times: int = 1):
    """Ctrl-C at the call of this number."""
    calls = iter(range(1, 1000))

    def call(*_) -> None:
        if next(calls) == at:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    return call


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints, oldest first."""
    return sorted(int(path.name.split("-")[-1]) for path in (folder / CHECKPOINTS).iterdir())


def test_the_same_run_gives_the_same_bits(tiny, tmp_path, whole):
    train_run(config_of("grpo", tiny), tmp_path)
    assert outcome(tmp_path) == whole("grpo")
    assert [line["step"] for line in figures(tmp_path)] == [1, 2, 3, 4]
    assert all(line["grad_norm"] > 0 for line in figures(tmp_path))


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_the_advantages_of_every_step_are_kept_beside_its_rollouts(tiny, tmp_path, algorithm):
    train_run(run_config(tiny, algorithm), tmp_path)
    names = sorted(path.name for path in (tmp_path / ROLLOUTS).iterdir())
    assert sorted(path.name for path in (tmp_path / ADVANTAGES).iterdir()) == names
    for path in (tmp_path / ROLLOUTS).iterdir():
        stored, done = read_advantages(path), list(read_trajectories(path))
        found = [value for t in done for turn in advantages_of(t, stored=stored) for value in turn]
        assert len(found) == sampled_tokens(done).num_tokens
        assert any(found)
        assert algorithm != "ppo" or abs(sum(found)) < 0.01 * len(found)


def test_advantages_of_steps_that_are_made_anew_are_forgotten(tiny, tmp_path):
    train_run(config_of("grpo", tiny), tmp_path)
    (tmp_path / ADVANTAGES / "step-000005.jsonl").touch()
    train_run(config_of("grpo", tiny), tmp_path)
    assert len(list((tmp_path / ADVANTAGES).iterdir())) == 4


@pytest.mark.parametrize("kind", ["grpo", "ppo", "lora"])
def test_ctrl_c_in_collecting_saves_whole_steps_and_the_run_goes_on_bit_for_bit(
    tiny, tmp_path, whole, kind
):
    config = config_of(kind, tiny)
    per_step = 4 * config.train.group_size + (2 if kind == "ppo" else 0)
    with pytest.raises(KeyboardInterrupt):
        train_run(config, tmp_path, on_done=interrupting(at=3 * per_step + 2))
    assert steps(tmp_path)[-1] == 3
    train_run(config, tmp_path)
    assert outcome(tmp_path) == whole(kind)


@pytest.mark.parametrize("kind", ["grpo", "ppo"])
def test_ctrl_c_in_an_update_waits_for_its_end(tiny, tmp_path, whole, kind):
    config = config_of(kind, tiny)
    with pytest.raises(KeyboardInterrupt):
        train_run(config, tmp_path, on_step=interrupting(at=3))
    last = steps(tmp_path)[-1]
    assert last == figures(tmp_path)[-1]["step"]
    train_run(config, tmp_path)
    assert outcome(tmp_path) == whole(kind)


def test_a_second_ctrl_c_stops_at_once_and_half_a_step_is_not_saved(tiny, tmp_path, whole):
    config = config_of("grpo", tiny)
    with pytest.raises(KeyboardInterrupt):
        train_run(config, tmp_path, forget_computed=lambda _: interrupting(at=3, times=2))
    assert steps(tmp_path) == [2]
    train_run(config, tmp_path)
    assert outcome(tmp_path)["step"] == whole("grpo")["step"]


KILLED = """
import os, sys
from pathlib import Path
from ledger_runs import run_config, train_run

def die(step, metrics):
    if step == 3:
        os.kill(os.getpid(), 9)

train_run(run_config(Path(sys.argv[1]), "grpo", epochs=2), Path(sys.argv[2]), on_step=die)
"""


def test_a_killed_run_goes_on_from_its_last_checkpoint(tiny, tmp_path, whole):
    command = [sys.executable, "-c", KILLED, str(tiny), str(tmp_path)]
    env = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", "PATH": ""}
    assert subprocess.run(command, env=env, check=False, capture_output=True).returncode == -9
    assert steps(tmp_path) == [2]
    assert [line["step"] for line in figures(tmp_path)] == [1, 2, 3]
    train_run(config_of("grpo", tiny), tmp_path)
    assert outcome(tmp_path) == whole("grpo")


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before_and_says_so(tiny, tmp_path, whole):
    config, said = config_of("ppo", tiny), []
    with pytest.raises(KeyboardInterrupt):
        train_run(config, tmp_path, on_step=interrupting(at=4))
    newest = max((tmp_path / CHECKPOINTS).iterdir())
    file = newest / "critic.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    train_run(config, tmp_path, warn=said.append)
    assert len(said) == 1
    assert f"{newest} is damaged, taking the one before it" in said[0]
    assert outcome(tmp_path) == whole("ppo")


def test_a_run_that_is_done_only_writes_its_policy_again(tiny, tmp_path, whole):
    config = config_of("grpo", tiny)
    train_run(config, tmp_path)
    before = (steps(tmp_path), figures(tmp_path))
    (tmp_path / "policy" / "config.json").unlink()
    train_run(config, tmp_path, on_done=lambda _: pytest.fail("nothing is owed"))
    assert (steps(tmp_path), figures(tmp_path)) == before
    assert outcome(tmp_path) == whole("grpo")


@dataclass(frozen=True)
class Changed:
    """A source whose episodes are changed, by a function of step and trajectory."""

    source: object
    change: Callable

    def batch(self, step, *, level):
        return [self.change(step, t) for t in self.source.batch(step, level=level)]

    def __getattr__(self, name):
        return getattr(self.source, name)


@pytest.mark.parametrize(("spoiled", "kept"), [(3, 2), (4, 2)])
def test_a_loss_that_is_no_number_stops_the_run_with_the_checkpoint_before(
    tiny, tmp_path, whole, spoiled, kept
):
    config = config_of("grpo", tiny)

    def spoil(step, trajectory):
        return replace(trajectory, reward=math.nan) if step == spoiled else trajectory

    message = f"step {spoiled}, tasks lookup-.* and 3 more: the loss is nan, nothing was updated"
    with pytest.raises(TrainingError, match=message):
        train_run(config, tmp_path, source=lambda run: Changed(run.source, spoil))
    assert steps(tmp_path)[-1] == kept
    assert not (tmp_path / "policy").exists()
    train_run(config, tmp_path)
    assert outcome(tmp_path) == whole("grpo")


def limited(size: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_a_full_disk_in_a_save_leaves_the_checkpoint_before(tiny, tmp_path, whole):
    config = config_of("grpo", tiny)
    try:
        with pytest.raises(StoreError, match="the checkpoint of step 4 can't be written"):
            train_run(config, tmp_path, on_step=lambda step, _: step == 4 and limited(9000))
    finally:
        limited(-1)
    assert steps(tmp_path) == [2]
    train_run(config, tmp_path)
    assert outcome(tmp_path) == whole("grpo")


def test_a_full_disk_in_the_export_is_told(tiny, tmp_path, whole):
    config = config_of("grpo", tiny)
    try:
        with pytest.raises(StoreError, match="policy: the policy can't be written"):
            train_run(
                config,
                tmp_path,
                export=lambda run: lambda folder: (limited(9000), run.export(folder)),
            )
    finally:
        limited(-1)
    assert [path.name for path in tmp_path.iterdir() if "policy" in path.name] == []
    train_run(config, tmp_path)
    assert outcome(tmp_path) == whole("grpo")


def broken(tiny, reward: str):
    config = run_config(tiny, "grpo")
    return replace(config, run=replace(config.run, reward=f"ledger_runs:{reward}"))


def test_episodes_whose_reward_fails_are_left_out(tiny, tmp_path):
    ended = []
    train_run(broken(tiny, "Broken"), tmp_path, on_done=ended.append)
    failed = {(t.stop_reason.value, t.error) for t in ended if int(t.task.id[-1]) % 2 == 0}
    assert failed == {("episode_error", "reward: ZeroDivisionError('no such reward')")}
    assert all(line["num_dropped"] + line["num_trajectories"] == 8 for line in figures(tmp_path))


def test_a_reward_that_always_fails_stops_the_run_and_is_named(tiny, tmp_path):
    with pytest.raises(
        EngineError, match=r"step 1: none of 8 .*episode_error: reward: ZeroDivisionError"
    ):
        train_run(broken(tiny, "AlwaysBroken"), tmp_path)


def graded(right):
    """A source whose episodes answer right in these steps, and in no other."""

    def grade(step, trajectory):
        gold = "; ".join(objective.answers[0] for objective in trajectory.task.objectives)
        return replace(trajectory, answer=gold if step in right else None)

    return lambda run: Changed(run.source, grade)


def by_level(tiny, **settings):
    """From one objective to two, with half the memory."""
    curriculum = CurriculumConfig(internal_state=(6, 3), **settings)
    config = run_config(tiny, "grpo", curriculum=curriculum, eval_every=2)
    return replace(config, tasks=LedgerTasks(num_objectives=(1, 2), count=8))


@pytest.mark.parametrize(
    ("right", "levels"),
    [((), [1, 1, 1, 1]), ((1, 2), [1, 1, 2, 2]), ((2, 3), [1, 1, 1, 2]), ((1, 3), [1, 1, 1, 1])],
)
def test_a_run_moves_to_harder_tasks_once_its_episodes_answer_right(tiny, tmp_path, right, levels):
    config = by_level(tiny, threshold=1.0, window=2)
    train_run(config, tmp_path, source=graded(right))
    lines = [line for line in figures(tmp_path) if line["step"]]
    assert [line["level"] for line in lines] == levels
    assert [line["num_objectives"] for line in lines] == levels
    scores = [float(step in right) for step in range(1, 5)]
    assert [line["em_per_objective"] for line in lines] == scores


def test_held_out_tasks_are_always_played_at_the_last_level(tiny, tmp_path):
    done = []
    train_run(by_level(tiny, threshold=0.0, window=2), tmp_path, on_done=done.append)
    # prompt 16, state twice, action twice 4, observation 32
    bounds = {(t.task.id[:9], t.bound) for t in done if "-s7-" in t.task.id}
    assert bounds == {("lookup-n1", 62)}
    assert {(t.task.id[:9], t.bound) for t in done if "-s0-" in t.task.id} == {
        ("lookup-n1", 68),
        ("lookup-n2", 62),
    }


@pytest.fixture(scope="module")
def risen(tiny, tmp_path_factory):
    """The outcome of a curriculum that nobody stopped."""
    folder = tmp_path_factory.mktemp("risen")
    train_run(by_level(tiny, threshold=1.0, window=2), folder, source=graded((1, 2)))
    return outcome(folder)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_curriculum_goes_on_bit_for_bit_wherever_it_was_stopped(tiny, tmp_path, risen, at):
    config = by_level(tiny, threshold=1.0, window=2)
    source = graded((1, 2))
    with pytest.raises(KeyboardInterrupt):
        train_run(config, tmp_path, on_step=interrupting(at=at + 1), source=source)
    assert steps(tmp_path)[-1] == at
    train_run(config, tmp_path, source=source)
    assert outcome(tmp_path) == risen
    assert risen["curriculum"] == {"level": 1, "scores": [0.0, 0.0]}


@dataclass(frozen=True)
class Judged:
    """A source with validations of these rewards, from step 0 on."""

    source: object
    rewards: tuple[float, ...]

    def validate(self, step, *, level):
        return [replace(groups(1)[0], reward=self.rewards[step])]

    def __getattr__(self, name):
        return getattr(self.source, name)


@pytest.mark.parametrize(
    ("rewards", "best"),
    [((0, 1, 3, 2, 2), 2), ((0, 1, 1, 2, 3), 4), ((0, 1, 1, 1, 1), 1), ((5, 1, 1, 1, 1), None)],
)
def test_the_best_policy_on_held_out_tasks_is_written_beside_the_last(
    tiny, tmp_path, rewards, best
):
    config = run_config(tiny, "grpo", eval_every=1, keep_last=1)
    train_run(config, tmp_path, source=lambda run: Judged(run.source, rewards))
    lines = figures(tmp_path)
    assert [line["validation/reward"] for line in lines] == list(rewards)
    assert steps(tmp_path) == sorted({best, 4} - {None})
    assert (tmp_path / BEST_POLICY).exists() == (best is not None)
    if best is not None:
        last, best_one = (
            load_file(tmp_path / name / "model.safetensors") for name in ("policy", BEST_POLICY)
        )
        same = all(torch.equal(last[name], best_one[name]) for name in last)
        assert same == (best == 4)


def test_nothing_computed_outlives_an_evaluation_or_an_update(tiny, tmp_path):
    calls = []

    class Told:
        def __init__(self, source) -> None:
            self.source = source

        def __getattr__(self, name):
            calls.append(name)
            return getattr(self.source, name)

    train_run(
        run_config(tiny, "grpo", eval_every=1, steps=2),
        tmp_path,
        source=lambda run: Told(run.source),
        forget_computed=lambda run: lambda: (calls.append("forget"), run.forget_computed()),
    )
    evaluated = ["validate", "forget"]
    step = ["batch", "forget", *evaluated]
    assert calls == ["forget_after", *evaluated, *step, *step]


def test_every_step_tells_what_there_is_to_know(tiny, tmp_path):
    told = []
    train_run(
        run_config(tiny, "ppo", eval_every=3),
        tmp_path,
        on_step=lambda step, metrics: told.append((step, set(metrics))),
    )
    names = dict(told)
    wanted = "reward em kl entropy clip_fraction ratio grad_norm critic_grad_norm logprob_gap"
    more = "logprob_gap_max peak_tokens num_turns packed_tokens unpacked_tokens collect_s learn_s"
    for step in (1, 2, 3, 4):
        assert names[step] >= {*wanted.split(), *more.split(), "value_loss", "loss"}
    evaluated = [step for step in names if "validation/reward" in names[step]]
    assert evaluated == [0, 3, 4]
    assert max(line.get("logprob_gap_max", 0) for line in figures(tmp_path)) < 1e-4


def test_carried_episodes_are_trained_as_they_were_sampled(tiny, tmp_path):
    config = run_config(tiny, "ppo")
    config = replace(config, run=replace(config.run, mode="carry", max_turns=3))
    seen = []
    train_run(config, tmp_path, on_done=seen.append)
    assert {trajectory.mode for trajectory in seen} == {"carry"}
    assert max(trajectory.num_turns for trajectory in seen) == 3
    assert max(line["logprob_gap_max"] for line in figures(tmp_path)) < 1e-4


def test_a_run_may_be_in_another_thread(tiny, tmp_path, whole):
    thread = threading.Thread(target=train_run, args=(config_of("grpo", tiny), tmp_path))
    thread.start()
    thread.join()
    assert outcome(tmp_path) == whole("grpo")


@pytest.mark.parametrize("saved", [0, 3])
def test_what_was_stored_after_the_last_checkpoint_is_sampled_anew(tiny, tmp_path, whole, saved):
    config = config_of("grpo", tiny)
    if saved:
        with pytest.raises(KeyboardInterrupt):
            train_run(config, tmp_path, on_step=interrupting(at=saved))
    later = tmp_path / "rollouts" / f"step-{saved + 1:06d}.jsonl"
    later.parent.mkdir(exist_ok=True)
    later.write_text("of other weights\n")
    train_run(config, tmp_path)
    assert outcome(tmp_path) == whole("grpo")
