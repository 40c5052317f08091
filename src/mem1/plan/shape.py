"""A MODEL'S SHAPE, from its config.json, its GGUF header or its name; weights are never read.

    "models/Qwen2.5-7B" -> read_shape -> Shape -> parameters, sizes of its layers

Parameters are counted by the formula of the Llama and Qwen families, the ones that train, and
checked against the headers of the safetensors where these are there.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from mem1.errors import MissingExtraError, ModelError
from mem1.wiring import resolve_path

_BIASED = frozenset({"qwen2"})
_NORMED_HEADS = frozenset({"qwen3"})
_FAMILIES = frozenset({"llama", "mistral", *_BIASED, *_NORMED_HEADS})
_VARIANTS = ("-Instruct", "-Base")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A decoder of the Llama and Qwen families; sizes are numbers of elements."""

    family: str
    """As `model_type` in config.json."""
    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    """Whether embedding and output head are one matrix."""
    attention_bias: bool = False
    """Whether all four layers of attention have a bias; those of Qwen2 always have three."""
    window: int | None = None
    """Most tokens; None if it isn't told."""

    @property
    def attended(self) -> int:
        """Width of the queries and of attention's output."""
        return self.heads * self.head_dim

    @property
    def kept(self) -> int:
        """Width of the keys, and of the values."""
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The linear layers of a decoder layer: width of input and output."""
        return {
            "q_proj": (self.hidden, self.attended),
            "k_proj": (self.hidden, self.kept),
            "v_proj": (self.hidden, self.kept),
            "o_proj": (self.attended, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def embedding(self) -> int:
        return self.vocab * self.hidden

    @property
    def layer(self) -> int:
        """Parameters of a decoder layer."""
        biases = self.attended + 2 * self.kept if self._has_bias else 0
        biases += self.hidden if self.attention_bias and self.family not in _BIASED else 0
        norms = 2 * self.hidden + (2 * self.head_dim if self.family in _NORMED_HEADS else 0)
        return sum(map(prod, self.linears.values())) + biases + norms

    @property
    def _has_bias(self) -> bool:
        return self.attention_bias or self.family in _BIASED

    @property
    def outside(self) -> int:
        """Parameters outside of the layers: embedding, head, last norm."""
        return self.embedding * (1 if self.tied else 2) + self.hidden

    @property
    def parameters(self) -> int:
        return self.layers * self.layer + self.outside

    def adapters(self, *, rank: int, targets: tuple[str, ...]) -> int:
        """Parameters of low-rank adapters. Args: `targets`, empty: all linear layers."""
        wide = sum(sum(size) for name, size in self.linears.items() if _meant(name, targets))
        return self.layers * rank * wide


def _meant(name: str, targets: tuple[str, ...]) -> bool:
    return not targets or name in targets


def _qwen(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int) -> Shape:
    is_large = hidden == 3584
    return Shape(
        family="qwen2",
        vocab=152_064 if is_large else 151_936,
        hidden=hidden,
        intermediate=intermediate,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        tied=not is_large,
        window=32_768,
    )


KNOWN: Mapping[str, Shape] = {
    "Qwen2.5-0.5B": _qwen(896, 4864, 24, 14, 2),
    "Qwen2.5-1.5B": _qwen(1536, 8960, 28, 12, 2),
    "Qwen2.5-3B": _qwen(2048, 11_008, 36, 16, 2),
    "Qwen2.5-7B": _qwen(3584, 18_944, 28, 28, 4),
}
"""Models that can be planned before they are downloaded, by the name of their folder; facts of
their config.json at huggingface.co/Qwen. The window is the one that all variants have."""


def read_shape(model: str) -> Shape:
    """The shape of `engine.model`: a folder with config.json, a `.gguf` file, or a known name.

    Raises: ModelError for another architecture, for a folder whose weights are of another shape,
    and if there's neither a model nor a name we know.
    """
    path = resolve_path(model)
    if path.suffix == ".gguf" and path.exists():
        return _from_gguf(path)
    if (path / "config.json").exists():
        shape = _from_config(path / "config.json")
        _check_weights(path, shape)
        return shape
    name = path.name
    for variant in _VARIANTS:
        name = name.removesuffix(variant)
    if name not in KNOWN:
        raise ModelError(
            f"model {model}: no config.json there and no name we know: put its config.json into "
            f"{path}, without weights if you like, or name one of {', '.join(KNOWN)}"
        )
    return KNOWN[name]


def _from_config(path: Path) -> Shape:
    try:
        told: dict[str, Any] = json.loads(path.read_text("utf-8"))
        family = _checked_family(path, told.get("model_type"))
        hidden, heads = int(told["hidden_size"]), int(told["num_attention_heads"])
        usual = 128 if family in _NORMED_HEADS else hidden // heads
        return Shape(
            family=family,
            vocab=int(told["vocab_size"]),
            hidden=hidden,
            intermediate=int(told["intermediate_size"]),
            layers=int(told["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(told.get("num_key_value_heads") or heads),
            head_dim=int(told.get("head_dim") or usual),
            tied=bool(told.get("tie_word_embeddings", False)),
            attention_bias=bool(told.get("attention_bias", False)),
            window=told.get("max_position_embeddings"),
        )
    except (OSError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path}: no usable config.json: {error!r}") from error


def _checked_family(path: Path, name: Any) -> str:
    if name not in _FAMILIES:
        raise ModelError(
            f"{path}: model_type = {name!r} can't be planned, what is counted is "
            f"{', '.join(sorted(_FAMILIES))}"
        )
    return str(name)


def _from_gguf(path: Path) -> Shape:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise MissingExtraError("gguf", extra="local") from error
    try:
        reader = GGUFReader(path)
        family = _checked_family(path, reader.fields["general.architecture"].contents())

        def told(name: str) -> int:
            return int(reader.fields[f"{family}.{name}"].contents())

        hidden, heads = told("embedding_length"), told("attention.head_count")
        tensors = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
        return Shape(
            family=family,
            vocab=tensors["token_embd.weight"][1],
            hidden=hidden,
            intermediate=told("feed_forward_length"),
            layers=told("block_count"),
            heads=heads,
            kv_heads=told("attention.head_count_kv"),
            head_dim=tensors["blk.0.attn_q.weight"][1] // heads,
            tied="output.weight" not in tensors,
            window=told("context_length"),
        )
    except (OSError, KeyError, IndexError) as error:
        raise ModelError(f"{path}: no usable GGUF header: {error!r}") from error


def _check_weights(folder: Path, shape: Shape) -> None:
    """Raises: ModelError if the folder holds weights, and not as many as its config.json says."""
    files = sorted(folder.glob("*.safetensors"))
    counts = [count for file in files for count in _header(file).items()]
    found = sum(count for _, count in counts)
    # A tied head may have been written beside the embedding.
    twice = {shape.parameters, shape.parameters + shape.embedding * shape.tied}
    if files and found not in twice:
        raise ModelError(
            f"{folder}: its safetensors hold {found:,} parameters, its config.json describes "
            f"{shape.parameters:,}: take both from the same model"
        )


def _header(file: Path) -> dict[str, int]:
    """Elements of each tensor in a safetensors file: 8 bytes of length, then JSON."""
    try:
        with file.open("rb") as opened:
            (size,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(size))
        return {
            name: prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise ModelError(f"{file}: no safetensors file: {error!r}") from error
