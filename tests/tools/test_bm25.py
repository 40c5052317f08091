"""The index: what it finds, that it is built once, and what it refuses."""

import asyncio
import gzip
from pathlib import Path

import orjson
import pytest

from mem1.errors import DataError
from mem1.files import read_lines
from mem1.tools import BM25Index, Passage, bm25

SHIPPED = Path(__file__).parents[2] / "data" / "hotpot_nq"
RECORDS = [
    {"id": "1", "contents": '"Paris"\nThe capital of France.'},
    {"id": 2, "title": "Rome", "text": "The capital of Italy, with ruins."},
    {"id": "3", "contents": '"The"\nof and'},
]


def corpus(folder, *records, name="corpus.jsonl"):
    path = folder / name
    data = b"".join(r if isinstance(r, bytes) else orjson.dumps(r) + b"\n" for r in records)
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def opened(folder, *records, **named):
    return BM25Index.open(corpus(folder, *records, **named), cache_dir=folder / "cache")


def ids(index, query, *, top_k=3):
    return [passage.id for passage in asyncio.run(index.search(query, top_k=top_k))]


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.jsonl.gz"])
def test_both_forms_of_passages_are_found_by_stem_best_first(tmp_path, name):
    index = opened(tmp_path, *RECORDS, name=name)
    assert len(index) == 3
    assert ids(index, "Ruined capitals") == ["2", "1"]
    (rome,) = asyncio.run(index.search("ruin", top_k=3))
    assert rome == Passage(
        id="2", title="Rome", text="The capital of Italy, with ruins.", score=rome.score
    )


def test_equal_scores_keep_the_order_of_the_corpus(tmp_path):
    index = opened(tmp_path, *({"id": str(n), "contents": '"t"\nword'} for n in range(20)))
    assert ids(index, "word", top_k=4) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("query", ["", " ?! ", "the of and", "zzzz", "\x00", "<search>"])
def test_a_query_without_a_known_word_finds_nothing(tmp_path, query):
    assert ids(opened(tmp_path, *RECORDS), query) == []


def test_a_huge_query_and_a_huge_top_k_are_answered(tmp_path):
    index = opened(tmp_path, *RECORDS)
    assert ids(index, "capital " * 200_000, top_k=10_000) == ["1", "2"]


def test_the_index_is_built_once_and_again_when_the_corpus_changes(tmp_path):
    built = []
    path = corpus(tmp_path, *RECORDS)

    def reopen():
        return BM25Index.open(
            path, cache_dir=tmp_path / "cache", on_progress=lambda done, total: built.append(done)
        )

    reopen(), reopen()
    assert built == [3, 3]
    corpus(tmp_path, *RECORDS, {"id": "4", "contents": '"Bern"\nA town.'})
    assert ids(reopen(), "Bern") == ["4"]
    assert built == [3, 3, 4, 4]


def test_an_interrupted_making_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(bm25, "CHUNK", 2)
    split, seen = bm25._words, []
    path = corpus(tmp_path, *RECORDS, *({"id": str(n), "contents": f"w{n}"} for n in range(4, 7)))

    def words(text):
        seen.append(text)
        if text == "w4" and seen.count(text) == 1:
            raise KeyboardInterrupt
        return split(text)

    monkeypatch.setattr(bm25, "_words", words)
    with pytest.raises(KeyboardInterrupt):
        BM25Index.open(path, cache_dir=tmp_path / "cache")
    seen[:] = ["w4"]
    index = BM25Index.open(path, cache_dir=tmp_path / "cache")
    assert seen == ["w4", RECORDS[2]["contents"], "w4", "w5", "w6"]
    assert (len(index), ids(index, "w5"), ids(index, "ruin")) == (6, ["5"], ["2"])
    assert list((tmp_path / "cache" / "bm25-words").iterdir()) == []


def test_a_corpus_that_changes_while_it_is_indexed_is_refused(tmp_path, monkeypatch):
    """And nothing of the old one is found in what is made of the new one."""
    monkeypatch.setattr(bm25, "CHUNK", 1)
    path = corpus(tmp_path, *RECORDS)
    other = [{"id": record["id"], "contents": "Bern"} for record in RECORDS]

    def change(done, total):
        if (done, total) == (1, 0):
            corpus(tmp_path, *other)

    with pytest.raises(DataError, match="changed while it was read"):
        BM25Index.open(path, cache_dir=tmp_path / "cache", on_progress=change)
    index = BM25Index.open(path, cache_dir=tmp_path / "cache")
    assert (ids(index, "Bern"), ids(index, "capital")) == (["1", "2", "3"], [])


def test_a_failed_build_leaves_nothing_behind(tmp_path):
    with pytest.raises(DataError):
        opened(tmp_path, *RECORDS, b"{torn")
    assert list((tmp_path / "cache").rglob("*.*")) == []


def test_a_corpus_of_stop_words_can_be_opened(tmp_path):
    assert ids(opened(tmp_path, RECORDS[2]), "anything") == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b'{"id": "9"', r"corpus\.jsonl:2: not a passage"),
        ([1], r"corpus\.jsonl:2: not a passage"),
        ({"id": "9"}, r"corpus\.jsonl:2: not a passage.*title"),
        ({"id": "9", "contents": None}, r"corpus\.jsonl:2: not a passage.*None"),
        ({"contents": '"a"\nb'}, r"corpus\.jsonl:2: not a passage.*id"),
    ],
)
def test_what_is_no_passage_is_named_with_its_line(tmp_path, bad, message):
    with pytest.raises(DataError, match=message):
        opened(tmp_path, RECORDS[0], bad)


def test_a_missing_or_empty_corpus_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jsonl: no such file"):
        BM25Index.open(tmp_path / "gone.jsonl", cache_dir=tmp_path)
    with pytest.raises(DataError, match="holds no passage"):
        opened(tmp_path)


def test_most_shipped_questions_find_a_gold_title(tmp_path):
    """They were chosen so in the larger corpus (data/hotpot_nq/README.md); here it is as easy."""
    index = BM25Index.open(SHIPPED / "corpus.jsonl.gz", cache_dir=tmp_path)
    questions = [orjson.loads(line) for _, line in read_lines(SHIPPED / "questions.jsonl")]

    def near(record):
        found = asyncio.run(index.search(record["question"], top_k=5))
        return bool({passage.title for passage in found} & set(record["supporting_titles"]))

    assert (len(index), len(questions)) == (3500, 100)
    assert sum(map(near, questions)) >= 98
