"""HYBRID SEARCH: several retrievers asked at once, their ranks fused.

query -> each Retriever's ranking -> reciprocal rank fusion -> one ranking
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from mem1.errors import ConfigError
from mem1.tools.search import Passage, Retriever

RANK_CONSTANT = 60
"""The k of Cormack, Clarke and Büttcher, SIGIR 2009."""


class HybridRetriever:
    """A `Retriever` over any others; a passage scores the sum of 1 / (60 + its rank) over them.

    Passages are the same if their ids are, or, without ids, title and text. Equal scores keep the
    order of the retrievers. Where one can't answer, there's no answer: half a fusion would be
    another retriever.
    """

    def __init__(self, retrievers: Sequence[Retriever], *, depth: int = 50) -> None:
        """Args: `depth`, how many passages each is asked for, or more if more are wanted; at least
        1 (ConfigError)."""
        if not retrievers:
            raise ConfigError("a hybrid of no retrievers: name at least one")
        if depth < 1:
            raise ConfigError(f"retriever.depth is {depth}: fuse at least 1 passage of each")
        self._retrievers = tuple(retrievers)
        self._depth = depth

    async def search(self, query: str, *, top_k: int) -> list[Passage]:
        depth = max(top_k, self._depth)
        asked = (retriever.search(query, top_k=depth) for retriever in self._retrievers)
        return fuse(await asyncio.gather(*asked))[: max(top_k, 0)]


def fuse(rankings: Sequence[Sequence[Passage]]) -> list[Passage]:
    """One ranking of all, with the fused scores."""
    passages: dict[object, Passage] = {}
    scores: dict[object, float] = {}
    for ranking in rankings:
        seen: set[object] = set()
        for rank, passage in enumerate(ranking, start=1):
            key = passage.id or (passage.title, passage.text)
            if key in seen:
                continue
            seen.add(key)
            passages.setdefault(key, passage)
            scores[key] = scores.get(key, 0.0) + 1 / (RANK_CONSTANT + rank)
    best = sorted(scores, key=lambda key: -scores[key])
    return [replace(passages[key], score=scores[key]) for key in best]
