"""AN EXPERT'S REPLIES -> TRAJECTORIES with exact token ids, played through the real agent loop.

[Task], Imperfections -> demonstrations -> [Trajectory]
"""

import random
from collections.abc import Callable, Sequence

from mem1.chat import Renderer
from mem1.context import Budget, ContextPolicy
from mem1.engines import ScriptedEngine
from mem1.envs.ledger import LedgerEnv
from mem1.rewards import ExactMatchReward
from mem1.rollout import Agent, Job, collect
from mem1.tasks.ledger import Imperfections, demonstrate
from mem1.train.transcripts import Teller
from mem1.types import Task, Trajectory


async def demonstrations(
    tasks: Sequence[Task],
    *,
    renderer: Renderer,
    context: ContextPolicy,
    budget: Budget,
    turns_for: Callable[[int], int],
    faults: Imperfections,
    seed: int,
) -> list[Trajectory]:
    """Let an imperfect expert work on ledger tasks. The same seed gives the same trajectories.

    Args: `turns_for`, how many turns an episode of N objectives may take.
    Raises: DataError for a task that is not of the ledger.
    """
    jobs = []
    for task in tasks:
        rng = random.Random(f"demonstrations/{seed}/{task.id}")
        max_turns = turns_for(len(task.objectives))
        script = demonstrate(task, max_turns=max_turns, rng=rng, faults=faults)
        agent = Agent(
            engine=Teller(ScriptedEngine(script, codec=renderer)),
            renderer=renderer,
            context=context,
            budget=budget,
            max_turns=max_turns,
        )
        jobs.append(Job(task=task, agent=agent, make_env=LedgerEnv, reward=ExactMatchReward()))
    return await collect(jobs)
