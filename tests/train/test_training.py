"""From a config to a trained folder: what does not fit together is told before a model loads."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from ledger_runs import figures, groups, outcome, run_config, train_config  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from mem1.chat.hf import HFRenderer  # noqa: E402
from mem1.cli import run_command  # noqa: E402
from mem1.config import LedgerTasks, ServerConfig, TasksConfig, load_config, save_config  # noqa: E402
from mem1.context import Budget  # noqa: E402
from mem1.engines import ScriptedEngine  # noqa: E402
from mem1.engines.local import LocalEngine  # noqa: E402
from mem1.errors import ConfigError, DataError, StoreError, UserError  # noqa: E402
from mem1.evals.metrics import peak_tokens  # noqa: E402
from mem1.rollout import run_episode  # noqa: E402
from mem1.rollout.store import dump_trajectory  # noqa: E402
from mem1.tasks.expert import Imperfections  # noqa: E402
from mem1.train.config import CurriculumConfig, DemonstrationsConfig, OptimizerConfig  # noqa: E402
from mem1.train.curriculum import Level  # noqa: E402
from mem1.train.trainer import train  # noqa: E402
from mem1.training import TrainWatcher, check_trainable, open_run, train_policy  # noqa: E402
from mem1.types import Fault, Sampling, SegmentKind  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
PATH = Path("models/none")
GRPO = run_config(PATH, "grpo")
SERVER = ServerConfig(model="m", base_url="http://localhost", mode="chat")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": None}, r"train is missing: add  \[train\]"),
        ({"engine": SERVER}, "engine.kind = 'openai': what is trained is sampled in this process"),
        (
            {"context": replace(GRPO.context, policies=("full", "internal_state"))},
            r"context.policies = \['full', 'internal_state'\]: name the one to train with",
        ),
        ({"sampling": Sampling(temperature=0.0)}, "sampling.temperature = 0.0: greedy rollouts"),
        (
            {"train": train_config("grpo", eval_every=2), "validation": None},
            r"train.eval_every needs held-out tasks: add  \[validation\]",
        ),
        (
            {"validation": TasksConfig(files=("q.jsonl",))},
            "validation.kind = 'questions': .* tasks.kind = 'ledger'",
        ),
        (
            {"budget": Budget(prompt=300, internal_state=60, action=40, observation=80)},
            r"train.row_tokens = 400, but a turn of internal_state takes up to \d+ tokens",
        ),
    ],
)
def test_a_config_that_cannot_train_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_trainable(replace(GRPO, **changes))


def test_a_turn_that_just_fits_a_row_is_taken():
    budget = Budget(prompt=16, internal_state=6, action=4, observation=32)
    bound = GRPO.policies()[0].bound(budget)
    check_trainable(replace(GRPO, train=train_config("grpo", row_tokens=bound)))
    with pytest.raises(ConfigError, match=r"train\.row_tokens"):
        check_trainable(replace(GRPO, train=train_config("grpo", row_tokens=bound - 1)))


def levelled(**settings):
    curriculum = CurriculumConfig(threshold=0.5, **settings)
    return replace(GRPO, train=train_config("grpo", curriculum=curriculum))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (levelled(), "train.curriculum has one level"),
        (levelled(internal_state=(7, 5)), "holds 7, but the bound .* budget.internal_state = 6"),
        (
            replace(
                levelled(),
                tasks=LedgerTasks(num_objectives=(1, 2)),
                run=replace(GRPO.run, max_turns={1: 3}),
            ),
            "run.max_turns = {1: 3} has no entry for tasks of 2 objectives",
        ),
    ],
)
def test_a_curriculum_that_could_not_be_finished_is_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        check_trainable(config)


def test_a_level_with_fewer_tasks_than_a_batch_is_refused_before_the_first_step(tiny, tmp_path):
    curriculum = CurriculumConfig(threshold=0.5)
    config = run_config(tiny, "grpo", curriculum=curriculum)
    config = replace(config, tasks=LedgerTasks(num_objectives=(1, 2), count=3))
    with (
        pytest.raises(ConfigError, match="batch_size = 4, but there are 3 tasks of 1 objectives"),
        open_run(config, folder=tmp_path, watcher=TrainWatcher()),
    ):
        pass


@pytest.mark.parametrize(("cap", "kept"), [(4, False), (5, True), (None, True)])
def test_a_state_over_the_levels_cap_is_not_kept_and_the_bound_is_the_levels(
    tiny, tmp_path, cap, kept
):
    config = run_config(tiny, "grpo")
    config = replace(config, run=replace(config.run, state_budget=True))
    with open_run(config, folder=tmp_path, watcher=TrainWatcher()) as run:
        source = run.source
        (job,) = source.plan(source.tasks[:1], samples=1, seed=0, greedy=False, internal_state=cap)
    engine = ScriptedEngine(
        ["<think> kami 142 lone</think><search> lone</search>", "<answer> 1</answer>"],
        codec=job.agent.renderer,
    )
    agent = replace(job.agent, engine=engine)
    played = asyncio.run(
        run_episode(job.task, agent=agent, env=job.make_env(job.task), reward=job.reward)
    )
    size = cap or 6
    assert played.turns[0].context[0].text.endswith(f" with notes of {size} tokens\n")
    assert [request.max_tokens for request in engine.requests] == [size + 4] * 2
    assert (Fault.STATE_OVERSIZE not in played.turns[0].faults) == kept
    kinds = [segment.kind for segment in played.turns[1].context]
    assert (SegmentKind.INTERNAL_STATE in kinds) == kept
    assert played.bound == 16 + 2 * (size + 4) + 32 >= peak_tokens(played)


def shown(folder: Path, trajectories=None, *, name: str = "trajectories.jsonl") -> Path:
    lines = [dump_trajectory(t) + b"\n" for t in trajectories or groups(3)]
    (folder / name).write_bytes(b"".join(lines))
    return folder / name


def sft_config(tiny, *, trajectories=(), transcripts=(), least_reward=None, **settings):
    data = DemonstrationsConfig(
        trajectories=tuple(map(str, trajectories)),
        transcripts=tuple(map(str, transcripts)),
        least_reward=least_reward,
    )
    defaults = {"data": data, "optimizer": OptimizerConfig(lr=0.01), "batch_size": 3, "steps": 6}
    config = run_config(tiny, "grpo")
    return replace(config, train=train_config("sft", **(defaults | settings)))


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in figures(folder)]


@pytest.mark.parametrize("of", ["folder", "file"])
def test_stored_trajectories_are_imitated(tiny, tmp_path, of):
    file = shown(tmp_path)
    config = sft_config(tiny, trajectories=[tmp_path if of == "folder" else file])
    train_policy(config, folder=tmp_path / "run")
    found = losses(tmp_path / "run")
    assert found[-1] < 0.95 * found[0]


def test_only_those_of_enough_reward_are_imitated(tiny, tmp_path):
    config = sft_config(tiny, trajectories=[shown(tmp_path)], least_reward=0.5)
    train_policy(config, folder=tmp_path / "run")
    assert [line["reward"] for line in figures(tmp_path / "run")] == [1.0] * 6
    config = sft_config(tiny, trajectories=[shown(tmp_path)], least_reward=1.5)
    with pytest.raises(DataError, match=r"none of 6 trajectories .* a reward of at least 1.5"):
        train_policy(config, folder=tmp_path / "other")


def test_supervised_training_goes_on_bit_for_bit(tiny, tmp_path):
    config = sft_config(tiny, trajectories=[shown(tmp_path)], batch_size=4)

    def stop(step, metrics) -> None:
        if step == 3:
            raise KeyboardInterrupt

    train_policy(config, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_policy(config, folder=tmp_path / "stopped", watcher=TrainWatcher(on_step=stop))
    train_policy(config, folder=tmp_path / "stopped")
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


TALK = {
    "messages": [
        {"role": "user", "content": "Find the values of kami\n"},
        {"role": "assistant", "content": "<think> kami</think><search> kami</search>"},
        {"role": "user", "content": "found kami 142"},
        {"role": "assistant", "content": "<think> kami 142</think><answer> 142</answer>"},
    ]
}


def test_transcripts_are_imitated(tiny, tmp_path):
    (tmp_path / "talk.jsonl").write_text(json.dumps(TALK) + "\n")
    config = sft_config(tiny, transcripts=[tmp_path / "talk.jsonl"], batch_size=1, steps=12)
    train_policy(config, folder=tmp_path / "run")
    found = losses(tmp_path / "run")
    assert found[-1] < 0.8 * found[0]


EXPERT = DemonstrationsConfig(expert=Imperfections(forget=0.5))


def test_the_expert_is_imitated_and_never_says_a_thing_twice(tiny, tmp_path):
    # A batch of both tasks there are: only the expert's failings differ from step to step.
    tasks = LedgerTasks(num_objectives=(1, 2), count=1)
    wide = replace(run_config(tiny).run, max_turns=4)
    config = replace(sft_config(tiny, data=EXPERT, batch_size=2), tasks=tasks, run=wide)
    with open_run(config, folder=tmp_path / "run", watcher=TrainWatcher()) as run:
        ids = [
            sorted(
                str([turn.completion.token_ids for turn in t.turns])
                for t in run.source.batch(n, level=Level())
            )
            for n in (1, 2, 3, 1)
        ]
        assert ids[0] == ids[3]
        assert len({str(one) for one in ids}) > 1
        train(run)
    found = losses(tmp_path / "run")
    assert found[-1] < 0.95 * found[0]


@pytest.mark.parametrize(("told", "end"), [(True, " with notes of 6 tokens\n"), (False, "")])
def test_the_expert_reads_the_prompt_that_the_policy_will_read(tiny, tmp_path, told, end):
    config = sft_config(tiny, data=EXPERT, batch_size=1)
    config = replace(config, run=replace(config.run, state_budget=told))
    with open_run(config, folder=tmp_path, watcher=TrainWatcher()) as run:
        (shown,) = run.source.batch(1, level=Level())
    prompt = shown.turns[0].context[0].text
    assert prompt == f"Find the values of {shown.task.objectives[0].question}{end or chr(10)}"


def test_the_expert_knows_the_ledger_only(tiny):
    config = replace(sft_config(tiny, data=EXPERT), tasks=TasksConfig(files=("q.jsonl",)))
    with pytest.raises(ConfigError, match=r"train\.data\.expert with tasks\.kind = 'questions'"):
        check_trainable(config)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"trajectories": ["none.jsonl"]}, "train.data.trajectories: none.jsonl: no such file"),
        ({"trajectories": ["."]}, "train.data.trajectories: trajectories.jsonl: no such file"),
        ({"transcripts": ["none.jsonl"]}, "none.jsonl: no such file"),
    ],
)
def test_files_that_are_missing_are_named(tiny, tmp_path, monkeypatch, data, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        train_policy(sft_config(tiny, **data), folder="run")


def test_trajectories_of_another_tokenizer_are_refused(tiny, tmp_path):
    file = shown(tmp_path, groups(3, vocab=5000))
    with pytest.raises(DataError, match=r"task t\d, sample \d: token \d+, but the model's vocab"):
        train_policy(sft_config(tiny, trajectories=[file]), folder=tmp_path / "run")


def test_trajectories_of_another_mode_are_refused(tiny, tmp_path):
    file = shown(tmp_path, [replace(t, mode="carry") for t in groups(3)])
    with pytest.raises(DataError, match="was sampled with mode = 'carry'"):
        train_policy(sft_config(tiny, trajectories=[file]), folder=tmp_path / "run")


def test_a_turn_longer_than_a_row_is_named(tiny, tmp_path):
    config = sft_config(tiny, trajectories=[shown(tmp_path)], row_tokens=20)
    with pytest.raises(UserError, match=r"turn \d of task t\d, .* tokens, a row takes 20: raise"):
        train_policy(config, folder=tmp_path / "run")


def test_fewer_trajectories_than_a_batch_are_refused(tiny, tmp_path):
    config = sft_config(tiny, trajectories=[shown(tmp_path)], batch_size=7)
    with pytest.raises(ConfigError, match=r"train.batch_size = 7, but there are 6 demonstrations"):
        train_policy(config, folder=tmp_path / "run")


def test_a_folder_of_a_run_with_other_settings_is_left_alone(tiny, tmp_path):
    save_config(run_config(tiny, "grpo", steps=9), tmp_path)
    with pytest.raises(StoreError, match=r"other settings \(train.steps\): name another folder"):
        train_policy(run_config(tiny, "grpo"), folder=tmp_path)


def test_the_trained_folder_is_one_that_every_tool_loads(tiny, tmp_path):
    policy = train_policy(run_config(tiny, "grpo"), folder=tmp_path)
    assert policy == tmp_path / "policy"
    renderer = HFRenderer.load(policy)
    engine = LocalEngine.load(policy, codec=renderer, dtype="float32", device="cpu")
    assert engine.window == 2048
    plain = AutoModelForCausalLM.from_pretrained(str(policy))
    ids = torch.tensor([renderer.encode("<think> kami 142</think>")])
    with torch.no_grad():
        trained, before = (
            model(ids).logits for model in (plain, AutoModelForCausalLM.from_pretrained(str(tiny)))
        )
    assert (trained - before).abs().max() > 1e-3


def test_the_model_card_says_what_it_came_from_and_how_to_run_it(tiny, tmp_path):
    config = run_config(tiny, "grpo")
    card = (train_policy(config, folder=tmp_path) / "README.md").read_text()
    header, _, rest = card.removeprefix("---\n").partition("\n---\n")
    assert f"base_model: {tiny}" in header.splitlines()
    assert "with grpo, 4 steps, on\ncontexts of the policy `internal_state`" in rest
    settings = tmp_path / "settings.toml"
    settings.write_text(rest.partition("```toml\n")[2].partition("```")[0])
    assert load_config(settings) == config


CONFIG = """
[engine]
kind = "local"
model = "{model}"
dtype = "float32"
device = "cpu"

[budget]
prompt = 16
internal_state = 6
action = 4
observation = 32

[tasks]
kind = "ledger"
num_objectives = [1]
count = 8

[run]
max_turns = 2

[train]
algorithm = "grpo"
steps = 2
batch_size = 2
group_size = 2
"""


@pytest.fixture
def config_file(tiny, tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(CONFIG.format(model=tiny))
    return "small.toml"


def test_a_dry_run_of_training_runs_nothing(config_file, capfd):
    assert run_command(["train", config_file, "--dry-run"]) == 0
    shown = capfd.readouterr().out
    assert 'algorithm = "grpo"' in shown
    assert "model window: 2,048 tokens" in shown
    assert not Path("runs").exists()


def test_a_dry_run_counts_the_episodes_of_groups(config_file, capfd):
    run_command(["train", config_file, "--dry-run", "--set", "train.group_size=3"])
    (row,) = [line for line in capfd.readouterr().out.splitlines() if "internal_state   " in line]
    assert row.split()[:4] == ["internal_state", "1", "8", "24"]


def test_a_dry_run_of_supervised_training_needs_no_tasks(config_file, capfd):
    text = Path(config_file).read_text().replace('"grpo"', '"sft"').replace("group_size = 2", "")
    head, tail = text.split("[tasks]")[0], text.split("max_turns = 2")[1]
    Path("sft.toml").write_text(head + tail + '[train.data]\ntrajectories = ["none"]\n')
    assert run_command(["train", "sft.toml", "--dry-run"]) == 0
    assert 'algorithm = "sft"' in capfd.readouterr().out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.group_size=1", "train.group_size = 1: grpo compares"),
        ("train.algorithm=ppo", "train.critic is missing: ppo needs one"),
        ("train.row_tokens=20", "train.row_tokens = 20, but a turn"),
        ("train.eval_every=1", "train.eval_every needs held-out tasks"),
    ],
)
def test_a_mistake_is_told_by_a_dry_run_with_status_2(config_file, capfd, setting, message):
    assert run_command(["train", config_file, "--dry-run", "--set", setting]) == 2
    assert message in capfd.readouterr().err


def test_the_command_trains_says_where_and_goes_on(config_file, capfd):
    assert run_command(["train", config_file]) == 0
    said = capfd.readouterr().out
    assert said.splitlines() == [
        "policy: runs/small/policy",
        "metrics: runs/small/metrics.jsonl",
        "report: runs/small/report.html",
    ]
    assert [line["step"] for line in figures(Path("runs/small"))] == [1, 2]
    assert run_command(["train", config_file]) == 0
    assert run_command(["train", config_file, "--set", "train.steps=3"]) == 2
    assert "name another folder with --out" in capfd.readouterr().err
