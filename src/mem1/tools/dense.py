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
from mem1.files import derived_folder, file_state
from mem1.tools.corpus import Passages, write_passages
from mem1.tools.encoder import Encoder, Vectors
from mem1.tools.search import Passage

INDEX_FORMAT = 1
"""Raise it when what is stored changes."""
CHUNK = 1024
"""Passages whose vectors an interruption can lose."""

_VECTORS = "vectors.npy"
_QUERIES, _BLOCK = 256, 65_536
"""Queries and vectors compared at once: their scores, 64 MiB, are all that is held."""
_MAX_QUERY_CHARS = 2_000

Compare = Callable[[Vectors, Vectors, int], tuple[np.ndarray, np.ndarray]]
"""Queries, a block of vectors, count -> rows in the block, best first, and their scores; both
[queries, count]."""


class DenseIndex:
    """A `Retriever`: passages by the inner product of their vectors with the query's.

    A query is the same whatever it's searched with, up to rounding in the model; equal scores keep
    the order of the corpus.
    """

    def __init__(
        self, passages: Passages, vectors: Vectors, encoder: Encoder, *, compare: Compare
    ) -> None:
        """Use `DenseIndex.open`, which makes passages and vectors first where needed."""
        self._passages = passages
        self._vectors = vectors
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
        passages = making.passages()
        return cls(passages, making.vectors(passages), encoder, compare=compare)

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
        found: list[list[tuple[int, float]]] = []
        for start in range(0, len(asked), _QUERIES):
            some = asked[start : start + _QUERIES]
            queries = self._encoder.queries([query for query, _ in some])
            rows, scores = self._best(queries, max(top_k for _, top_k in some))
            for near, alike, (_, top_k) in zip(rows, scores, some, strict=True):
                found.append(list(zip(near.tolist(), alike.tolist(), strict=True))[:top_k])
        return found

    def _best(self, queries: Vectors, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores of the `count` best passages, best first: [queries, count] both, fewer
        if there are fewer."""
        rows = np.empty((len(queries), 0), dtype=np.int64)
        scores = np.empty((len(queries), 0), dtype=np.float32)
        for start in range(0, len(self), _BLOCK):
            block = self._vectors[start : start + _BLOCK]
            near, alike = self._compare(queries, block, min(count, len(block)))
            rows, scores = np.hstack([rows, near + start]), np.hstack([scores, alike])
            order = np.lexsort((rows, -scores))[:, :count]
            rows = np.take_along_axis(rows, order, axis=1)
            scores = np.take_along_axis(scores, order, axis=1)
        return rows, scores


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
    """Makes the passages of a corpus, which any model's vectors share, and a model's vectors chunk
    by chunk; each chunk is a derived folder of its own until all are there."""

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
        self._state = file_state(corpus)

    def passages(self) -> Passages:
        def build(folder: Path) -> None:
            for number, _ in enumerate(write_passages(self._corpus, folder), start=1):
                if number % 10_000 == 0:
                    self._on_progress(number, 0)

        return Passages(self._derived("passages", str(INDEX_FORMAT), build))

    def vectors(self, passages: Passages) -> Vectors:
        """[passages, dimension], memory-mapped."""

        def build(folder: Path) -> None:
            for start in range(0, len(passages), CHUNK):
                end = min(start + CHUNK, len(passages))
                self._chunk(start, [passages[row][1] for row in range(start, end)])
                self._on_progress(end, len(passages))
            self._check_unchanged()
            self._join(folder / _VECTORS, len(passages))

        folder = self._derived("dense", self._version, build)
        for chunk in self._chunks:
            shutil.rmtree(chunk, ignore_errors=True)
        self._check_unchanged()
        return np.load(folder / _VECTORS, mmap_mode="r")

    def _join(self, path: Path, count: int) -> None:
        size = np.load(self._chunks[0] / _VECTORS, mmap_mode="r").shape[1]
        joined = np.lib.format.open_memmap(path, "w+", np.float32, (count, size))
        for number, chunk in enumerate(self._chunks):
            made = np.load(chunk / _VECTORS, mmap_mode="r")
            joined[number * CHUNK : number * CHUNK + len(made)] = made
        joined.flush()

    def _check_unchanged(self) -> None:
        if file_state(self._corpus) != self._state:
            raise DataError(f"corpus {self._corpus}: changed while it was read: run it again")

    def _chunk(self, start: int, texts: list[str]) -> None:
        def build(folder: Path) -> None:
            np.save(folder / _VECTORS, self._encoder.passages(texts))

        # With the state that the passages are of: the corpus may have changed since.
        version = f"{self._version}/{self._state}/{CHUNK}/{start}"
        self._chunks.append(self._derived("dense-chunks", version, build))

    def _derived(self, kind: str, version: str, build: Callable[[Path], None]) -> Path:
        return derived_folder(
            self._corpus, kind=kind, version=version, build=build, base=self._cache_dir
        )


def _numpy() -> Compare:
    def compare(queries: Vectors, block: Vectors, count: int) -> tuple[np.ndarray, np.ndarray]:
        scores = queries @ block.T
        rows = np.stack([_highest(row, count) for row in scores])
        return rows, np.take_along_axis(scores, rows, axis=1)

    return compare


def _highest(scores: np.ndarray, count: int) -> np.ndarray:
    """Rows of the highest scores, best first; of equal ones the first."""
    least = np.partition(scores, -count)[-count]
    rows = np.flatnonzero(scores >= least)
    return rows[np.lexsort((rows, -scores[rows]))][:count]


def _faiss() -> Compare:
    try:
        import faiss  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError("faiss", extra="dense") from error

    def compare(queries: Vectors, block: Vectors, count: int) -> tuple[np.ndarray, np.ndarray]:
        scores, rows = faiss.knn(queries, block, count, metric=faiss.METRIC_INNER_PRODUCT)
        return rows, scores

    return compare


_BACKENDS: dict[str, Callable[[], Compare]] = {"numpy": _numpy, "faiss": _faiss}
