"""The tiny policy: a token for every word of its world, and a folder that every tool loads."""

import asyncio
import functools
import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from mem1.chat import split_reply
from mem1.chat.hf import HFRenderer
from mem1.context import Budget, InternalState
from mem1.engines.local import LocalEngine
from mem1.envs.ledger import LEDGER_BUDGET_PROMPT, LedgerEnv
from mem1.errors import ConfigError
from mem1.rewards import ExactMatchReward
from mem1.rollout import Agent, run_episode
from mem1.rollout.episode import hint_text
from mem1.tasks.ledger import LedgerConfig, ledger_of, ledger_task
from mem1.train.tiny import make_tiny, tiny_tokenizer
from mem1.types import Completion, Message, Sampling

BUDGET = Budget(prompt=16, internal_state=16, action=10, observation=48)


@functools.cache
def renderer():
    return HFRenderer(tiny_tokenizer())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    make_tiny(path, seed=0, hidden=16)
    return path


def pieces(text):
    return [renderer().decode([token]) for token in renderer().encode(text)]


def test_a_reply_has_one_token_a_word_and_tag():
    assert pieces("<think> kami 142 lone</think><search> lone</search>") == [
        "<think>",
        " kami",
        " 142",
        " lone",
        "</think>",
        "<search>",
        " lone",
        "</search>",
    ]


@pytest.mark.parametrize("family", ["lookup", "chain", "update", "aggregate"])
def test_every_word_of_the_world_is_a_token(family):
    task = ledger_task(LedgerConfig(family=family, num_distractors=2), num_objectives=8, number=0)
    env = LedgerEnv(task, prompt=LEDGER_BUDGET_PROMPT)
    said = [asyncio.run(env.start(max_turns=9, state_tokens=24)), *ledger_of(task).pages.values()]
    words = [len(text.split()) for text in said]
    words[0] += 1  # the newline that ends the prompt
    assert [len(pieces(text)) for text in said] == words


def test_what_asks_for_a_sum_or_count_and_tells_one_more_has_one_token_a_word():
    assert pieces(" sum count 0 1") == [" sum", " count", " 0", " 1"]


@pytest.mark.parametrize("shipped", ["internal_state", "full"])
def test_the_words_of_a_shipped_policy_keep_their_ids(shipped):
    file = Path(__file__).parents[2] / "data/ledger" / shipped / "tokenizer.json"
    words = json.loads(file.read_text("utf-8"))["model"]["vocab"]
    assert words.items() <= tiny_tokenizer().get_vocab().items()


@pytest.mark.parametrize("turns", [1, 2, 20, 64])
def test_hints_hold_no_loose_bytes(turns):
    assert {piece for piece in pieces(hint_text(turns)) if len(piece) == 1} == {".", "\n"}


@pytest.mark.parametrize(
    "text", ["", " a", "漢é😀", "<|end|>", "<thinks>", "[HINT", "kami  142\n\n"]
)
def test_any_text_survives(text):
    assert renderer().decode(renderer().encode(text)) == text


def test_a_chat_is_its_bare_text():
    chat = [Message(role="user", content="Find the values of kami\n")]
    assert renderer().decode(renderer().render(chat)) == chat[0].content
    assert renderer().eos_ids == (len(tiny_tokenizer()) - 1,)


def test_a_reply_is_split_without_a_new_tokenisation():
    text = "<think> kami 142</think><answer> 142</answer>"
    ids = renderer().encode(text)
    completion = Completion(
        token_ids=ids, logprobs=None, temperature=1.0, text=text, finish_reason="stop"
    )
    parts = split_reply(
        renderer(),
        completion,
        turn=1,
        actions=("search", "answer"),
        max_state_tokens=9,
        max_action_tokens=9,
    )
    assert parts.faults == ()
    assert (parts.internal_state.token_ids, parts.action_segment.token_ids) == (ids[:4], ids[4:])


def test_the_folder_is_read_back_with_the_same_tokens(folder):
    text = "<think> kami 142</think>\n漢"
    assert HFRenderer.load(folder).encode(text) == renderer().encode(text)


def test_the_engine_plays_an_episode_from_the_folder(folder):
    loaded = HFRenderer.load(folder)
    engine = LocalEngine.load(folder, codec=loaded, eos_ids=loaded.eos_ids, dtype="float32")
    agent = Agent(
        engine=engine,
        renderer=loaded,
        context=InternalState(),
        budget=BUDGET,
        sampling=Sampling(seed=0),
        max_turns=2,
    )
    task = ledger_task(LedgerConfig(), num_objectives=2, number=0)
    played = asyncio.run(
        run_episode(task, agent=agent, env=LedgerEnv(task), reward=ExactMatchReward())
    )
    asyncio.run(engine.close())
    assert played.error is None
    assert played.exact
    assert played.num_turns == 2


def test_the_same_seed_gives_the_same_weights(folder, tmp_path):
    weights = [folder / "model.safetensors", tmp_path / "0" / "model.safetensors"]
    make_tiny(tmp_path / "0", seed=0, hidden=16)
    make_tiny(tmp_path / "1", seed=1, hidden=16)
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert weights[0].read_bytes() != (tmp_path / "1" / "model.safetensors").read_bytes()


def test_it_is_an_ordinary_llama_of_about_a_tenth_of_a_million_parameters(tmp_path):
    make_tiny(tmp_path, seed=0)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "llama"
    assert (tmp_path / "model.safetensors").stat().st_size // 4 == pytest.approx(123_000, rel=0.02)


def test_a_width_that_the_heads_do_not_divide_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="hidden is 66: choose a multiple of 4"):
        make_tiny(tmp_path, seed=0, hidden=66)
