"""BM25 over a corpus file, in this process.

    corpus.jsonl(.gz) -> BM25Index.open -> built once, kept on disk, memory-mapped -> search

Index and passages stay on disk; a process holds little more than the vocabulary.
"""

import shutil
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np

from mem1.errors import DataError
from mem1.files import derived_folder, file_state
from mem1.tools.corpus import Passages, write_passages
from mem1.tools.search import Passage

INDEX_FORMAT = 1
"""Raise it when what is stored changes."""

CHUNK = 10_000
"""Passages whose words an interruption can lose."""

_WORDS = "words.txt"
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
        chunks: list[Path] = []

        def build(folder: Path) -> None:
            import bm25s

            made = _index_passages(corpus, folder, base=cache_dir, on_progress=progress)
            tokens, vocabulary, chunks[:] = made
            model = bm25s.BM25(k1=k1, b=b)
            model.index((tokens, vocabulary), show_progress=False)
            model.save(folder)

        known = f"{_analysis_version()}/{k1}/{b}"
        folder = derived_folder(corpus, kind="bm25", version=known, build=build, base=cache_dir)
        for chunk in chunks:
            shutil.rmtree(chunk, ignore_errors=True)
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


def _index_passages(
    corpus: Path, folder: Path, *, base: Path | None, on_progress: Callable[[int, int], None]
) -> tuple[list[list[int]], dict[str, int], list[Path]]:
    """Copy the passages; give each one's word ids, the vocabulary, and the folders that hold the
    words of each chunk, which are found again after an interruption."""
    vocabulary = {"": 0}
    tokens: list[list[int]] = []
    chunks: list[Path] = []
    contents, state = write_passages(corpus, folder), file_state(corpus)
    while texts := list(islice(contents, CHUNK)):
        # With the state that the passages are of: the corpus may have changed since.
        known = f"{_analysis_version()}/{state}/{CHUNK}/{len(tokens)}"
        build = partial(_write_words, texts)
        chunk = derived_folder(corpus, kind="bm25-words", version=known, build=build, base=base)
        chunks.append(chunk)
        for line in (chunk / _WORDS).read_bytes().decode().split("\n"):
            # What has no word stands under the empty one, which no query holds.
            words = line.split(" ")
            tokens.append([vocabulary.setdefault(word, len(vocabulary)) for word in words])
        on_progress(len(tokens), 0)
    on_progress(len(tokens), len(tokens))
    return tokens, vocabulary, chunks


def _write_words(texts: Sequence[str], folder: Path) -> None:
    lines = (" ".join(_words(text)) for text in texts)
    (folder / _WORDS).write_bytes("\n".join(lines).encode())


def _analysis_version() -> str:
    """Of what makes words of texts."""
    return f"{INDEX_FORMAT}/bm25s {version('bm25s')}"


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
