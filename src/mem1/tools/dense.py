"""DENSE SEARCH over a corpus file, in this process: exact, over memory-mapped vectors.

corpus.jsonl(.gz), Encoder -> DenseIndex.open -> vectors made once, in chunks that outlive an
interruption -> search: queries that wait are encoded and compared together
"""

import asyncio
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

from mem1.errors import ConfigError, DataError, MissingExtraError, ModelError
from mem1.files import derived_folder
from mem1.tools.corpus import Passages, write_passages
from mem1.tools.encoder import Encoder, Vectors
from mem1.tools.search import Passage

INDEX_FORMAT = 1
"""Raise it when what is stored changes."""
CHUNK = 1024
"""Passages whose vectors an interruption can lose."""

_VECTORS = "vectors.npy"
_BLOCK = 65_536
"""Vectors compared at once: the scores of a block are all that is held."""
_MAX_QUERY_CHARS = 2_000

Compare = Callable[[Vectors, Vectors, int], tuple[np.ndarray, np.ndarray]]
"""Queries, a block of vectors, count -> rows in the block, best first, and their scores; both
[queries, count]."""


class DenseIndex:
    """A `Retriever`: passages by the inner product of their vectors with the query's.

    A query is the same whatever it's searched with, up to rounding in the model; equal scores keep
    the order of the corpus.
    """

    def __init__(self, folder: Path, encoder: Encoder, *, compare: "Compare") -> None:
        """Open built vectors; use `DenseIndex.open`, which makes them first where needed."""
        self._passages = Passages(folder)
        self._vectors: Vectors = np.load(folder / _VECTORS, mmap_mode="r")
        self._encoder = encoder
        self._compare = compare
        made, kept = encoder.passages(["?"]).shape[1], self._vectors.shape[1]
        if made != kept:
            raise ModelError(
                f"encoder {encoder.name}: makes vectors of {made}, the index holds {kept}: give "
                "the encoder another name"
            )
        self._search = _Together(self._find)

    @classmethod
    def open(
        cls,
        corpus: Path,
        encoder: Encoder,
        *,
        backend: Literal["numpy", "faiss"] = "numpy",
        cache_dir: Path | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> "DenseIndex":
        """Open the vectors of a corpus, made at the first time; an interrupted making goes on
        where it stopped. A corpus or a model that has changed since gets new ones.

        Args: as `BM25Index.open`; `backend`, what compares: both are exact, faiss uses all cores.
        Raises: DataError naming the line of a malformed record, or if the corpus changes meanwhile.
        """
        if not corpus.is_file():
            raise DataError(f"corpus {corpus}: no such file (looked at {corpus.absolute()})")
        if backend not in _BACKENDS:
            raise ConfigError(f"retriever.backend = {backend!r}: take one of {list(_BACKENDS)}")
        compare = _BACKENDS[backend]()
        making = _Making(corpus, encoder, cache_dir, on_progress or (lambda done, total: None))
        return cls(making.folder(), encoder, compare=compare)

    def __len__(self) -> int:
        """Number of passages."""
        return len(self._passages)

    async def search(self, query: str, *, top_k: int) -> list[Passage]:
        query = query[:_MAX_QUERY_CHARS]
        if top_k < 1 or not query.strip():
            return []
        found = await self._search(query, top_k)
        return [self._passages.passage(row, score=score) for row, score in found]

    def _find(self, asked: list[tuple[str, int]]) -> list[list[tuple[int, float]]]:
        """Rows and scores of the best passages for each query, with its top_k."""
        queries = self._encoder.queries([query for query, _ in asked])
        count = min(max(top_k for _, top_k in asked), len(self))
        rows = np.empty((len(asked), 0), dtype=np.int64)
        scores = np.empty((len(asked), 0), dtype=np.float32)
        for start in range(0, len(self), _BLOCK):
            block = self._vectors[start : start + _BLOCK]
            near, alike = self._compare(queries, block, min(count, len(block)))
            rows = np.hstack([rows, near + start])
            scores = np.hstack([scores, alike])
            order = np.lexsort((rows, -scores))[:, :count]
            rows = np.take_along_axis(rows, order, axis=1)
            scores = np.take_along_axis(scores, order, axis=1)
        return [
            list(zip(best.tolist(), alike.tolist(), strict=True))[:top_k]
            for best, alike, (_, top_k) in zip(rows, scores, asked, strict=True)
        ]


class _Together:
    """Calls that arrive while others are being worked on are worked on together, next."""

    def __init__(self, work: Callable[[list[tuple[str, int]]], list[list[tuple[int, float]]]]):
        self._work = work
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mem1-dense")
        self._lock = threading.Lock()
        self._waiting: list[tuple[str, int]] = []
        self._answers: Future[list[list[tuple[int, float]]]] | None = None

    async def __call__(self, query: str, top_k: int) -> list[tuple[int, float]]:
        with self._lock:
            if self._answers is None:
                self._waiting = []
                self._answers = self._thread.submit(self._run, self._waiting)
            place, answers = len(self._waiting), self._answers
            self._waiting.append((query, top_k))
        # Shielded: who gives up doesn't take the others' answers away.
        return (await asyncio.shield(asyncio.wrap_future(answers)))[place]

    def _run(self, waiting: list[tuple[str, int]]) -> list[list[tuple[int, float]]]:
        with self._lock:
            self._answers = None
        return self._work(waiting)


class _Making:
    """Makes the vectors of a corpus, chunk by chunk; each chunk is a derived folder of its own
    until all are there."""

    def __init__(
        self,
        corpus: Path,
        encoder: Encoder,
        cache_dir: Path | None,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._corpus, self._encoder, self._cache_dir = corpus, encoder, cache_dir
        self._on_progress = on_progress
        self._version = f"{INDEX_FORMAT}/{encoder.identity}"
        self._chunks: list[Path] = []

    def folder(self) -> Path:
        found = self._derived("dense", self._version, self._build)
        for chunk in self._chunks:
            shutil.rmtree(chunk, ignore_errors=True)
        return found

    def _build(self, folder: Path) -> None:
        before = self._corpus.stat()
        for number, _ in enumerate(write_passages(self._corpus, folder), start=1):
            if number % 10_000 == 0:
                self._on_progress(0, 0)
        passages = Passages(folder)
        vectors: Vectors | None = None
        for start in range(0, len(passages), CHUNK):
            texts = [passages[row][1] for row in range(start, min(start + CHUNK, len(passages)))]
            made = self._chunk(start, texts)
            if vectors is None:
                vectors = np.lib.format.open_memmap(
                    folder / _VECTORS, "w+", np.float32, (len(passages), made.shape[1])
                )
            vectors[start : start + len(texts)] = made
            self._on_progress(start + len(texts), len(passages))
        assert vectors is not None, "write_passages refuses an empty corpus"
        vectors.flush()
        after = self._corpus.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise DataError(f"corpus {self._corpus}: changed while it was indexed: run it again")

    def _chunk(self, start: int, texts: list[str]) -> Vectors:
        def build(folder: Path) -> None:
            np.save(folder / _VECTORS, self._encoder.passages(texts))

        folder = self._derived("dense-chunks", f"{self._version}/{CHUNK}/{start}", build)
        self._chunks.append(folder)
        return np.load(folder / _VECTORS)

    def _derived(self, kind: str, version: str, build: Callable[[Path], None]) -> Path:
        return derived_folder(
            self._corpus, kind=kind, version=version, build=build, base=self._cache_dir
        )


def _numpy() -> Compare:
    def compare(queries: Vectors, block: Vectors, count: int) -> tuple[np.ndarray, np.ndarray]:
        scores = queries @ block.T
        rows = np.stack([_best(row, count) for row in scores])
        return rows, np.take_along_axis(scores, rows, axis=1)

    return compare


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Rows of the highest scores, best first; of equal ones the first."""
    least = np.partition(scores, -count)[-count]
    rows = np.flatnonzero(scores >= least)
    return rows[np.lexsort((rows, -scores[rows]))][:count]


def _faiss() -> Compare:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("faiss", extra="dense") from error

    def compare(queries: Vectors, block: Vectors, count: int) -> tuple[np.ndarray, np.ndarray]:
        scores, rows = faiss.knn(queries, block, count, metric=faiss.METRIC_INNER_PRODUCT)
        return rows, scores

    return compare


_BACKENDS: dict[str, Callable[[], Compare]] = {"numpy": _numpy, "faiss": _faiss}
