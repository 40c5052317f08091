"""Sample from a model by a real vLLM server on this machine's CPU, and say how exact it is.

    OMP_NUM_THREADS=1 python benchmarks/vllm_sample.py FOLDER --vllm ENVIRONMENT/bin/vllm

The server is started, given the weights of the folder as a trainer gives its own, sampled from with
stop strings that end within tokens, and ended. Gaps are in nats, between what vLLM told of sampled
tokens and what transformers computes of them, in float32.
"""

import argparse
import asyncio
import os
import time
from pathlib import Path

from mem1.chat.hf import HFRenderer
from mem1.config import VLLMConfig
from mem1.engines import Request
from mem1.engines.local import load_model
from mem1.engines.vllm import VLLMEngine
from mem1.train.policy import Policy
from mem1.train.served import PolicyWeights
from mem1.types import Completion, Message, Sampling

QUESTIONS = (
    "Write one sentence about cats. Then write </search>.",
    "Repeat this with its tags: <answer>Paris</answer>",
    "Say <search>moon landing</search> and nothing else.",
    "Count to twenty.",
)
STOPS = ("</search>", "</answer>", " the", ", ")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vllm", required=True, help="path of a vllm program")
    parser.add_argument("--replies", type=int, default=12)
    options = parser.parse_args()

    os.environ.update(VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1")
    renderer = HFRenderer.load(options.folder)
    model = load_model(options.folder, device="cpu", dtype="float32")
    weights = PolicyWeights(policy=Policy(model=model))
    config = VLLMConfig(
        model=str(options.folder),
        command=(options.vllm, "serve"),
        serve_args=("--enforce-eager", "--max-num-seqs", "8"),
        dtype="float32",
        window=1024,
    )
    requests = [request(number, renderer=renderer) for number in range(options.replies)]
    started = time.perf_counter()
    engine = await VLLMEngine.open(
        config, codec=renderer, eos_ids=renderer.eos_ids, weights=weights
    )
    opened = time.perf_counter()
    try:
        replies = await asyncio.gather(*map(engine.complete, requests))
        done = time.perf_counter()
        again = await asyncio.gather(*map(engine.complete, requests))
    finally:
        await engine.close()
    gaps = [gap(one, reply, weights=weights) for one, reply in zip(requests, replies, strict=True)]
    same = [one.token_ids == two.token_ids for one, two in zip(replies, again, strict=True)]
    print(f"seconds to start and check {opened - started:.0f}, to sample {done - opened:.1f}")
    print(f"replies {len(replies)}, exact {sum(reply.exact for reply in replies)}")
    print(f"ended by a stop string {sum(reply.finish_reason == 'stop' for reply in replies)}")
    print(f"same seed, same tokens {sum(same)}")
    print(f"largest gap {max(gaps):.2e}")


def request(number: int, *, renderer: HFRenderer) -> Request:
    messages = (Message(role="user", content=QUESTIONS[number % len(QUESTIONS)]),)
    return Request(
        prompt_ids=renderer.render(messages),
        messages=messages,
        max_tokens=24,
        stop=STOPS,
        sampling=Sampling(temperature=1.0, seed=number),
    )


def gap(request: Request, reply: Completion, *, weights: PolicyWeights) -> float:
    assert reply.logprobs is not None
    ours = weights.logprobs([*request.prompt_ids, *reply.token_ids])[-reply.num_tokens :]
    return max(abs(a - b) for a, b in zip(ours, reply.logprobs, strict=True))


if __name__ == "__main__":
    asyncio.run(main())
