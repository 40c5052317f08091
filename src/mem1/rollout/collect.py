"""JOBS -> TRAJECTORIES: many episodes at once, each stored the moment it ends.

    [Job(task, agent, env)] -> collect -> [Trajectory], in the order of the jobs

Stopping it at any point loses only the episodes under way; running it again continues.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mem1.envs import Env
from mem1.errors import ConfigError
from mem1.rewards import Reward
from mem1.rollout.episode import Agent, run_episode
from mem1.rollout.store import Key, TrajectoryStore
from mem1.types import Task, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One episode that is owed."""

    task: Task
    sample: int = 0
    agent: Agent
    make_env: Callable[[Task], Env]
    reward: Reward

    @property
    def key(self) -> Key:
        return self.task.id, self.sample, str(self.agent.context)


async def collect(
    jobs: Sequence[Job],
    *,
    concurrency: int = 16,
    store: TrajectoryStore | None = None,
    on_done: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Run every job that the store does not hold yet, `concurrency` at a time.

    A stored failure counts as not held: the task is owed again. Budgets are checked for all jobs
    before the first episode. `on_done` is called after each new episode, never for stored ones.
    Raises: ConfigError for two jobs of one key, BudgetError for caps that don't fit a window.
    """
    if len({job.key for job in jobs}) < len(jobs):
        keys = [job.key for job in jobs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise ConfigError(f"two jobs are (task, sample, context) = {double}: give tasks unique ids")
    for agent in {id(job.agent): job.agent for job in jobs}.values():
        agent.bound()
    results: dict[Key, Trajectory] = dict(store.done) if store else {}
    owed = iter([job for job in jobs if job.key not in results])

    async def work() -> None:
        for job in owed:
            trajectory = await run_episode(
                job.task,
                agent=job.agent,
                env=job.make_env(job.task),
                reward=job.reward,
                sample=job.sample,
            )
            if store:
                store.append(trajectory)
            results[job.key] = trajectory
            if on_done:
                on_done(trajectory)

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(concurrency):
                workers.create_task(work())
    except ExceptionGroup as group:
        # A user's mistake is the same for all workers: say it once.
        raise group.exceptions[0] from None
    return [results[job.key] for job in jobs]
