"""Our client and our server understand one another."""

import asyncio

import httpx2
import pytest

from mem1.errors import ToolError
from mem1.serve.retriever import make_app
from mem1.serving import Guard
from mem1.tools import HTTPRetriever, Passage

PARIS = Passage(id="7", title='A "title"', text="The capital of France.", score=2.5)


class Knows:
    """A retriever that always finds Paris."""

    async def search(self, query: str, *, top_k: int) -> list[Passage]:
        return [PARIS][:top_k]


def asked(token: str | None) -> list[Passage]:
    guard = Guard(command="mem1 serve retriever", token="right")
    transport = httpx2.ASGITransport(app=make_app(Knows(), guard=guard))
    client = HTTPRetriever("http://127.0.0.1:8000", token=token, transport=transport)
    return asyncio.run(client.search("capital?", top_k=3))


def test_a_passage_arrives_as_it_was():
    assert asked("right") == [PARIS]


@pytest.mark.parametrize("token", [None, "wrong"])
def test_without_the_token_there_is_no_answer(token):
    with pytest.raises(ToolError, match="HTTP 401"):
        asked(token)
