"""A model, trajectories or none -> how exactly what is trained is what was run.

mem1 verify --model DIR -> freshly sampled ledger episodes of every policy and mode -> a report
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from mem1.config import LocalConfig
from mem1.context import Budget, ContextPolicy, Full, InternalState, Window
from mem1.envs.ledger import LedgerEnv
from mem1.errors import DataError
from mem1.rewards import ExactMatchReward
from mem1.rollout import Agent, Job, collect
from mem1.rollout.store import read_trajectories
from mem1.tasks.ledger import LedgerConfig, ledger_tasks
from mem1.types import Sampling, SamplingMode, Trajectory
from mem1.wiring import model_path

if TYPE_CHECKING:
    from mem1.train.verify import ExactnessReport

_BUDGET = Budget(prompt=512, internal_state=48, action=24, observation=128)
_POLICIES: tuple[ContextPolicy, ...] = (InternalState(), Full(), Window(k=2))
_MODES: tuple[SamplingMode, ...] = ("reencode", "carry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was found for the trajectories of one context policy and mode."""

    context_policy: str
    mode: SamplingMode
    report: "ExactnessReport"


def verify_model(
    config: LocalConfig, *, trajectories: Sequence[Path] = (), group_size: int = 4, turns: int = 4
) -> Iterator[Verified]:
    """Verify a model on stored trajectories, or on ledger episodes that it samples now.

    Args: `trajectories`, files; `group_size`, episodes of the one task that is sampled, of at most
    `turns` turns.
    Raises: ModelError for a model that can't be trained exactly, DataError for files without
    trajectories.
    """
    from mem1.chat.hf import HFRenderer
    from mem1.engines.local import LocalEngine, load_model
    from mem1.train.attention import check_model
    from mem1.train.verify import verify

    path = model_path(config.model)
    model = load_model(path, device=config.device, dtype=config.dtype or "float32")
    check_model(model)
    if trajectories:
        for (policy, mode), members in _stored(trajectories).items():
            yield Verified(context_policy=policy, mode=mode, report=verify(model, members))
        return
    renderer = HFRenderer.load(path)
    engine = LocalEngine(model, codec=renderer, eos_ids=renderer.eos_ids)
    agent = Agent(
        engine=engine,
        renderer=renderer,
        context=InternalState(),
        budget=_BUDGET,
        sampling=Sampling(temperature=1.0, seed=0),
        max_turns=turns,
    )
    with asyncio.Runner() as runner:
        for policy, mode in product(_POLICIES, _MODES):
            sampler = replace(agent, context=policy, mode=mode)
            members = runner.run(collect(_group(sampler, size=group_size)))
            yield Verified(context_policy=str(policy), mode=mode, report=verify(model, members))
        runner.run(engine.close())


Groups = dict[tuple[str, SamplingMode], list[Trajectory]]


def _stored(files: Sequence[Path]) -> Groups:
    groups: Groups = {}
    for file in files:
        if not file.exists():
            raise DataError(f"{file}: no such file")
        for trajectory in read_trajectories(file):
            if trajectory.turns and all(turn.completion.exact for turn in trajectory.turns):
                key = (trajectory.context_policy, trajectory.mode)
                groups.setdefault(key, []).append(trajectory)
    if not groups:
        raise DataError(f"{', '.join(map(str, files))}: no trajectories with exact token ids")
    return groups


def _group(agent: Agent, *, size: int) -> list[Job]:
    """Episodes of one task."""
    task, *_ = ledger_tasks(LedgerConfig(), num_objectives=2, count=1)
    return [
        Job(task=task, sample=sample, agent=agent, make_env=LedgerEnv, reward=ExactMatchReward())
        for sample in range(size)
    ]
