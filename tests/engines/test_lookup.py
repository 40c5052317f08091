"""Guessing what comes next saves passes and changes no reply."""

import asyncio

import pytest
from test_carried import PROMPT, ask, complete, local, second_turn, widths

from mem1.engines import Request
from mem1.engines.lookup import Lookup
from mem1.types import Sampling


def test_a_guess_is_what_followed_the_last_two_tokens_the_last_time():
    text = Lookup([1, 2, 3, 1, 2, 4, 5, 1, 2], most=8)
    assert text.guess() == (4, 5)
    text.append(9)
    assert text.guess() == ()


@pytest.mark.parametrize("ids", [[], [1], [1, 1], [1, 2, 3]])
def test_what_never_stood_there_is_not_guessed(ids):
    assert Lookup(ids, most=8).guess() == ()


def test_a_guess_grows_while_it_is_right_and_shrinks_to_what_was():
    text = Lookup([*range(40), 0, 1], most=8)
    sizes = [len(text.guess())]
    for guessed, right in ((2, 2), (4, 4), (8, 8), (8, 2), (3, 0), (1, 1), (0, 0)):
        text.learn(guessed=guessed, right=right)
        sizes.append(len(text.guess()))
    assert sizes == [2, 4, 8, 8, 3, 1, 2, 2]


def sampled(seed: int, *, temperature: float, max_tokens: int = 60) -> Request:
    return Request(
        prompt_ids=(*PROMPT[:20], *PROMPT[:20]),
        messages=(),
        max_tokens=max_tokens,
        stop=("77",),
        sampling=Sampling(temperature=temperature, seed=seed),
    )


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0])
def test_the_same_is_said_with_the_same_probabilities_in_fewer_passes(temperature):
    requests = [sampled(seed, temperature=temperature, max_tokens=20 + seed) for seed in range(6)]
    plain, ahead = local(lookahead=0, max_batch=4), local(lookahead=8, max_batch=4)
    passes = [widths(engine) for engine in (plain, ahead)]
    for one, two in zip(complete(plain, *requests), complete(ahead, *requests), strict=True):
        assert (one.token_ids, one.finish_reason) == (two.token_ids, two.finish_reason)
        assert one.logprobs == pytest.approx(two.logprobs, abs=5e-5)
    if temperature == 0:  # then a random model repeats itself
        assert len(passes[1]) < 0.8 * len(passes[0])


def test_a_right_guess_behind_the_end_is_not_taken():
    free = complete(local(lookahead=0), sampled(0, temperature=0.0))[0].token_ids
    end = free[30]
    engine = local(lookahead=8)
    engine._batch._eos_ids = frozenset({end})
    (ended,) = complete(engine, sampled(0, temperature=0.0))
    assert ended.token_ids == free[: free.index(end) + 1]


@pytest.mark.parametrize("lookahead", [0, 8])
def test_a_carried_episode_goes_on_from_what_was_taken(lookahead):
    engine = local(lookahead=lookahead)
    (first,) = complete(engine, ask(PROMPT))
    (second,) = complete(engine, second_turn(first))
    assert engine._held["e"].end == 104 + 2 + len(second.token_ids)
    assert engine._held["e"].kv[0][0].shape[2] == len(engine._held["e"].places) - 1


def test_what_is_left_to_the_prefix_store_is_what_was_said():
    engine = local(lookahead=8)
    (said,) = complete(engine, sampled(0, temperature=0.0))
    prompt = sampled(0, temperature=0.0).prompt_ids
    (entry,) = engine._batch._prefixes._entries
    assert tuple(entry.token_ids) == (*prompt, *said.token_ids[:-1])
    assert entry.kv[0][0].shape[2] == len(entry.token_ids)
    asyncio.run(engine.close())
