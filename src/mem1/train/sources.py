"""WHERE A BATCH COMES FROM: episodes of the policy as it is, or what others have done.

    step, level -> Rollouts.batch       -> [Trajectory], sampled now, stored in rollouts/
    step        -> Demonstrations.batch -> [Trajectory], read before
    step        -> Expert.batch         -> [Trajectory], of the ledger's own expert

A batch is a function of the run's seed, the step and the level alone, so that a resumed run goes on
with it. Several processes each run the episodes of their own tasks, with the seeds that these have
in one process, and then all have them all.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import chain, groupby, zip_longest
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from mem1.errors import ConfigError, DataError, EngineError
from mem1.rollout import Job, TrajectoryStore, collect
from mem1.rollout.store import dump_trajectory, load_trajectory
from mem1.train.checks import check_sampled, name_of
from mem1.train.config import GROUPED, TrainConfig
from mem1.train.curriculum import Level
from mem1.train.team import Team
from mem1.types import FAILURES, SamplingMode, Task, Trajectory

ROLLOUTS, VALIDATION = "rollouts", "validation"
_T = TypeVar("_T")


class Source(Protocol):
    """Gives what a run learns from and is judged by."""

    def batch(self, step: int, *, level: Level) -> list[Trajectory]:
        """The trajectories of a step, those of a task side by side."""
        ...

    def validate(self, step: int, *, level: Level) -> list[Trajectory]:
        """Those of all held-out tasks after a step, or before the first one, under the level's cap;
        none if there are none."""
        ...

    def forget_after(self, step: int) -> None:
        """The run goes on from this step: what came after it is void."""
        ...


class Plan(Protocol):
    """Makes the jobs of some tasks. Args: `internal_state`, its cap; None: the budget's."""

    def __call__(
        self,
        tasks: Sequence[Task],
        *,
        samples: int,
        seed: int,
        greedy: bool,
        internal_state: int | None,
    ) -> list[Job]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstrations:
    """Trajectories to imitate, each once an epoch."""

    trajectories: Sequence[Trajectory]
    config: TrainConfig

    def batch(self, step: int, *, level: Level) -> list[Trajectory]:
        size, seed = self.config.batch_size, self.config.seed
        return drawn(self.trajectories, step=step, size=size, seed=seed, name="demonstrations")

    def validate(self, step: int, *, level: Level) -> list[Trajectory]:
        return []

    def forget_after(self, step: int) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Expert:
    """Demonstrations that are made when they are wanted."""

    tasks: Sequence[Task]
    show: Callable[[Sequence[Task], int], list[Trajectory]]
    """What the expert does with some tasks, given a seed."""
    config: TrainConfig

    def batch(self, step: int, *, level: Level) -> list[Trajectory]:
        size, seed = self.config.batch_size, self.config.seed
        tasks = drawn(self.tasks, step=step, size=size, seed=seed, name="tasks")
        return self.show(tasks, step_seed(seed, step=step))

    def validate(self, step: int, *, level: Level) -> list[Trajectory]:
        return []

    def forget_after(self, step: int) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """Episodes of the policy on training and on held-out tasks."""

    folder: Path
    tasks: Sequence[Task]
    validation_tasks: Sequence[Task]
    plan: Plan
    mode: SamplingMode
    temperature: float
    config: TrainConfig
    concurrency: int
    runner: asyncio.Runner
    on_done: Callable[[Trajectory], None] | None = None
    team: Team = field(default_factory=Team)
    under_way: set[asyncio.Task[Any]] = field(default_factory=set[asyncio.Task[Any]])
    """What collects now; `stop` ends it."""

    def batch(self, step: int, *, level: Level) -> list[Trajectory]:
        """`group_size` episodes of each task of the step; failed ones are left out, and so are
        groups of which only one is left, if the algorithm compares rollouts.

        Raises: EngineError if there's nothing to learn from.
        """
        return self.whole(step, own=self.own(step, level=level))

    def own(self, step: int, *, level: Level) -> list[Trajectory]:
        """The episodes of this process's tasks, whatever became of them."""
        size, seed = self.config.batch_size, self.config.seed
        tasks = drawn(level.pick(self.tasks), step=step, size=size, seed=seed, name="tasks")
        jobs = self.plan(
            self.team.part(tasks),
            samples=self.config.group_size,
            seed=step_seed(seed, step=step),
            greedy=False,
            internal_state=level.internal_state,
        )
        return self._collect(jobs, path=self.folder / ROLLOUTS / step_file(step))

    def whole(self, step: int, *, own: Sequence[Trajectory]) -> list[Trajectory]:
        """The batch of a step, of what each process has collected."""
        done = self._shared(own, path=self.folder / ROLLOUTS / step_file(step))
        failed = [trajectory for trajectory in done if trajectory.stop_reason in FAILURES]
        sound = [t for t in done if t.turns and t.stop_reason not in FAILURES]
        sizes = Counter(trajectory.task.id for trajectory in sound)
        least = 2 if self.config.algorithm in GROUPED else 1
        whole = [trajectory for trajectory in sound if sizes[trajectory.task.id] >= least]
        check_sampled(whole, mode=self.mode, temperature=self.temperature)
        if not whole:
            first = (failed or done)[0]
            raise EngineError(
                f"step {step}: none of {len(done)} episodes can be learned from, {name_of(first)} "
                f"ended with {first.stop_reason}: {first.error}"
            )
        return whole

    def validate(self, step: int, *, level: Level) -> list[Trajectory]:
        """One greedy episode of each held-out task."""
        if not self.validation_tasks:
            return []
        path = self.folder / VALIDATION / step_file(step)
        jobs = self.plan(
            self.team.part(self.validation_tasks),
            samples=1,
            seed=self.config.seed,
            greedy=True,
            internal_state=level.internal_state,
        )
        return self._shared(self._collect(jobs, path=path), path=path)

    def forget_after(self, step: int) -> None:
        """Delete the stored episodes that will be sampled anew: also those of a step that was
        begun, since what is sampled together decides the last bits of a log-probability."""
        if not self.team.is_first:
            return
        for name in (ROLLOUTS, VALIDATION):
            for path in (self.folder / name).glob("step-*.jsonl"):
                if path.name > step_file(step):
                    path.unlink()

    def stop(self) -> None:
        """End what another thread collects; its episodes are lost."""
        for task in tuple(self.under_way):
            task.get_loop().call_soon_threadsafe(task.cancel)

    def _collect(self, jobs: Sequence[Job], *, path: Path) -> list[Trajectory]:
        """Run what is owed; the first process stores it."""
        with TrajectoryStore(path) if self.team.is_first else nullcontext() as store:
            return self.runner.run(self._stoppable(jobs, store=store))

    async def _stoppable(
        self, jobs: Sequence[Job], *, store: TrajectoryStore | None
    ) -> list[Trajectory]:
        task = asyncio.current_task()
        assert task is not None
        self.under_way.add(task)
        try:
            return await collect(
                jobs, concurrency=self.concurrency, store=store, on_done=self.on_done
            )
        finally:
            self.under_way.discard(task)

    def _shared(self, own: Sequence[Trajectory], *, path: Path) -> list[Trajectory]:
        """Those of all processes, in the order of the tasks; the first process stores them."""
        if self.team.size == 1:
            return list(own)
        lines = self.team.gather_lists([dump_trajectory(trajectory) for trajectory in own])
        found = [[load_trajectory(line) for line in of_rank] for of_rank in lines]
        if self.team.is_first:
            with TrajectoryStore(path) as store:
                for trajectory in chain.from_iterable(found[1:]):
                    store.append(trajectory)
                    if self.on_done:
                        self.on_done(trajectory)
        groups = [
            [list(group) for _, group in groupby(of_rank, key=lambda t: t.task.id)]
            for of_rank in found
        ]
        in_turn = chain.from_iterable(zip_longest(*groups, fillvalue=[]))
        return list(chain.from_iterable(in_turn))


def step_file(step: int) -> str:
    return f"step-{step:06d}.jsonl"


def step_seed(seed: int, *, step: int) -> int:
    """Seed of what is sampled in a step."""
    return seed * 1_000_003 + step


def drawn(items: Sequence[_T], *, step: int, size: int, seed: int, name: str) -> list[_T]:
    """The `size` items of a step, counted from 1: all items once an epoch, newly shuffled each.

    Raises: ConfigError if there are fewer.
    """
    if len(items) < size:
        raise ConfigError(f"train.batch_size = {size}, but there are {len(items)} {name}")
    epoch, place = divmod(step - 1, len(items) // size)
    order = np.random.default_rng([seed, epoch]).permutation(len(items))
    return [items[index] for index in order[place * size :][:size]]


def worth_imitating(
    trajectories: Sequence[Trajectory], *, least_reward: float | None
) -> list[Trajectory]:
    """Those with exact tokens and enough reward. Raises: DataError if there are none."""
    kept = [
        trajectory
        for trajectory in trajectories
        if trajectory.turns
        and trajectory.stop_reason not in FAILURES
        and all(turn.completion.exact for turn in trajectory.turns)
        and (least_reward is None or trajectory.reward >= least_reward)
    ]
    if not kept:
        enough = "" if least_reward is None else f" and a reward of at least {least_reward}"
        raise DataError(
            f"none of {len(trajectories)} trajectories ended without failure and has exact token "
            f"ids{enough}: lower train.data.least_reward or name other files"
        )
    return kept
