"""What every Engine keeps to: ids and text agree, caps and stop strings hold, no call sees another.

The engines must be deterministic at temperature 0 and speak the byte tokenizer; what they say is
up to them.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from servers import MODEL, Answer, serve, vllm

from mem1.chat import ByteRenderer
from mem1.engines import Carry, Engine, Request, carrying
from mem1.engines.openai import OpenAIConfig, OpenAIEngine
from mem1.engines.scripted import ScriptedEngine
from mem1.engines.vllm import VLLMConfig, VLLMEngine
from mem1.engines.vllm.replica import Replica
from mem1.engines.vllm.wire import VLLMApi
from mem1.errors import ConfigError
from mem1.types import Completion, Sampling

CODEC = ByteRenderer()
PROMPTS = ["Who?", "A prompt. ", "A prompt. And more of it. " * 3, "x"]


def scripted() -> Engine:
    return ScriptedEngine(lambda r: f"It has {len(r.prompt_ids)} tokens. " * 9, codec=CODEC)


def tiny_model() -> Any:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.5,
        eos_token_id=None,
    )
    return transformers.LlamaForCausalLM(config)


def local() -> Engine:
    model = tiny_model()
    from mem1.engines.local import LocalEngine

    return LocalEngine(model, codec=CODEC, max_batch=3)


@pytest.fixture(scope="module")
def vllm_urls(tmp_path_factory) -> Iterator[tuple[str, str]]:
    """Two servers of the same model."""
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    from standin import Standin, running

    one, two = (Standin(folder, name=MODEL) for _ in range(2))
    with running(one) as first, running(two) as second:
        yield first, second


def vllm_engine(urls: tuple[str, ...], folder: Path) -> Engine:
    config = VLLMConfig(model=MODEL, urls=urls)
    clients = {url: OpenAIEngine(config.client(url), codec=CODEC) for url in urls}
    replicas = [
        Replica(url=url, client=client, api=VLLMApi(client, url=url, model=MODEL))
        for url, client in clients.items()
    ]
    return VLLMEngine(replicas, config=config, codec=CODEC, folder=folder / "work")


def says(path: str, body: dict[str, Any]) -> Answer:
    return vllm(f"It has {len(body.get('prompt', ()))} tokens. " * 9)(path, body)


@pytest.fixture(params=["scripted", "local", "openai", "vllm"])
def make_engine(request, tmp_path) -> Iterator[Callable[[], Engine]]:
    if request.param == "vllm":
        urls = request.getfixturevalue("vllm_urls")
        yield lambda: vllm_engine(urls, tmp_path)
        return
    if request.param != "openai":
        yield {"scripted": scripted, "local": local}[request.param]
        return
    with serve(says) as server:
        config = OpenAIConfig(base_url=server.url, model=MODEL)
        yield lambda: OpenAIEngine(config, codec=CODEC)


def ask(text: str, *, max_tokens: int = 32, stop: tuple[str, ...] = (), **sampling) -> Request:
    return Request(
        prompt_ids=CODEC.encode(text),
        messages=(),
        max_tokens=max_tokens,
        stop=stop,
        sampling=Sampling(**{"temperature": 0.0, **sampling}),
    )


def complete(engine: Engine, *requests: Request) -> list[Completion]:
    """All at once, and the engine closed."""

    async def run() -> list[Completion]:
        try:
            return await asyncio.gather(*(engine.complete(request) for request in requests))
        finally:
            await engine.close()

    return asyncio.run(run())


def test_it_is_an_engine_that_says_its_window(make_engine):
    engine = make_engine()
    assert isinstance(engine, Engine)
    assert engine.window is None or engine.window > 0
    asyncio.run(engine.close())


def test_text_ids_and_logprobs_agree(make_engine):
    for got in complete(make_engine(), *(ask(p, temperature=0.7, seed=1) for p in PROMPTS)):
        assert got.text == CODEC.decode(got.token_ids)
        assert got.logprobs is not None
        assert len(got.logprobs) == got.num_tokens > 0
        assert max(got.logprobs) <= 0
        assert got.temperature in (0.7, 1.0)
        assert got.exact


def test_greedy_logprobs_are_at_temperature_1(make_engine):
    assert complete(make_engine(), ask("Who?"))[0].temperature == 1.0


@pytest.mark.parametrize("max_tokens", [1, 2, 7])
def test_max_tokens_cuts_and_says_so(make_engine, max_tokens):
    got = complete(make_engine(), ask("Who?", max_tokens=max_tokens))[0]
    assert (got.num_tokens, got.finish_reason) == (max_tokens, "length")


@pytest.mark.parametrize("span", [slice(0, 1), slice(3, 6), slice(8, 9)])
def test_the_token_that_completes_the_first_stop_string_is_the_last(make_engine, span):
    free = complete(make_engine(), ask("Who?"))[0]
    stops = ("</never>", free.text[span], free.text[20:23])
    end = min(free.text.index(stop) + len(stop) for stop in stops[1:])
    got = complete(make_engine(), ask("Who?", stop=stops))[0]
    assert (got.token_ids, got.finish_reason) == (free.token_ids[:end], "stop")


def test_a_stop_string_in_the_last_allowed_token_is_a_stop(make_engine):
    free = complete(make_engine(), ask("Who?"))[0]
    stop = free.text[2:4]
    end = free.text.index(stop) + len(stop)
    got = complete(make_engine(), ask("Who?", stop=(stop,), max_tokens=end))[0]
    assert (got.num_tokens, got.finish_reason) == (end, "stop")


def test_a_stop_string_in_the_prompt_does_not_stop(make_engine):
    got = complete(make_engine(), ask("</search>", stop=("</search>",)))[0]
    assert got.finish_reason == "length"


def test_calls_at_once_get_the_replies_of_calls_one_by_one(make_engine):
    requests = [ask(p, max_tokens=5 + 9 * i) for i, p in enumerate(PROMPTS)] * 2
    alone = [complete(make_engine(), request)[0].token_ids for request in requests]
    assert [got.token_ids for got in complete(make_engine(), *requests)] == alone


def test_a_seed_gives_the_same_reply_again(make_engine):
    one, two = (complete(make_engine(), ask("Who?", temperature=1, seed=3)) for _ in range(2))
    assert one == two


def test_a_carried_request_is_served_as_such_or_refused_before_anything_is_sampled(make_engine):
    plain = ask("Who?")
    carried = replace(plain, carry=Carry(episode="e", kept=(), start=0))
    try:
        carrying(make_engine())
    except ConfigError:
        with pytest.raises(ConfigError, match="mode = 'carry'"):
            complete(make_engine(), carried)
    else:
        assert complete(make_engine(), carried) == complete(make_engine(), plain)


def test_closing_twice_is_harmless(make_engine):
    async def close() -> None:
        engine = make_engine()
        await engine.complete(ask("Who?"))
        await engine.close()
        await engine.close()

    asyncio.run(close())
