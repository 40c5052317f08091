"""What a tiny policy begins with, and how fast it samples.

    OMP_NUM_THREADS=1 python benchmarks/tiny_policy.py runs/tiny
      -> runs/tiny/base                  an untrained policy, as a Hugging Face folder
      -> runs/tiny/demonstrations.jsonl  8,000 episodes of an imperfect expert on lookups, N = 2
      -> runs/tiny/start.json            what these earn; sampled tokens a second

Supervised training on the demonstrations takes about a minute on one core.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from mem1.chat.hf import HFRenderer
from mem1.context import Budget, InternalState
from mem1.engines import ScriptedEngine
from mem1.engines.local import LocalEngine
from mem1.envs.ledger import LedgerEnv
from mem1.files import atomic_write
from mem1.rewards import ExactMatchReward
from mem1.rollout import Agent, Job, collect
from mem1.rollout.store import dump_trajectory
from mem1.tasks.ledger import Imperfections, LedgerConfig, ledger_tasks
from mem1.train.demonstrations import demonstrations
from mem1.train.tiny import make_tiny
from mem1.types import Sampling, Trajectory

TASKS = LedgerConfig(seed=1)
NUM_OBJECTIVES = 2
BUDGET = Budget(prompt=16, internal_state=10, action=8, observation=32)
"""Of two names and values in the tiny tokenizer; one token to spare in state and action."""
MAX_TURNS = 4
FAULTS = Imperfections(forget=0.1, corrupt=0.1, redundant=0.1, early_answer=0.75, format_slip=0.02)
"""Three of four answer too early: even the likeliest reply leaves rewards something to teach."""
NUM_DEMONSTRATIONS = 8000
BATCH = 128


def expert(renderer: HFRenderer) -> list[Trajectory]:
    agent = Agent(
        engine=ScriptedEngine((), codec=renderer),
        renderer=renderer,
        context=InternalState(),
        budget=BUDGET,
        max_turns=MAX_TURNS,
    )
    tasks = ledger_tasks(TASKS, num_objectives=NUM_OBJECTIVES, count=NUM_DEMONSTRATIONS)
    reward = ExactMatchReward()
    jobs = [Job(task=task, agent=agent, make_env=LedgerEnv, reward=reward) for task in tasks]
    return asyncio.run(demonstrations(jobs, faults=FAULTS, seed=0))


def sampled(folder: Path, renderer: HFRenderer) -> float:
    """Tokens a second of processor time, episodes and environment included."""
    engine = LocalEngine.load(
        folder, codec=renderer, dtype="float32", max_batch=BATCH, prefix_cache_tokens=0
    )
    agent = Agent(
        engine=engine,
        renderer=renderer,
        context=InternalState(),
        budget=BUDGET,
        sampling=Sampling(seed=0),
        max_turns=MAX_TURNS,
    )
    jobs = [
        Job(task=task, agent=agent, make_env=LedgerEnv, reward=ExactMatchReward())
        for task in ledger_tasks(TASKS, num_objectives=NUM_OBJECTIVES, count=4 * BATCH)
    ]
    begun = time.process_time()
    played = asyncio.run(collect(jobs, concurrency=BATCH))
    return generated(played) / (time.process_time() - begun)


def generated(played: Sequence[Trajectory]) -> int:
    return sum(turn.completion.num_tokens for one in played for turn in one.turns)


def main(folder: Path) -> None:
    make_tiny(folder / "base", seed=0)
    renderer = HFRenderer.load(folder / "base")
    shown = expert(renderer)
    lines = b"".join(dump_trajectory(trajectory) + b"\n" for trajectory in shown)
    atomic_write(folder / "demonstrations.jsonl", lines)
    turns = [turn for trajectory in shown for turn in trajectory.turns]
    result = {
        "command": "python benchmarks/tiny_policy.py",
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "demonstrations": len(shown),
        "em_per_objective": sum(t.reward for t in shown) / len(shown) / NUM_OBJECTIVES,
        "valid_turns": sum(not turn.faults for turn in turns) / len(turns),
        "turns": len(turns) / len(shown),
        "generated_tokens": generated(shown),
        "sampled_tokens_a_second": round(sampled(folder / "base", renderer)),
    }
    atomic_write(folder / "start.json", orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
    print(result)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
