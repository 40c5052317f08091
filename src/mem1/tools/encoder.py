"""TEXTS -> VECTORS: any sentence-transformers model, or a function of yours.

model name or folder -> load_encoder -> Encoder
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mem1.errors import ConfigError, MissingExtraError, ModelError, ToolError

Vectors = np.ndarray[tuple[int, int], np.dtype[np.float32]]
"""[texts, dimension]"""

_E5 = re.compile(r"(?<![a-z0-9])e5(?![a-z0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """What makes vectors of texts; how alike two are is their inner product."""

    name: str
    """Which model, and which version of it: under another name an index is made anew."""
    encode: Callable[[list[str]], Any]
    """Texts -> an array of [texts, dimension]; called by one thread at a time."""
    query_prefix: str = ""
    passage_prefix: str = ""
    cosine: bool = True
    """Vectors are scaled to length 1."""

    @property
    def identity(self) -> str:
        """Tells this encoder's passage vectors from another's."""
        return f"{self.name}/{self.passage_prefix!r}/{self.cosine}"

    def queries(self, texts: list[str]) -> Vectors:
        """Vectors of queries. Raises: ToolError if the model fails."""
        try:
            return self._vectors([self.query_prefix + _whole(text) for text in texts])
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ToolError(f"encoder {self.name}: {error!r}") from error

    def passages(self, texts: list[str]) -> Vectors:
        """Vectors of passages. Raises: ModelError for vectors that are none."""
        return self._vectors([self.passage_prefix + _whole(text) for text in texts])

    def _vectors(self, texts: list[str]) -> Vectors:
        found = np.ascontiguousarray(self.encode(texts), dtype=np.float32)
        if found.ndim != 2 or len(found) != len(texts):
            raise ModelError(
                f"encoder {self.name}: made an array {found.shape} of {len(texts)} texts, not "
                "[texts, dimension]"
            )
        if not np.isfinite(found).all():
            row = int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
            raise ModelError(f"encoder {self.name}: no number in the vector of {texts[row]!r:.80}")
        if self.cosine:
            found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return found


def load_encoder(
    model: str,
    *,
    query_prefix: str | None = None,
    passage_prefix: str | None = None,
    device: str | None = None,
    batch_size: int = 32,
) -> Encoder:
    """Load a sentence-transformers model; remote code and pickled weights are refused.

    Args: `model`, a folder or a name on the hub; the prefixes, None: those of the model's own
    prompts, `query: ` and `passage: ` for E5; `device`, None: a GPU if there's one.
    Raises: ModelError if it can't be loaded, ConfigError if it isn't made for inner products.
    """
    try:
        from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError("sentence-transformers", extra="dense") from error
    try:
        loaded = SentenceTransformer(
            model, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"retriever.model {model!r}: {error}: name a folder or a hub model with safetensors"
        ) from error
    if loaded.similarity_fn_name not in (None, "cosine", "dot"):
        raise ConfigError(
            f"retriever.model {model!r} compares by {loaded.similarity_fn_name}: take one that "
            "compares by cosine or dot"
        )
    query, passage = prefixes(model, prompts=loaded.prompts)

    def encode(texts: list[str]) -> Any:
        # With an empty prompt, so that the model's default isn't put before ours.
        return loaded.encode(texts, prompt="", batch_size=batch_size, show_progress_bar=False)

    return Encoder(
        name=_fingerprint(model),
        encode=encode,
        query_prefix=query if query_prefix is None else query_prefix,
        passage_prefix=passage if passage_prefix is None else passage_prefix,
        cosine=loaded.similarity_fn_name != "dot",
    )


def prefixes(model: str, *, prompts: Mapping[str, str | None]) -> tuple[str, str]:
    """What stands before a query and before a passage: the model's own prompts if it has any; E5
    was trained with `query: ` and `passage: ` (arXiv 2212.03533) and doesn't say so in its files.
    Instruction-tuned E5 takes a task in words instead, which only its user knows."""
    query = prompts.get("query") or ""
    passage = prompts.get("passage") or prompts.get("document") or ""
    name = Path(model).name.lower()
    if not (query or passage) and _E5.search(name) and "instruct" not in name:
        return "query: ", "passage: "
    return query, passage


def _fingerprint(model: str) -> str:
    """A folder's name with the sizes and times of its files; of a hub model, its name."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = ((path, path.stat()) for path in files)
    return f"{folder.resolve()}:" + ",".join(
        f"{path.relative_to(folder)}={stat.st_size}@{stat.st_mtime_ns}" for path, stat in stats
    )


def _whole(text: str) -> str:
    """A text that can be encoded: half a surrogate pair, which a model may sample, becomes `?`."""
    return text.encode("utf-8", "replace").decode()
