"""Passages: what is read from a corpus line, and how they are shown."""

import asyncio
from dataclasses import dataclass

import pytest

from mem1.errors import ConfigError
from mem1.tools import Passage, SearchTool


@dataclass(frozen=True)
class Shelf:
    """A retriever that always finds the same passages."""

    passages: tuple[Passage, ...] = ()

    async def search(self, query: str, *, top_k: int) -> list[Passage]:
        return list(self.passages[:top_k])


def passage(title, text):
    return Passage(id="1", title=title, text=text, score=1.0)


def show(*passages, top_k=3):
    return asyncio.run(SearchTool(Shelf(passages), top_k=top_k).call("x"))


def test_passages_are_numbered_lines_with_their_title():
    shown = show(passage("Paris", "Capital\nof  France."), passage("Rome", "In Italy."))
    assert shown == "Doc 1(Title: Paris) Capital of France.\nDoc 2(Title: Rome) In Italy."


def test_no_more_than_top_k_are_shown_and_nothing_is_said_so():
    assert show(passage("a", "b"), passage("c", "d"), top_k=1) == "Doc 1(Title: a) b"
    assert show() == "No results found."


def test_showing_no_passages_is_a_mistake():
    with pytest.raises(ConfigError, match="top_k is 0"):
        SearchTool(Shelf(), top_k=0)


@pytest.mark.parametrize(
    ("contents", "title", "text"),
    [
        ('"Paris"\nCapital of France.\nIt is large.', "Paris", "Capital of France.\nIt is large."),
        ('""Heroes" (song)"\nBy Bowie.', '"Heroes" (song)', "By Bowie."),
        ("Paris\nCapital.", "Paris", "Capital."),
        ("only text", "", "only text"),
        ('"\ntext', '"', "text"),
    ],
)
def test_the_first_line_of_contents_is_the_title(contents, title, text):
    found = Passage.of_contents("1", contents, score=1.0)
    assert (found.title, found.text) == (title, text)
