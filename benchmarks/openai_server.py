"""What an OpenAI-compatible server takes and tells, as a Markdown table: exact, and if not, why?

    python benchmarks/openai_server.py http://localhost:8000/v1 MODEL TOKENIZER

TOKENIZER is the model's folder or `.gguf` file. Asks two questions, one in each mode.
"""

import asyncio
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from mem1.chat.hf import HFRenderer
from mem1.engines import Request
from mem1.engines.openai import OpenAIConfig, OpenAIEngine
from mem1.errors import Mem1Error
from mem1.types import Completion, Message, Sampling

QUESTION = "What is the capital of France? Answer in one sentence."
STOP = "France"


def why_inexact(engine: OpenAIEngine, completion: Completion) -> str:
    if completion.exact:
        return "exact"
    if engine.form.prompt == "text":
        return "it refuses prompts of token ids"
    if not engine.form.extensions:
        return "it refuses the fields that ask for token ids and log-probabilities"
    if completion.logprobs is None:
        return "it does not tell all sampled ids with their log-probabilities"
    return "it does not say that it saw our prompt ids"


async def rows(
    base_url: str, *, model: str, codec: HFRenderer, mode: Literal["completions", "chat"]
) -> list[tuple[str, object]]:
    """Facts about one mode of the server."""
    messages = (Message(role="user", content=QUESTION),)
    request = Request(
        prompt_ids=codec.render(messages),
        messages=messages,
        max_tokens=40,
        stop=(STOP,),
        sampling=Sampling(temperature=0.7, seed=1),
    )
    config = OpenAIConfig(base_url=base_url, model=model, mode=mode, retries=1)
    try:
        engine = await OpenAIEngine.connect(config, codec=codec)
        started = time.perf_counter()
        first, second = await asyncio.gather(engine.complete(request), engine.complete(request))
        seconds = time.perf_counter() - started
        await engine.close()
    except Mem1Error as error:
        return [("error", error)]
    return [
        ("asked as", engine.form),
        ("window it tells", engine.window),
        ("exact, or why not", why_inexact(engine, first)),
        ("the stop string is in the reply", first.text.endswith(STOP)),
        ("finish reason", first.finish_reason),
        ("same seed, same reply", first.text == second.text),
        ("tokens; seconds for two", f"{first.num_tokens}; {seconds:.1f}"),
        ("reply", f"`{first.text!r}`"),
    ]


def main(base_url: str, model: str, tokenizer: str) -> None:
    codec = HFRenderer.load(Path(tokenizer))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {base_url}, model {model}")
    for mode in ("completions", "chat"):
        print(f"\n| {mode} | |\n|---|---|")
        for name, value in asyncio.run(rows(base_url, model=model, codec=codec, mode=mode)):
            print(f"| {name} | {value} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
