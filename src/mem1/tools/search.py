"""The search tool: a query in, the top passages out.

query -> Retriever.search -> [Passage] -> `Doc 1(Title: …) …` lines
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mem1.errors import ConfigError

NO_RESULTS = "No results found."


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A retrieved passage."""

    id: str
    title: str
    text: str
    score: float
    """Higher is better; the scale is the retriever's own."""

    @classmethod
    def of_contents(cls, id: str, contents: str, *, score: float) -> "Passage":
        """From the FlashRAG / Search-R1 form: the first line is the title, in quotes.

        Quotes inside a title stay; a single line is text without a title.
        """
        title, line_end, text = contents.strip().partition("\n")
        if not line_end:
            title, text = "", title
        title = title.strip()
        if len(title) > 1 and title[0] == title[-1] == '"':
            title = title[1:-1]
        return cls(id=id, title=title, text=text.strip(), score=score)


@runtime_checkable
class Retriever(Protocol):
    """Finds passages. Raises `ToolError` if it can't, after its own retries."""

    async def search(self, query: str, *, top_k: int) -> list[Passage]:
        """At most `top_k` passages, best first."""
        ...


class SearchTool:
    """A `Tool` over any retriever; shows passages as MEM1 and Search-R1 do."""

    def __init__(self, retriever: Retriever, *, top_k: int = 3, name: str = "search") -> None:
        """Args: `top_k`, how many passages are shown, at least 1 (ConfigError)."""
        if top_k < 1:
            raise ConfigError(f"top_k is {top_k}: show at least 1 passage")
        self._retriever = retriever
        self._top_k = top_k
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def call(self, argument: str) -> str:
        passages = await self._retriever.search(argument, top_k=self._top_k)
        lines = (
            f"Doc {rank}(Title: {passage.title}) {' '.join(passage.text.split())}"
            for rank, passage in enumerate(passages, start=1)
        )
        return "\n".join(lines) or NO_RESULTS
