"""JOBS -> REPORT: run what is still owed, then write what all of it amounts to.

    [Job] -> run_jobs -> runs/demo/trajectories.jsonl -> EvalReport -> runs/demo/report.*

Running it again on the same folder continues; what is done isn't done twice.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from mem1.rollout import Job, TrajectoryStore, collect
from mem1.types import Trajectory

TRAJECTORIES_FILE = "trajectories.jsonl"


async def run_jobs(
    jobs: Sequence[Job],
    *,
    folder: Path,
    concurrency: int,
    on_start: Callable[[int], None] | None = None,
    on_done: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Run the jobs whose trajectories the run folder lacks; give those of all jobs, in order.

    Args: `on_start` is told how many of the jobs are done already, `on_done` each new trajectory.
    Raises: StoreError if another process writes to the folder.
    """
    with TrajectoryStore(folder / TRAJECTORIES_FILE) as store:
        if on_start:
            on_start(sum(job.key in store.done for job in jobs))
        return await collect(jobs, concurrency=concurrency, store=store, on_done=on_done)
