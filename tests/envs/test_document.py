"""A document is read piece by piece, whatever its length, in contexts that never grow."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest
from worlds import BUDGET, answer, play, scripted, state

from mem1.chat import ByteRenderer
from mem1.context import Full, InternalState
from mem1.engines import Request, ScriptedEngine
from mem1.envs.document import END, DocumentEnv
from mem1.errors import ConfigError, DataError
from mem1.tasks.documents import NeedleConfig, load_documents, needle_task, read_chunks
from mem1.types import StopReason, Task, num_tokens


def text_of(task: Task) -> str:
    return " ".join(read_chunks(task, size=500))


def test_a_needle_text_holds_its_needles_once_and_is_as_long_as_told():
    config = NeedleConfig(num_chars=20_000, num_needles=5, seed=3)
    task = needle_task(config, num_objectives=2, number=0)
    text = text_of(task)
    told = dict(re.findall(r"The number of (\w+) is (\d+)\.", text))
    assert (len(told), abs(len(text) - 20_000) < 200) == (5, True)
    asked = {o.question.split()[-1].rstrip("?"): o.answers[0] for o in task.objectives}
    assert asked.items() <= told.items()
    assert text_of(task) == text


def test_other_numbers_and_seeds_are_other_texts():
    tasks = [
        needle_task(NeedleConfig(seed=seed, num_chars=2000), num_objectives=1, number=number)
        for seed in (0, 1)
        for number in (0, 1)
    ]
    assert len({text_of(task) for task in tasks}) == len({task.id for task in tasks}) == 4


@pytest.mark.parametrize("size", [1, 7, 50, 10_000])
def test_chunks_lose_no_word_and_are_never_too_long(tmp_path, size):
    (tmp_path / "book.txt").write_text("A word,\n\n  another, and a-rather-long-one: füñf.\n" * 9)
    (tmp_path / "q.jsonl").write_text(
        '{"id": 1, "question": "q", "golden_answers": ["a"], "document": "book.txt"}\n'
    )
    (task,) = load_documents(tmp_path / "q.jsonl")
    chunks = list(read_chunks(task, size=size))
    assert max(map(len, chunks)) <= size
    whole = "".join((tmp_path / "book.txt").read_text().split())
    assert "".join("".join(chunks).split()) == whole


def test_whatever_is_replied_the_next_piece_comes_until_the_end():
    task = needle_task(NeedleConfig(num_chars=130, num_needles=1), num_objectives=1, number=0)
    pieces = list(read_chunks(task, size=80))
    said = ["nonsense", f"{state('a')}<next>go on</next>", state("b"), answer("c", "none")]
    budget = replace(BUDGET, prompt=700)
    found = play(scripted(*said), world=DocumentEnv(task, chunk_chars=80), budget=budget)
    seen = [turn.observation or "" for turn in found.turns]
    assert [piece in shown for piece, shown in zip([*pieces, END], seen, strict=False)] == [
        True
    ] * 3
    assert found.stop_reason is StopReason.ANSWERED


def reader(request: Request) -> str:
    """Notes every needle it sees; answers when the document has ended."""
    context = "".join(message.content for message in request.messages)
    pattern = r"number of (\w+) (?:is|=) (\d+)"
    known = dict(re.findall(pattern, context))
    notes = "; ".join(f"number of {name} = {value}" for name, value in known.items())
    asked = re.findall(r"number of (\w+)\?", request.messages[0].content)
    act = f"<answer>{'; '.join(known.get(name, '?') for name in asked)}</answer>"
    return state(notes or "none") + (act if END in context else "<next>go on</next>")


def read(num_chars: int, *, context=None):
    config = NeedleConfig(num_chars=num_chars, num_needles=3)
    task = needle_task(config, num_objectives=2, number=0)
    engine = ScriptedEngine(reader, codec=ByteRenderer())
    budget = replace(BUDGET, prompt=700, internal_state=200, observation=700)
    world = DocumentEnv(task, chunk_chars=500)
    policy = context or InternalState()
    found = play(engine, world=world, context=policy, max_turns=400, budget=budget, task=task)
    return found, [num_tokens(turn.context) + turn.completion.num_tokens for turn in found.turns]


def test_contexts_do_not_grow_with_the_document():
    short, sizes = read(5_000)
    long, more = read(50_000)
    assert (short.reward, long.reward) == (2.0, 2.0)
    assert long.num_turns > 8 * short.num_turns
    assert max(more) <= max(sizes) + 5 <= (long.bound or 0)


def test_full_context_grows_by_every_piece():
    _, sizes = read(5_000, context=Full())
    assert all(later - earlier > 400 for earlier, later in pairwise(sizes[:-2]))


def test_a_document_that_takes_more_turns_is_refused():
    task = needle_task(NeedleConfig(num_chars=5000), num_objectives=1, number=0)
    with pytest.raises(ConfigError, match=r"takes \d+ turns, run.max_turns = 6"):
        play(scripted("x"), world=DocumentEnv(task, chunk_chars=100))


def test_what_is_no_document_is_named(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"id": 1, "question": "q", "golden_answers": ["a"]}\n')
    with pytest.raises(DataError, match=r"bad.jsonl:1: write id, question"):
        load_documents(tmp_path / "bad.jsonl")
    task = Task(id="t", objectives=(), metadata={"document": str(tmp_path / "none.txt")})
    with pytest.raises(DataError, match=r"none.txt: can.t be read"):
        list(read_chunks(task, size=5))
    with pytest.raises(DataError, match="has no document"):
        read_chunks(Task(id="t", objectives=()), size=5)
