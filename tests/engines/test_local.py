"""The local engine: exact log-probabilities, greedy tokens, stop strings, seeds, cancellation."""

import asyncio

import pytest

from mem1.chat import ByteRenderer
from mem1.engines import Request
from mem1.errors import BudgetError, EngineError, ModelError
from mem1.types import Completion, Sampling

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mem1.engines.local import LocalEngine  # noqa: E402

SIZES = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 0,
}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES, head_dim=8),
    "mistral": lambda: transformers.MistralConfig(**SIZES, sliding_window=16),
}


def tiny(kind: str = "llama"):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[kind](), dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def request(text: str, *, max_tokens: int = 24, stop=(), **sampling) -> Request:
    return Request(
        prompt_ids=tuple(text.encode()),
        messages=(),
        max_tokens=max_tokens,
        stop=stop,
        sampling=Sampling(**sampling),
    )


def complete(engine: LocalEngine, *requests: Request) -> list[Completion]:
    async def run() -> list[Completion]:
        return await asyncio.gather(*(engine.complete(r) for r in requests))

    return asyncio.run(run())


HEAD = "A long head that all of the prompts share. "
PROMPTS = [HEAD + "x" * (5 * i) for i in range(9)] + ["alone", "alone and longer"]


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("cached", [0, 4096])
def test_logprobs_are_those_of_one_plain_forward(kind, cached):
    model = tiny(kind)
    engine = LocalEngine(model, codec=ByteRenderer(), max_batch=4, prefix_cache_tokens=cached)
    asked = [request(p, seed=i, temperature=0.7) for i, p in enumerate(PROMPTS)] * 2
    for sent, got in zip(asked, complete(engine, *asked), strict=True):
        ids = torch.tensor([[*sent.prompt_ids, *got.token_ids]])
        logits = model(ids).logits[0, len(sent.prompt_ids) - 1 : -1].float() / 0.7
        plain = logits.log_softmax(-1).gather(1, torch.tensor(got.token_ids)[:, None])[:, 0]
        assert (plain - torch.tensor(got.logprobs)).abs().max() < 1e-4
        assert got.temperature == 0.7


def test_greedy_tokens_are_those_of_generate():
    model = tiny()
    engine = LocalEngine(model, codec=ByteRenderer(), max_batch=16)
    answers = complete(engine, *(request(p, temperature=0) for p in PROMPTS))
    for prompt, got in zip(PROMPTS, answers, strict=True):
        ids = torch.tensor([list(prompt.encode())])
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False
        )
        assert tuple(whole[0, ids.shape[1] :].tolist()) == got.token_ids
        assert got.temperature == 1.0


@pytest.mark.parametrize("max_batch", [1, 3])
def test_a_seed_gives_the_same_reply_in_any_company(max_batch):
    engine = LocalEngine(tiny(), codec=ByteRenderer(), max_batch=max_batch)
    alone = complete(engine, request("hello", seed=5))[0]
    together = complete(engine, *(request(p, seed=9) for p in PROMPTS), request("hello", seed=5))
    assert together[-1].token_ids == alone.token_ids
    assert complete(engine, request("hello", seed=6))[0].token_ids != alone.token_ids


def test_a_stop_string_over_several_tokens_ends_the_reply_and_is_kept():
    engine = LocalEngine(tiny(), codec=ByteRenderer())
    free = complete(engine, request("hello", temperature=0, max_tokens=40))[0]
    stop = ByteRenderer().decode(free.token_ids)[7:10]
    stopped = complete(engine, request("hello", temperature=0, max_tokens=40, stop=(stop,)))[0]
    assert stopped.finish_reason == "stop"
    assert stopped.text.endswith(stop)
    assert stopped.token_ids == free.token_ids[: len(stopped.token_ids)]
    assert len(stopped.token_ids) < 20 < len(free.token_ids)


def test_end_of_sequence_is_an_id_but_no_text():
    model = tiny()
    free = complete(LocalEngine(model, codec=ByteRenderer()), request("hi", temperature=0))[0]
    last = next(
        i for i, token in enumerate(free.token_ids) if token not in free.token_ids[:i] and i
    )
    eos = free.token_ids[last]
    engine = LocalEngine(model, codec=ByteRenderer(), eos_ids=[eos])
    ended = complete(engine, request("hi", temperature=0))[0]
    assert ended.token_ids == free.token_ids[: last + 1]
    assert ended.text == ByteRenderer().decode(ended.token_ids[:-1])
    assert ended.finish_reason == "stop"


def test_top_p_keeps_to_the_nucleus():
    engine = LocalEngine(tiny(), codec=ByteRenderer())
    greedy = complete(engine, request("hi", temperature=0))[0]
    narrow = complete(engine, request("hi", seed=1, top_p=1e-6))[0]
    assert narrow.token_ids == greedy.token_ids


def test_a_cancelled_request_leaves_and_the_others_go_on():
    engine = LocalEngine(tiny(), codec=ByteRenderer(), max_batch=2)

    async def run() -> Completion:
        long = asyncio.create_task(engine.complete(request("long", max_tokens=400, seed=0)))
        await asyncio.sleep(0.05)
        long.cancel()
        return await engine.complete(request("short", seed=1))

    assert asyncio.run(run()).num_tokens > 0
    assert not engine._rows


def test_a_model_that_breaks_fails_the_requests_and_not_the_engine():
    model = tiny()
    engine = LocalEngine(model, codec=ByteRenderer())
    embed = model.model.embed_tokens
    model.model.embed_tokens = torch.nn.Embedding(2, 32)
    with pytest.raises(EngineError, match="IndexError"):
        complete(engine, request("hello"))
    model.model.embed_tokens = embed
    assert complete(engine, request("hello"))[0].num_tokens > 0


def test_a_request_over_the_window_is_refused_with_the_numbers():
    engine = LocalEngine(tiny(), codec=ByteRenderer())
    with pytest.raises(BudgetError, match="5 prompt tokens and 508 to sample"):
        complete(engine, request("hello", max_tokens=508))


def test_a_path_that_is_no_model_is_named(tmp_path):
    with pytest.raises(ModelError, match="no such file or folder"):
        LocalEngine.load(tmp_path / "nothing", codec=ByteRenderer())
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no model that transformers can load"):
        LocalEngine.load(tmp_path, codec=ByteRenderer())
    (tmp_path / "x.gguf").write_bytes(b"not gguf")
    with pytest.raises(ModelError, match=r"x\.gguf"):
        LocalEngine.load(tmp_path / "x.gguf", codec=ByteRenderer())
