"""Two processes, over gloo on this machine: they learn what one does, and lose nothing good."""

import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from ledger_runs import figures, tiny_policy, train_run  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from team_runs import start_team, team_config  # noqa: E402

from mem1.rollout import read_trajectories  # noqa: E402
from mem1.train.checkpoint import latest_checkpoint  # noqa: E402
from mem1.train.sources import ROLLOUTS  # noqa: E402
from mem1.train.trainer import CHECKPOINTS, POLICY  # noqa: E402
from mem1.train.update import Learner  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    # Its fixtures start processes that each load torch: a minute, and more on a busy machine.
    pytest.mark.timeout(400),
]

KINDS = ("grpo", "ppo", "head", "lora", "offload")


@pytest.fixture(scope="module")
def two(tiny, tmp_path_factory) -> Path:
    """Runs of two processes: one of each kind, one in bfloat16, and one whose second process is
    killed in its second step; what each process said then is in `told`."""
    folder = tmp_path_factory.mktemp("two")
    runs = {folder / kind: (kind, {}) for kind in KINDS}
    runs |= {folder / "rounded": ("grpo", {"dtype": "bfloat16"})}
    runs |= {folder / "lost": ("grpo", {"dies_at": 6})}
    found = start_team(tiny, runs, told=folder / "told").outputs()
    assert [status for status, _ in found] == [1, -9], found
    return folder


@pytest.fixture(scope="module")
def one(tiny, tmp_path_factory) -> Path:
    """The same runs of one process."""
    folder = tmp_path_factory.mktemp("one")
    for kind in KINDS:
        train_run(team_config(tiny, kind), folder / kind)
    return folder


def exported(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / POLICY / "model.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_learn_what_one_does(one, two, kind):
    ours, theirs = exported(two / kind), exported(one / kind)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_log_what_one_does(one, two, kind):
    laid_out = {"num_rows", "packed_tokens"}
    for ours, theirs in zip(figures(two / kind), figures(one / kind), strict=True):
        assert ours.keys() == theirs.keys()
        for name in theirs.keys() - laid_out:
            assert ours[name] == pytest.approx(theirs[name], abs=1e-9), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_samples_the_same_tokens_in_any_number_of_processes(one, two, kind):
    def sampled(folder: Path) -> dict:
        return {
            (path.name, t.task.id, t.sample): [turn.completion.token_ids for turn in t.turns]
            for path in (folder / kind / ROLLOUTS).iterdir()
            for t in read_trajectories(path)
        }

    assert sampled(two) == sampled(one)


def test_a_checkpoint_of_two_is_read_as_one_of_one(one, two):
    ours, theirs = (
        latest_checkpoint(f / "ppo" / CHECKPOINTS, warn=pytest.fail) for f in (two, one)
    )
    assert ours.step == theirs.step
    assert ours.parts.keys() == theirs.parts.keys()
    for part, state in theirs.parts.items():
        assert state.tensors.keys() == ours.parts[part].tensors.keys()
        if part != "rng":
            for name, tensor in state.tensors.items():
                found = ours.parts[part].tensors[name]
                torch.testing.assert_close(found, tensor, rtol=0, atol=1e-12)


def test_masters_of_two_go_on_in_one(tiny, two):
    config = team_config(tiny, "grpo").train
    assert config is not None
    learner = Learner.create(tiny_policy(tiny, config, dtype="bfloat16"), config=config)
    parts = latest_checkpoint(two / "rounded" / CHECKPOINTS, warn=pytest.fail).parts
    learner.policy.load_parts(parts)
    learner.optimizer.load(parts["optimizer"])
    for name, tensor in learner.optimizer.state().tensors.items():
        assert torch.equal(tensor, parts["optimizer"].tensors[name])
    for name, tensor in learner.policy.parts()["policy"].tensors.items():
        assert torch.equal(tensor, parts["policy"].tensors[name].bfloat16())


def test_a_lost_process_is_told_and_whole_steps_stay(two):
    told = (two / "told/0.txt").read_text()
    assert "TrainingError: process 0 of 2 can't reach another one, which has failed" in told
    assert "Start the same command again" in told
    assert [path.name for path in (two / "lost" / CHECKPOINTS).iterdir()] == ["00001-step-000001"]


def test_a_run_that_lost_a_process_goes_on_in_one(tiny, two, one, tmp_path):
    shutil.copytree(two / "lost", tmp_path / "run")
    train_run(team_config(tiny, "grpo"), tmp_path / "run")
    assert figures(tmp_path / "run")[0] == figures(two / "lost")[0]
    for name, tensor in exported(one / "grpo").items():
        torch.testing.assert_close(exported(tmp_path / "run")[name], tensor, rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def went_on(tiny, two, tmp_path_factory) -> Path:
    """What two processes made of the run that lost one, and of a run that one process began."""
    folder = tmp_path_factory.mktemp("went_on")
    shutil.copytree(two / "lost", folder / "lost")
    train_run(team_config(tiny, "grpo", steps=1), folder / "one")
    (folder / "one/config.toml").unlink()  # one step more is another run, but the same weights
    runs = {folder / name: ("grpo", {}) for name in ("lost", "one")}
    found = start_team(tiny, runs, told=folder / "told").outputs()
    assert [status for status, _ in found] == [0, 0], found
    return folder


@pytest.mark.parametrize("name", ["lost", "one"])
def test_a_run_that_lost_a_process_and_a_run_of_one_go_on_in_two(one, went_on, name):
    for weight, tensor in exported(one / "grpo").items():
        torch.testing.assert_close(exported(went_on / name)[weight], tensor, rtol=0, atol=1e-12)
