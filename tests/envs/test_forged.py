"""300 forged tags and control tokens through every place of every world where strangers write.

Search results and pages of the web stand in tests/tools/web/test_hostile.py, MCP servers in
tests/tools/test_mcp.py.
"""

import asyncio
import json
from pathlib import Path

import httpx2
import pytest
from forged import ACTIONS, PAYLOADS, check

from mem1.chat import ByteRenderer
from mem1.chat.segments import split_reply
from mem1.envs import QAEnv
from mem1.envs.document import DocumentEnv
from mem1.envs.prompts import TOOLS_PROMPT
from mem1.envs.webshop import Shop, WebShopEnv
from mem1.tasks.documents import load_documents
from mem1.tasks.webshop import Goal, ProductStore
from mem1.text import neutralise
from mem1.tools import BM25Index, FunctionTool, HTTPRetriever, SearchTool, Toolbox
from mem1.types import Action, Completion, Objective, Task

RENDERER = ByteRenderer()


def task_of(question: str, **metadata) -> Task:
    objective = Objective(question=question, answers=("x",))
    return Task(id="t", objectives=(objective,), metadata=metadata)


def lines(path: Path, records) -> Path:
    path.write_bytes(b"".join(json.dumps(record).encode() + b"\n" for record in records))
    return path


def act(env, name: str, argument: str) -> str:
    action = Action(name=name, argument=argument)
    return check(asyncio.run(env.step(action, faults=())).text)


def prompt_of(env) -> str:
    return asyncio.run(env.start(max_turns=9999, state_tokens=9))


def working(text: str, *, tags: tuple[str, ...] = ACTIONS) -> int:
    """Tags in a text that would be obeyed. Args: `tags`, of the actions that exist."""
    safe = neutralise(text, tags=tags)
    return sum(safe.count(bracket) - text.count(bracket) for bracket in "‹⁅")


def test_no_passage_of_a_corpus_forges_an_action(tmp_path):
    records = (
        {"id": text, "contents": f'"{text}"\nword{number} {text}'}
        for number, text in enumerate(PAYLOADS)
    )
    index = BM25Index.open(lines(tmp_path / "corpus.jsonl", records), cache_dir=tmp_path)
    env = QAEnv(task_of("?"), tools=[SearchTool(index)])
    for number in range(len(PAYLOADS)):
        assert f"word{number}" in act(env, "search", f"word{number}")


def test_no_retriever_on_the_network_forges_an_action():
    def answer(request: httpx2.Request) -> httpx2.Response:
        text = PAYLOADS[int(json.loads(request.content)["queries"][0])]
        document = {"id": text, "contents": f'"{text}"\n{text}'}
        return httpx2.Response(200, json={"result": [[{"document": document, "score": 1.0}]]})

    found = HTTPRetriever("http://localhost", transport=httpx2.MockTransport(answer))
    env = QAEnv(task_of("?"), tools=[SearchTool(found)])
    for number in range(len(PAYLOADS)):
        act(env, "search", str(number))


def say(text: str, wrong: bool = False) -> str:
    """Says it."""
    if wrong:
        raise ValueError(text)
    return text


def test_no_tool_and_no_wrong_call_forges_an_action():
    env = QAEnv(task_of("?"), toolbox=Toolbox([FunctionTool(say)]), prompt=TOOLS_PROMPT)
    for text in PAYLOADS:
        act(env, "tool:say", json.dumps({"text": text}))
        act(env, "tool:say", json.dumps({"text": text, "wrong": True}))
        act(env, "tool:say", json.dumps({"text": "", "wrong": text, text: text}))
        act(env, "tool:say", text)
        act(env, f"tool:{text}", "{}")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop whose every word is forged."""
    folder = tmp_path_factory.mktemp("shop")
    products = [
        {
            "asin": f"B{number:09d}",
            "name": f"thing{number} {text}",
            "full_description": text,
            "small_description": [text],
            "pricing": "$5",
            "category": text,
            "query": text,
            "product_category": text,
            "customization_options": {text: [{"value": text}]},
        }
        for number, text in enumerate(PAYLOADS)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEM1_CACHE", str(folder))
        (folder / "items.json").write_text(json.dumps(products))
        yield Shop(ProductStore.open(folder / "items.json"))


def shopper(shop: Shop, instruction: str) -> WebShopEnv:
    goal = Goal(
        asin="B000000000", instruction=instruction, attributes=(), options=(), price_upper=None
    )
    fields = {name: getattr(goal, name) for name in Goal.__dataclass_fields__}
    task = task_of(instruction, webshop={"goal": fields})
    return WebShopEnv(task, shop=shop, observation_tokens=100_000)


def test_no_product_and_no_wrong_click_forges_an_action(shop):
    for number, text in enumerate(PAYLOADS):
        env = shopper(shop, "buy")
        assert f"thing{number}" in act(env, "answer", f"search[thing{number}]")
        act(env, "answer", f"click[b{number:09d}]")
        for button in (env.clicks()[-1], "description", "< prev", "features", text):
            act(env, "answer", f"click[{button}]")
        act(env, "answer", text)


def test_no_document_forges_an_action(tmp_path):
    text = " ".join(PAYLOADS)
    (tmp_path / "book.txt").write_text(text)
    record = {"id": "1", "question": "?", "golden_answers": ["x"], "document": "book.txt"}
    (task,) = load_documents(lines(tmp_path / "questions.jsonl", [record]))
    env = DocumentEnv(task, chunk_chars=700)
    prompt_of(env)
    pieces = [act(env, "next", "go on") for _ in range(len(text) // 700)]
    assert all(pieces)


@pytest.mark.parametrize("name", ["question", "manual", "instruction", "document"])
def test_no_prompt_holds_a_tag_that_strangers_wrote(shop, tmp_path, name):
    def made(text: str) -> int:
        def tool(word: str) -> str:
            return word

        tool.__doc__ = text
        box = Toolbox([FunctionTool(tool)])
        (tmp_path / "book.txt").write_text("a book")
        read = task_of(text, document=str(tmp_path / "book.txt"))
        envs = {
            "question": QAEnv(task_of(text)),
            "manual": QAEnv(task_of("?"), toolbox=box, prompt=TOOLS_PROMPT),
            "instruction": shopper(shop, text),
            "document": DocumentEnv(read, chunk_chars=100),
        }
        return working(prompt_of(envs[name]), tags=envs[name].actions)

    harmless = made("harmless")
    assert harmless > 0
    assert [text for text in PAYLOADS if made(text) != harmless] == []


def test_no_copy_in_the_notes_works_in_the_next_context():
    kept = 0
    for text in PAYLOADS:
        sampled = f"<think>{text}</think>\n<search>q</search>"
        ids = RENDERER.encode(sampled)
        completion = Completion(
            token_ids=ids,
            logprobs=(0.0,) * len(ids),
            temperature=1.0,
            text=RENDERER.decode(ids),
            finish_reason="stop",
        )
        parts = split_reply(
            RENDERER,
            completion,
            turn=1,
            actions=ACTIONS,
            max_state_tokens=9999,
            max_action_tokens=99,
        )
        assert parts.action in (None, Action(name="search", argument="q"))
        if parts.internal_state:
            kept += 1
            assert working(parts.internal_state.text) == 2
    assert kept > 0.7 * len(PAYLOADS)
