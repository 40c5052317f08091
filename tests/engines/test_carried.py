"""Episodes that the local engine carries: what it computes, holds, shares, evicts and forgets."""

import asyncio

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from models import random_model  # noqa: E402

from mem1.engines import Carry, Request  # noqa: E402
from mem1.engines.base import CarryingEngine  # noqa: E402
from mem1.engines.local import LocalEngine  # noqa: E402
from mem1.errors import BudgetError, ConfigError, EngineError  # noqa: E402
from mem1.types import Completion, Sampling  # noqa: E402

PROMPT = tuple(range(10, 110))


class Numbers:
    """Text of ids: the numbers themselves."""

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(map(int, text.split()))

    def decode(self, token_ids) -> str:
        return " ".join(map(str, token_ids))


def local(**settings) -> LocalEngine:
    model = random_model("llama")
    model.generation_config.eos_token_id = None
    return LocalEngine(model, codec=Numbers(), **settings)


def ask(ids, *, episode="e", kept=(), start=0, max_tokens=4) -> Request:
    return Request(
        prompt_ids=tuple(ids),
        messages=(),
        max_tokens=max_tokens,
        stop=(),
        sampling=Sampling(temperature=0),
        carry=Carry(episode=episode, kept=tuple(kept), start=start),
    )


def complete(engine: LocalEngine, *requests: Request) -> list[Completion]:
    async def run() -> list[Completion]:
        return await asyncio.gather(*(engine.complete(request) for request in requests))

    return asyncio.run(run())


def widths(engine: LocalEngine) -> list[int]:
    """Filled with the number of tokens of every forward pass from now on."""
    found: list[int] = []
    engine._model.register_forward_pre_hook(
        lambda _module, _args, kwargs: found.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    return found


def second_turn(first: Completion, *, kept=PROMPT, new=(7, 8), episode="e") -> Request:
    """Keeps some of the prompt's tokens and the reply's last two."""
    places = [PROMPT.index(token) for token in kept] + [102, 103]
    ids = (*kept, *first.token_ids[2:], *new)
    return ask(ids, episode=episode, kept=places, start=104)


def test_only_what_is_new_and_the_last_token_are_computed():
    engine = local(lookahead=0)
    passes = widths(engine)
    (first,) = complete(engine, ask(PROMPT))
    complete(engine, second_turn(first))
    # The prompt and the reply but its last token; that token and what's new, and so on.
    assert passes == [100, 1, 1, 1, 3, 1, 1, 1]


def test_what_is_held_are_the_tokens_of_the_last_context_at_their_places():
    engine = local()
    (first,) = complete(engine, ask(PROMPT))
    (second,) = complete(engine, second_turn(first, kept=PROMPT[:50]))
    held = engine._held["e"]
    assert held.places == (*range(50), 102, 103, *range(104, 110))
    assert held.kv[0][0].shape[2] == len(held.places) - 1
    assert held.last_id == second.token_ids[-1]


def test_released_is_gone_and_an_episode_cannot_go_on_from_nothing():
    engine = local()
    assert isinstance(engine, CarryingEngine)
    (first,) = complete(engine, ask(PROMPT))
    engine.release("e")
    engine.release("e")
    assert engine._held == {}
    with pytest.raises(EngineError, match="goes on behind 104 tokens, but keys and values of 0"):
        complete(engine, second_turn(first))


def test_an_episode_goes_on_from_its_own_end_only():
    engine = local()
    complete(engine, ask(PROMPT, max_tokens=5))
    with pytest.raises(EngineError, match="goes on behind 104 tokens, but keys and values of 105"):
        complete(engine, ask(PROMPT, kept=range(100), start=104))


def test_a_cancelled_request_leaves_nothing_behind():
    engine = local()

    async def run() -> None:
        long = asyncio.create_task(engine.complete(ask(PROMPT, max_tokens=300)))
        await asyncio.sleep(0.05)
        long.cancel()
        await engine.complete(ask((1, 2), episode="other"))

    asyncio.run(run())
    assert list(engine._held) == ["other"]


def test_the_head_is_shared_by_carried_rows_unless_they_have_evicted_some_of_it():
    engine = local(max_batch=2)
    names = ("a", "b")
    slots = engine._batch._slots
    firsts = complete(engine, *(ask(PROMPT, episode=name) for name in names))
    # One computes the head, the other finds it known.
    assert len(slots._head_ids) == 100

    def on_head(*kept) -> list[bool]:
        found: list[list[bool]] = []
        end = slots.end
        slots.end = lambda: (end(), found.append([row.on_head for row in slots._rows]))
        turns = zip(names, firsts, kept, strict=True)
        complete(engine, *(second_turn(f, kept=k, episode=name) for name, f, k in turns))
        slots.end = end
        return found[0]

    assert on_head(PROMPT, PROMPT[1:]) == [True, False]


def test_only_a_first_prompt_is_a_prefix_for_others():
    engine = local()
    (first,) = complete(engine, ask(PROMPT))
    complete(engine, second_turn(first, kept=PROMPT[:50], new=range(200, 240)))
    stored = engine._batch._prefixes._entries
    assert [tuple(entry.token_ids) for entry in stored] == [PROMPT]
    passes = widths(engine)
    complete(engine, ask((*PROMPT, 1, 2), episode="other", max_tokens=1))
    assert passes == [2]


def test_the_window_bounds_positions_not_what_is_seen():
    engine = local()
    engine._model.config.max_position_embeddings = 108
    (first,) = complete(engine, ask(PROMPT))
    with pytest.raises(BudgetError, match="2 prompt tokens and 4 to sample behind 104 carried"):
        complete(engine, second_turn(first, kept=PROMPT[:5]))


def test_a_model_whose_rows_cannot_be_evicted_refuses():
    config = transformers.MistralConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, sliding_window=8
    )
    engine = LocalEngine(transformers.MistralForCausalLM(config), codec=Numbers())
    with pytest.raises(ConfigError, match="LocalEngine can't evict keys and values"):
        complete(engine, ask((1, 2)))


def test_new_weights_are_what_is_sampled_from_once_the_old_are_forgotten():
    engine = local(max_batch=2)
    request = ask((*PROMPT, 1))
    complete(engine, ask(PROMPT, episode="a"), ask(PROMPT, episode="b"))
    with torch.no_grad():
        engine._model.model.layers[0].self_attn.k_proj.weight.mul_(-1)
    stale = complete(engine, request)[0]
    engine.forget()
    fresh, anew = complete(engine, request)[0], complete(local_of(engine._model), request)[0]
    assert fresh == anew != stale
    assert engine._held.keys() == {"e"}


def local_of(model) -> LocalEngine:
    return LocalEngine(model, codec=Numbers())


def test_nothing_is_forgotten_under_the_feet_of_a_sequence():
    engine = local()

    async def run() -> None:
        under_way = asyncio.create_task(engine.complete(ask(PROMPT)))
        await asyncio.sleep(0)
        with pytest.raises(EngineError, match="sequences under way: 1"):
            engine.forget()
        await under_way
        engine.forget()

    asyncio.run(run())
    assert engine._held == {}
