"""300 forged tags and control tokens through every place where strangers write: none works."""

import asyncio
import html
import itertools
import json

import pytest
from forged import CONTROL, PAYLOADS, check

from mem1.chat import ByteRenderer, observation_segment
from mem1.context import Budget, InternalState
from mem1.engines import ScriptedEngine
from mem1.envs import QAEnv
from mem1.envs.web import WEB_PROMPT
from mem1.rewards import ExactMatchReward
from mem1.rollout import Agent, run_episode
from mem1.tools import SearchTool
from mem1.tools.web import FetchTool, WebSearch
from mem1.types import Objective, StopReason, Task


def test_there_are_enough_payloads():
    assert len(PAYLOADS) >= 300


@pytest.fixture
def api(web, monkeypatch):
    monkeypatch.setenv("SERPER_API_KEY", "k")

    def answer(asked):
        payload = PAYLOADS[int(json.loads(asked.body)["q"])]
        hit = {"title": payload, "snippet": payload, "link": f"https://a.example/{payload}"}
        return web.Reply(json.dumps({"answerBox": hit, "organic": [hit]}).encode())

    return web.serve(answer)


def test_no_search_result_forges_an_action(api):
    tool = SearchTool(WebSearch("serper", url=api.url))

    async def all_of_them():
        return [await tool.call(str(number)) for number in range(len(PAYLOADS))]

    safe = [check(said) for said in asyncio.run(all_of_them())]
    arrived = sum("‹" in text or "⁅" in text for text in safe)
    assert arrived > 0.8 * len(PAYLOADS)
    assert len(api.asked) == len(PAYLOADS)


@pytest.mark.parametrize("kind", ["text/plain; charset=utf-8", "text/html", "escaped"])
def test_no_page_forges_an_action(web, kind):
    payloads = [html.escape(text) if kind == "escaped" else text for text in PAYLOADS]
    lines = "\n".join(f"<p>Sentence {n}: {text} ends.</p>" for n, text in enumerate(payloads))
    page = f"<html><head><title>{payloads[0]}</title></head><body>{lines}</body></html>"
    headers = {"Content-Type": "text/html" if kind == "escaped" else kind}
    server = web.serve(body=page.encode("utf-8", "replace"), headers=headers)
    tool = FetchTool(guard=web.guard(server), max_chars=1_000_000)
    safe = check(asyncio.run(tool.call(f"{server.url}/x")))
    assert "Sentence 17" in safe
    if kind != "text/html":  # HTML takes tags for tags: they are gone already
        assert safe.count("‹") > len(PAYLOADS)


@pytest.mark.parametrize("payload", [text for text in PAYLOADS if text.isascii()][::12])
def test_no_header_and_no_address_forges_an_action(web, payload):
    line = "".join(char for char in payload if char.isprintable())
    server = web.serve(body=b"x", headers={"Content-Type": f"image/{line}"})
    tool = FetchTool(guard=web.guard(server))
    check(asyncio.run(tool.call(f"{server.url}/{payload}")))
    check(asyncio.run(tool.call(payload)))


def test_an_episode_with_hostile_pages_does_what_the_agent_says_and_nothing_else(web, api):
    page = web.serve(body="".join(f"<p>{html.escape(p)}</p>" for p in PAYLOADS).encode())
    turns = [f"<search>{number}</search>" for number in range(0, 300, 50)]
    turns += [f"<fetch>{page.url}/ Paris</fetch>", "<answer>Rome</answer>"]
    engine = ScriptedEngine([f"<think>n</think>{t}" for t in turns], codec=ByteRenderer())
    agent = Agent(
        engine=engine,
        renderer=ByteRenderer(),
        context=InternalState(),
        budget=Budget(prompt=4000, internal_state=60, action=80, observation=3000),
        max_turns=len(turns),
    )
    task = Task(id="t", objectives=(Objective(question="Capital of Italy?", answers=("Rome",)),))
    tools = [
        SearchTool(WebSearch("serper", url=api.url)),
        FetchTool(guard=web.guard(page), max_chars=3000),
    ]
    world = QAEnv(task, tools=tools, prompt=WEB_PROMPT)
    found = asyncio.run(run_episode(task, agent=agent, env=world, reward=ExactMatchReward()))
    assert (found.stop_reason, found.answer, found.reward) == (StopReason.ANSWERED, "Rome", 1.0)
    assert len(found.turns) == len(turns)
    seen = [turn.observation or "" for turn in found.turns[:-1]]
    for text in seen:
        inside = text.strip("\n").removeprefix("<information>").removesuffix("</information>")
        assert check(inside).strip() == inside.strip()
    assert "can't be read" not in seen[-1]


def test_no_page_makes_a_control_token():
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    from mem1.chat.hf import HFRenderer

    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet)
    bpe.train_from_iterator(["a page of the web"], trainer)
    control = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<tool_call>", "<s>", "</s>"]
    bpe.add_special_tokens([tokenizers.AddedToken(token) for token in control])
    plain = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|endoftext|>", eos_token="<|im_end|>"
    )
    renderer, ids = HFRenderer(plain), set(plain.convert_tokens_to_ids(control))
    text = "\n".join(itertools.chain(PAYLOADS, CONTROL))
    assert ids & set(plain(text).input_ids)
    segment = observation_segment(renderer, text, turn=1, max_tokens=100_000)
    assert not ids & set(segment.token_ids)
