import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from mem1.cli import run_command
from mem1.rollout.store import dump_trajectory
from mem1.train.tiny import make_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "model"
    make_tiny(folder, seed=0, hidden=32)
    return folder


def test_every_policy_and_mode_of_a_model_is_exact(model, capsys):
    assert run_command(["verify", "--model", str(model), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(verified["context_policy"], verified["mode"]) for verified in found] == [
        (policy, mode)
        for policy in ("internal_state", "full", "window(k=2)")
        for mode in ("reencode", "carry")
    ]
    for verified in found:
        report = verified["report"]
        assert report["num_trajectories"] == 4
        assert 0 < report["sampler"]["max_abs"] < 5e-5
        assert report["packed"]["share_outside"] == 0


def test_what_another_model_sampled_is_not_what_this_one_says(model, tmp_path, capsys):
    other = tmp_path / "other"
    make_tiny(other, seed=1, hidden=32)
    stored = tmp_path / "stored.jsonl"
    stored.write_bytes(b"\n".join(map(dump_trajectory, sampled_by(other))) + b"\n")
    arguments = ["verify", "--model", str(model), "--trajectories", str(stored), "--json"]
    assert run_command(arguments) == 0
    (verified,) = json.loads(capsys.readouterr().out)
    assert verified["report"]["sampler"]["max_abs"] > 0.01


def sampled_by(folder: Path):
    import asyncio

    from mem1.chat.hf import HFRenderer
    from mem1.context import Budget, InternalState
    from mem1.engines.local import LocalEngine
    from mem1.rollout import Agent, collect
    from mem1.types import Sampling
    from mem1.verification import _group

    renderer = HFRenderer.load(folder)
    engine = LocalEngine.load(folder, codec=renderer, dtype="float32")
    agent = Agent(
        engine=engine,
        renderer=renderer,
        context=InternalState(),
        budget=Budget(prompt=64, internal_state=8, action=8, observation=32),
        sampling=Sampling(temperature=1.0, seed=3),
        max_turns=2,
    )
    return asyncio.run(collect(_group(agent, size=1)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "nowhere"], "nowhere"),
        (["--model", "{model}", "--trajectories", "none.jsonl"], "none.jsonl: no such file"),
        (["--model", "{model}", "--dtype", "float8"], "verify.dtype = 'float8'"),
    ],
)
def test_what_cannot_be_verified_is_named(model, capsys, arguments, said):
    filled = [argument.format(model=model) for argument in arguments]
    assert run_command(["verify", *filled]) == 2
    assert said in capsys.readouterr().err
