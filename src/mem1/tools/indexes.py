"""THE SETTINGS of dense and hybrid search -> an open retriever.

`[retriever] kind = "dense" | "hybrid"` -> open_index -> Retriever
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mem1.errors import DataError
from mem1.tools.bm25 import BM25Index
from mem1.tools.dense import DenseIndex
from mem1.tools.encoder import Encoder, load_encoder
from mem1.tools.hybrid import HybridRetriever
from mem1.tools.search import Retriever


@dataclass(frozen=True, slots=True, kw_only=True)
class _Vectors:
    """What every retriever with vectors is told."""

    corpus: str
    """JSONL or JSONL.gz with `id` and `contents`."""
    model: str
    """A sentence-transformers model: a folder, or a name on the hub."""
    query_prefix: str | None = None
    """What stands before a query. None: the model's own prompt, `query: ` for E5."""
    passage_prefix: str | None = None
    """Likewise before a passage; `passage: ` for E5. Another one makes the vectors anew."""
    device: str | None = None
    """Where the model runs. None: a GPU if there's one."""
    backend: Literal["numpy", "faiss"] = "numpy"
    """What compares; both are exact, faiss uses all cores."""
    top_k: int = 3
    """Passages an observation shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseConfig(_Vectors):
    """`[retriever] kind = "dense"`: vectors of a corpus file, in this process."""

    kind: Literal["dense"] = "dense"


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridConfig(_Vectors):
    """`[retriever] kind = "hybrid"`: BM25 and vectors of a corpus file, their ranks fused."""

    kind: Literal["hybrid"] = "hybrid"
    depth: int = 50
    """Passages that each of the two is asked for."""


def open_index(
    config: DenseConfig | HybridConfig,
    *,
    encoder: Encoder | None = None,
    cache_dir: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Retriever:
    """Open what the settings name, made first where needed. Args: `encoder`, instead of the
    model's; others as in `DenseIndex.open`."""
    corpus = Path(config.corpus)
    if not corpus.is_file():
        raise DataError(f"corpus {corpus}: no such file (looked at {corpus.absolute()})")
    encoder = encoder or load_encoder(
        config.model,
        query_prefix=config.query_prefix,
        passage_prefix=config.passage_prefix,
        device=config.device,
    )
    dense = DenseIndex.open(
        corpus, encoder, backend=config.backend, cache_dir=cache_dir, on_progress=on_progress
    )
    if isinstance(config, DenseConfig):
        return dense
    words = BM25Index.open(corpus, cache_dir=cache_dir, on_progress=on_progress)
    return HybridRetriever([words, dense], depth=config.depth)
