"""Ranks are fused as in the paper; who is the same passage; who fails, fails the search."""

import asyncio
from dataclasses import dataclass

import pytest

from mem1.errors import ConfigError, ToolError
from mem1.tools import Passage
from mem1.tools.hybrid import HybridRetriever, fuse


@dataclass(frozen=True)
class Ranking:
    """A retriever that always finds these, best first."""

    ids: str
    asked: list[int]

    async def search(self, query: str, *, top_k: int) -> list[Passage]:
        self.asked.append(top_k)
        return [passage(id) for id in self.ids[:top_k]]


@dataclass(frozen=True)
class Down:
    async def search(self, query: str, *, top_k: int) -> list[Passage]:
        raise ToolError("index gone")


def passage(id, *, title="", text="text"):
    return Passage(id=id, title=title, text=text, score=99.0)


def searched(*rankings, top_k=3, **settings):
    retriever = HybridRetriever([Ranking(ids, []) for ids in rankings], **settings)
    found = asyncio.run(retriever.search("x", top_k=top_k))
    return "".join(passage.id for passage in found)


def test_a_passage_scores_the_sum_of_its_inverse_ranks():
    fused = fuse([[passage("a"), passage("b")], [passage("b"), passage("c")]])
    assert [(hit.id, hit.score) for hit in fused] == [
        ("b", 1 / 62 + 1 / 61),
        ("a", 1 / 61),
        ("c", 1 / 62),
    ]


def test_what_both_find_stands_before_what_one_finds_first():
    assert searched("abc", "dbe") == "bad"


def test_equal_scores_keep_the_order_of_the_retrievers():
    assert searched("ab", "cd", top_k=4) == "acbd"
    assert searched("ab", "ba") == "ab"


def test_one_retriever_keeps_its_own_order_and_a_silent_one_changes_nothing():
    assert searched("cab") == "cab"
    assert searched("", "cab") == "cab"
    assert searched("", "") == ""


def test_a_passage_named_twice_by_one_retriever_counts_once():
    assert searched("aab", "b") == "ba"


def test_passages_without_ids_are_known_by_what_they_say():
    one, other = passage("", title="t", text="one"), passage("", title="t", text="other")
    assert [hit.text for hit in fuse([[one, other], [other]])] == ["other", "one"]


def test_each_is_asked_for_depth_passages_or_more_if_more_are_wanted():
    ranking = Ranking("abc", [])
    retriever = HybridRetriever([ranking], depth=2)
    counts = [len(asyncio.run(retriever.search("x", top_k=k))) for k in (0, 1, 3)]
    assert (counts, ranking.asked) == ([0, 1, 3], [2, 2, 3])


def test_where_one_cannot_answer_there_is_no_answer():
    retriever = HybridRetriever([Ranking("a", []), Down()])
    with pytest.raises(ToolError, match="index gone"):
        asyncio.run(retriever.search("x", top_k=1))


def test_a_hybrid_of_nothing_is_a_mistake():
    with pytest.raises(ConfigError, match="name at least one"):
        HybridRetriever([])
    with pytest.raises(ConfigError, match="depth is 0"):
        HybridRetriever([Ranking("a", [])], depth=0)
