"""How much of what was evicted can be told from what was kept?

    OMP_NUM_THREADS=1 python benchmarks/leak.py       -> docs/results/leak.json

An expert of the ledger reads a value and never notes it. Two turns later the page is evicted, and
nothing that the policy sees says the value. If contexts are encoded anew, that is the end of it. If
keys and values are kept, those of the notes were computed while the page was in view.

A linear probe (ridge regression on one-hot values) reads the hidden states, of all layers, of which
the kept keys and values of the last token of notes and action were made. Accuracy is on
tasks that the probe has not seen; chance is one in a hundred.
"""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch

from mem1.chat.hf import HFRenderer
from mem1.context import Budget, InternalState
from mem1.engines import ScriptedEngine
from mem1.engines.local import load_model
from mem1.envs.ledger import LedgerEnv
from mem1.files import atomic_write
from mem1.packing import PackedBatch, pack
from mem1.rewards import ExactMatchReward
from mem1.rollout import Agent, Job
from mem1.tasks.expert import Imperfections
from mem1.tasks.ledger import LedgerConfig, ledger_tasks
from mem1.train.attention import packed
from mem1.train.demonstrations import demonstrations
from mem1.types import SegmentKind, Trajectory

ROOT = Path(__file__).parent.parent
POLICY = ROOT / "data/ledger/internal_state"
NUM_TASKS, NUM_TRAINED = 6000, 5000
BUDGET = Budget(prompt=32, internal_state=40, action=40, observation=32)
READ_AT = 2
"""The turn, counted from 0, at whose context the first page is no longer seen."""


def episodes(renderer: HFRenderer) -> list[Trajectory]:
    agent = Agent(
        engine=ScriptedEngine([], codec=renderer),
        renderer=renderer,
        context=InternalState(),
        budget=BUDGET,
        max_turns=5,
    )
    tasks = ledger_tasks(LedgerConfig(seed=13), num_objectives=3, count=NUM_TASKS)
    jobs = [
        Job(task=task, agent=agent, make_env=LedgerEnv, reward=ExactMatchReward()) for task in tasks
    ]
    return asyncio.run(demonstrations(jobs, faults=Imperfections(forget=1.0), seed=0))


def kept_places(trajectory: Trajectory, row: PackedBatch) -> list[int]:
    """Where in the row the last token of the kept notes and of the kept action stand."""
    kept = [s for s in trajectory.turns[READ_AT].context if s.start is not None]
    assert [s.kind for s in kept] == [SegmentKind.INTERNAL_STATE, SegmentKind.ACTION]
    if trajectory.mode == "carry":
        # They stand where they were sampled, in the turn before.
        before = sum(turn.completion.num_tokens for turn in trajectory.turns[: READ_AT - 1])
        place = dict(zip(row.index.tolist(), row.targets.tolist(), strict=True))
        return [place[before + (s.start or 0) + len(s.token_ids) - 1] for s in kept]
    ends = np.cumsum([len(s.token_ids) for s in trajectory.turns[READ_AT].context])
    shown = [s.kind for s in trajectory.turns[READ_AT].context]
    return [int(ends[shown.index(s.kind)]) - 1 for s in kept]


def features(model: Any, trajectory: Trajectory) -> np.ndarray:
    turns = trajectory.turns[: READ_AT + 1]
    if trajectory.mode == "reencode":
        (row,) = pack([replace(trajectory, turns=turns[-1:])], row_tokens=4096)
    else:
        (row,) = pack([replace(trajectory, turns=turns)], row_tokens=4096)
    with torch.no_grad(), packed(model, row.visible_until) as told:
        found = model.get_decoder()(
            input_ids=torch.from_numpy(row.token_ids)[None],
            position_ids=torch.from_numpy(row.positions)[None],
            use_cache=False,
            output_hidden_states=True,
            **told,
        )
    states = torch.stack(found.hidden_states[:-1])[:, 0, kept_places(trajectory, row)]
    return states.flatten().numpy()


def accuracy(inputs: np.ndarray, labels: np.ndarray) -> float:
    """Of a ridge regression on one-hot labels, on what it was not fitted to."""
    mean, deviation = inputs[:NUM_TRAINED].mean(0), inputs[:NUM_TRAINED].std(0) + 1e-6
    scaled = np.hstack([(inputs - mean) / deviation, np.ones((len(inputs), 1))])
    fitted, unseen = scaled[:NUM_TRAINED], scaled[NUM_TRAINED:]
    targets = np.eye(labels.max() + 1)[labels[:NUM_TRAINED]]
    weights = np.linalg.solve(fitted.T @ fitted + 10 * np.eye(fitted.shape[1]), fitted.T @ targets)
    return float(((unseen @ weights).argmax(1) == labels[NUM_TRAINED:]).mean())


def main() -> None:
    renderer, model = HFRenderer.load(POLICY), load_model(POLICY, device="cpu", dtype="float32")
    shown = episodes(renderer)
    first = [next(iter(t.task.metadata["memory"][1].values())) for t in shown]
    labels = np.array([int(value) - 100 for value in first])
    result: dict[str, Any] = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/leak.py",
        "episodes": len(shown),
        "chance": 1 / len(set(first)),
    }
    for mode in ("reencode", "carry"):
        inputs = np.stack([features(model, replace(t, mode=mode)) for t in shown])
        result[mode] = {"accuracy": accuracy(inputs, labels), "features": inputs.shape[1]}
    atomic_write(ROOT / "docs/results/leak.json", orjson.dumps(result, option=orjson.OPT_INDENT_2))
    print(result)


if __name__ == "__main__":
    main()
