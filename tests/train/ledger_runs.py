"""Small runs on the ledger: what a run's tests train, and what they train it on."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from episodes import random_group

from mem1.config import LedgerTasks, LocalConfig, RunConfig, RunSettings
from mem1.context import Budget, ContextPolicy, InternalState
from mem1.engines.local import load_model
from mem1.rewards import RewardOutput
from mem1.rollout.advantages import ADVANTAGES
from mem1.train.checkpoint import latest_checkpoint
from mem1.train.config import CriticConfig, LossConfig, OptimizerConfig, TrainConfig
from mem1.train.logbook import METRICS_FILE, read_metrics
from mem1.train.policy import Policy, make_policy
from mem1.train.trainer import CHECKPOINTS, POLICY, train
from mem1.training import TrainWatcher, open_run
from mem1.types import Objective, Sampling, Task, Trajectory, Turn

VOCAB = 512
"""Ids that the tiny policy has, and some more it has not."""


class Parity:
    """A reward that a policy which knows nothing earns now and then: it depends on its tokens."""

    def __call__(self, task: Task, *, answer: str | None, turns: Sequence[Turn]) -> RewardOutput:
        ids = [token for turn in turns for token in turn.completion.token_ids]
        return RewardOutput(total=float(sum(ids) % 3), parts={})


class Broken:
    """A reward that fails on every task whose number is even."""

    def __call__(self, task: Task, *, answer: str | None, turns: Sequence[Turn]) -> RewardOutput:
        if int(task.id[-1]) % 2 == 0:
            raise ZeroDivisionError("no such reward")
        return RewardOutput(total=float(len(turns[0].completion.token_ids) % 2), parts={})


class AlwaysBroken(Broken):
    def __call__(self, task: Task, *, answer: str | None, turns: Sequence[Turn]) -> RewardOutput:
        raise ZeroDivisionError("no such reward")


def train_config(algorithm: Any = "grpo", **settings: Any) -> TrainConfig:
    defaults: dict[str, Any] = {
        "steps": 4,
        "batch_size": 4,
        "save_every": 2,
        "row_tokens": 400,
        "optimizer": OptimizerConfig(lr=1e-3, warmup=0.5),
    }
    if algorithm in ("grpo", "rloo"):
        defaults["group_size"] = 2
    if algorithm == "ppo":
        defaults["critic"] = CriticConfig()
        defaults["loss"] = LossConfig(kl=0.01, entropy=0.01)
    return TrainConfig(algorithm=algorithm, **(defaults | settings))


def run_config(tiny: Path, algorithm: Any = "grpo", **settings: Any) -> RunConfig:
    return RunConfig(
        engine=LocalConfig(model=str(tiny), dtype="float32", device="cpu"),
        budget=Budget(prompt=16, internal_state=6, action=4, observation=32),
        sampling=Sampling(temperature=1.0),
        tasks=LedgerTasks(num_objectives=(1,), count=8),
        validation=LedgerTasks(num_objectives=(1,), count=2, seed=7),
        run=RunSettings(max_turns=2, reward="ledger_runs:Parity"),
        train=train_config(algorithm, **settings),
    )


def tiny_policy(tiny: Path, config: TrainConfig, *, dtype: str = "float32") -> Policy:
    return make_policy(load_model(tiny, device="cpu", dtype=dtype), config=config)


def valued(policy: Policy) -> Policy:
    """The same policy, with a critic that values something."""
    assert policy.value_head is not None
    with torch.no_grad():
        policy.value_head.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    return policy


def groups(
    count: int,
    *,
    size: int = 2,
    seed: int = 0,
    policy: ContextPolicy | None = None,
    max_turns: int = 4,
    vocab: int = VOCAB,
) -> list[Trajectory]:
    """Made-up rollouts of some tasks, those of a task side by side, with rewards 0, 1, 0, 1, …"""
    rng = random.Random(seed)
    found: list[Trajectory] = []
    for number in range(count):
        group = random_group(
            policy or InternalState(),
            rng=rng,
            size=size,
            vocab=vocab,
            lengths=(20, 8, 4, 12),
            max_turns=max_turns,
        )
        task = Task(id=f"t{number}", objectives=(Objective(question="q", answers=("a",)),))
        found += [replace(t, task=task, reward=float(t.sample % 2)) for t in group]
    return found


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    """A copy of all that trains."""
    return {
        f"{part}.{name}": tensor.clone()
        for part, state in policy.parts().items()
        for name, tensor in state.tensors.items()
    }


def unchanged(policy: Policy, before: dict[str, torch.Tensor]) -> bool:
    now = weights(policy)
    return all(torch.equal(now[name], tensor) for name, tensor in before.items())


def train_run(config: RunConfig, folder: Path, **changes: Any) -> Path:
    """Train as `train_policy` does, with parts of the run replaced, which are functions of it, and
    what a `TrainWatcher` is told."""
    told = {name: changes.pop(name) for name in ("on_done", "warn", "on_step") if name in changes}
    with open_run(config, folder=folder, watcher=TrainWatcher(**told)) as run:
        return train(replace(run, **{name: make(run) for name, make in changes.items()}))


def outcome(folder: Path) -> dict[str, Any]:
    """All that a finished run leaves and that may not depend on how often it was stopped."""
    newest = latest_checkpoint(folder / CHECKPOINTS, warn=pytest.fail)
    assert newest is not None
    tensors = {
        f"{part}.{name}": tensor.numpy().tobytes()
        for part, state in newest.parts.items()
        for name, tensor in state.tensors.items()
    }
    exported = {path.name: path.read_bytes() for path in (folder / POLICY).iterdir()}
    info = {part: state.info for part, state in newest.parts.items()}
    return {
        "step": newest.step,
        **info,
        **tensors,
        **exported,
        "metrics": figures(folder),
        "advantages": {p.name: p.read_bytes() for p in (folder / ADVANTAGES).glob("*")},
    }


def figures(folder: Path) -> list[dict[str, float]]:
    """metrics.jsonl without times and memory."""
    return [
        {name: v for name, v in line.items() if not name.endswith(("_s", "_gib"))}
        for line in read_metrics(folder / METRICS_FILE)
    ]
