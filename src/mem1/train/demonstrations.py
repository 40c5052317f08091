"""AN EXPERT'S REPLIES -> TRAJECTORIES with exact token ids, played through the real agent loop.

[Job], Imperfections -> demonstrations -> [Trajectory]
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from mem1.engines import ScriptedEngine
from mem1.rollout import Job, collect
from mem1.tasks.expert import Imperfections, demonstrate
from mem1.train.transcripts import Teller
from mem1.types import Trajectory


async def demonstrations(
    jobs: Sequence[Job], *, faults: Imperfections, seed: int
) -> list[Trajectory]:
    """Let an imperfect expert do jobs of the ledger in the place of their engine. The same seed
    gives the same trajectories.

    Raises: DataError for a task that is not of the ledger.
    """
    return await collect([_taught(job, faults=faults, seed=seed) for job in jobs])


def _taught(job: Job, *, faults: Imperfections, seed: int) -> Job:
    rng = random.Random(f"demonstrations/{seed}/{job.task.id}")
    agent = job.agent
    script = demonstrate(job.task, max_turns=agent.max_turns, rng=rng, faults=faults)
    engine = Teller(ScriptedEngine(script, codec=agent.renderer))
    return replace(job, agent=replace(agent, engine=engine))
