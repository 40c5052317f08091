"""BM25 over a corpus file, in this process.

    corpus.jsonl(.gz) -> BM25Index.open -> built once, kept on disk, memory-mapped -> search

Index and passages stay on disk; a process holds little more than the vocabulary.
"""

from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from mem1.errors import DataError
from mem1.files import derived_folder
from mem1.tools.corpus import Passages, write_passages
from mem1.tools.search import Passage

INDEX_FORMAT = 1
"""Raise it when what is stored changes."""

_MAX_QUERY_CHARS = 2_000


class BM25Index:
    """A `Retriever`: Porter-stemmed English BM25 (Lucene's variant)."""

    def __init__(self, folder: Path) -> None:
        """Open a built index; use `BM25Index.open`, which builds it first where needed."""
        import bm25s

        self._model = bm25s.BM25.load(folder, mmap=True)
        self._passages = Passages(folder)

    @classmethod
    def open(
        cls,
        corpus: Path,
        *,
        k1: float = 1.5,
        b: float = 0.75,
        cache_dir: Path | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> "BM25Index":
        """Open the index of a corpus, built at the first time.

        Args: `corpus`, JSONL(.gz) with `id` and `contents` (title in quotes on its first line), or
        `id`, `title` and `text`; `k1`, how soon a word's repetition counts no more; `b`, how much
        a passage's length counts; `cache_dir`, default `$MEM1_CACHE` or `~/.cache/mem1`;
        `on_progress(done, total)` is called while building, total 0 while unknown.
        Raises: DataError naming the line of a malformed record, or for an empty corpus.
        """
        if not corpus.is_file():
            raise DataError(f"corpus {corpus}: no such file (looked at {corpus.absolute()})")
        progress = on_progress or (lambda done, total: None)
        folder = derived_folder(
            corpus,
            kind="bm25",
            version=f"{INDEX_FORMAT}/bm25s {version('bm25s')}/{k1}/{b}",
            build=lambda empty: _build(corpus, empty, k1=k1, b=b, on_progress=progress),
            base=cache_dir,
        )
        return cls(folder)

    def __len__(self) -> int:
        """Number of passages."""
        return len(self._passages)

    async def search(self, query: str, *, top_k: int) -> list[Passage]:
        words = [word for word in _words(query[:_MAX_QUERY_CHARS]) if word in self._vocabulary]
        if not words:
            return []
        scores = self._model.get_scores(words)
        count = min(top_k, len(scores))
        # Ties go to the earlier passage, so that a search always gives the same result.
        best = np.argpartition(-scores, count - 1)[:count]
        threshold = scores[best].min()
        best = np.concatenate(
            [np.flatnonzero(scores > threshold), np.flatnonzero(scores == threshold)]
        )
        best = best[np.lexsort((best, -scores[best]))][:count]
        return [
            self._passages.passage(int(i), score=float(scores[i])) for i in best if scores[i] > 0
        ]

    @property
    def _vocabulary(self) -> dict[str, int]:
        return self._model.vocab_dict


def _build(
    corpus: Path, folder: Path, *, k1: float, b: float, on_progress: Callable[[int, int], None]
) -> None:
    import bm25s

    tokens, vocabulary = _index_passages(corpus, folder, on_progress=on_progress)
    model = bm25s.BM25(k1=k1, b=b)
    model.index((tokens, vocabulary), show_progress=False)
    model.save(folder)


def _index_passages(
    corpus: Path, folder: Path, *, on_progress: Callable[[int, int], None]
) -> tuple[list[list[int]], dict[str, int]]:
    """Copy the passages; give each one's word ids, and the vocabulary."""
    vocabulary = {"": 0}
    tokens: list[list[int]] = []
    for contents in write_passages(corpus, folder):
        # What has no word stands under the empty one, which no query holds.
        words = _words(contents) or [""]
        tokens.append([vocabulary.setdefault(word, len(vocabulary)) for word in words])
        if len(tokens) % 1000 == 0:
            on_progress(len(tokens), 0)
    on_progress(len(tokens), len(tokens))
    return tokens, vocabulary


def _words(text: str) -> list[str]:
    """Lower-case word stems without English stop words, in order."""
    split, stop_words, stemmer = _analysis()
    words = [word for word in split(text.lower()) if word not in stop_words]
    return stemmer(words)


@cache
def _analysis() -> tuple[
    Callable[[str], list[str]], frozenset[str], Callable[[list[str]], list[str]]
]:
    import re

    import Stemmer  # pyright: ignore[reportMissingImports]
    from bm25s.stopwords import STOPWORDS_EN_PLUS

    stemmer = Stemmer.Stemmer("english")
    return re.compile(r"\w+").findall, frozenset(STOPWORDS_EN_PLUS), stemmer.stemWords
