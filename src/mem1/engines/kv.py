"""Key/value memory of the local engine, in torch.

    prompt ids -> PrefixStore.longest -> keys and values of what was computed before
    prefilled sequence -> Slots.join -> one row of the decoding batch -> Slots.leave

Imported by `mem1.engines.local` alone, once torch is known to be there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

KV = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values per layer, each of shape (1, num_kv_heads, num_tokens, head_dim)."""


def kv_of(cache: Cache) -> KV:
    """What a cache holds."""
    return [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore[attr-defined]


def cache_of(kv: KV) -> DynamicCache:
    """A cache that holds this and grows from there; `kv` itself is never written to."""
    cache = DynamicCache()
    for index, (keys, values) in enumerate(kv):
        cache.update(keys, values, index)
    return cache


class _SlotLayer(DynamicLayer):
    """One layer of `Slots`: every row has a length of its own and gets its next token there."""

    def __init__(self, slots: "Slots") -> None:
        super().__init__()
        self._slots = slots
        self.is_initialized = True

    def get_seq_length(self) -> int:
        return self._slots.longest

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        slots = self._slots
        count, width = slots.count, slots.longest + 1
        assert self.keys is not None
        assert self.values is not None
        self.keys[slots.rows, :, slots.lengths] = key_states[:, :, 0]
        self.values[slots.rows, :, slots.lengths] = value_states[:, :, 0]
        return self.keys[:count, :, :width], self.values[:count, :, :width]


class Slots(Cache):
    """The decoding batch: rows 0 … count - 1, left-aligned, each of its own length.

    Joining and leaving touch one row; nothing is padded, shifted or copied anew per step.
    """

    def __init__(self, num_layers: int, *, max_rows: int) -> None:
        super().__init__(layers=[_SlotLayer(self) for _ in range(num_layers)])
        self._max_rows = max_rows
        self._sizes: list[int] = []

    @property
    def count(self) -> int:
        return len(self._sizes)

    @property
    def longest(self) -> int:
        return max(self._sizes, default=0)

    @property
    def lengths(self) -> torch.Tensor:
        """Tokens per row, shape (count,)."""
        return torch.tensor(self._sizes, device=self._device)

    @property
    def rows(self) -> torch.Tensor:
        return torch.arange(self.count, device=self._device)

    @property
    def _device(self) -> torch.device:
        return self.layers[0].keys.device  # type: ignore[union-attr]

    def join(self, kv: KV) -> None:
        """Add a sequence as the last row."""
        size = kv[0][0].shape[2]
        self._reserve(max(size, self.longest) + 1, like=kv)
        for layer, (keys, values) in zip(self.layers, kv, strict=True):
            layer.keys[self.count, :, :size] = keys[0]  # type: ignore[index]
            layer.values[self.count, :, :size] = values[0]  # type: ignore[index]
        self._sizes.append(size)

    def leave(self, row: int) -> KV:
        """Take a row out; the last row moves to its place. Gives what the row held."""
        size, last = self._sizes[row], self.count - 1
        kv = [
            (
                layer.keys[row : row + 1, :, :size].clone(),
                layer.values[row : row + 1, :, :size].clone(),
            )  # type: ignore[index]
            for layer in self.layers
        ]
        if row != last:
            for layer in self.layers:
                layer.keys[row, :, : self._sizes[last]] = layer.keys[last, :, : self._sizes[last]]  # type: ignore[index]
                layer.values[row, :, : self._sizes[last]] = layer.values[
                    last, :, : self._sizes[last]
                ]  # type: ignore[index]
        self._sizes[row] = self._sizes[last]
        self._sizes.pop()
        return kv

    def step(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Make room for one token per row. Gives the attention mask, shape (count, longest + 1),
        and the positions of the new tokens, shape (count, 1)."""
        self._reserve(self.longest + 1, like=kv_of(self))
        lengths = self.lengths
        columns = torch.arange(self.longest + 1, device=self._device)
        return (columns[None] <= lengths[:, None]).long(), lengths[:, None]

    def advance(self) -> None:
        """Every row has got its token."""
        self._sizes = [size + 1 for size in self._sizes]

    def _reserve(self, width: int, *, like: KV) -> None:
        for layer, (keys, values) in zip(self.layers, like, strict=True):
            old = layer.keys, layer.values
            if old[0] is not None and old[0].shape[2] >= width:
                return
            room = -(-width * 3 // 2 // 64) * 64
            layer.keys, layer.values = (
                torch.zeros(
                    (self._max_rows, part.shape[1], room, part.shape[3]),
                    dtype=part.dtype,
                    device=part.device,
                )
                for part in (keys, values)
            )
            if old[0] is not None and old[1] is not None:
                layer.keys[:, :, : old[0].shape[2]] = old[0]
                layer.values[:, :, : old[1].shape[2]] = old[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    token_ids: np.ndarray
    kv: KV


class PrefixStore:
    """Keys and values of recent sequences, least recently used first, up to `max_tokens`."""

    def __init__(self, *, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._entries: list[_Entry] = []

    def longest(self, token_ids: Sequence[int]) -> KV | None:
        """Keys and values of the longest stored prefix of `token_ids[:-1]`; None if there's none.

        The last token is always computed: its logits are wanted.
        """
        ids = np.asarray(token_ids[:-1])
        common = [_common(entry.token_ids, ids) for entry in self._entries]
        best = max(common, default=0)
        if best == 0:
            return None
        entry = self._entries.pop(common.index(best))
        self._entries.append(entry)
        return [(keys[:, :, :best], values[:, :, :best]) for keys, values in entry.kv]

    def add(self, token_ids: Sequence[int], kv: KV) -> None:
        """Keep a sequence; drops those that are a prefix of it, then the oldest over the limit."""
        ids = np.asarray(token_ids)
        if len(ids) > self._max_tokens:
            return
        self._entries = [
            entry for entry in self._entries if _common(entry.token_ids, ids) < len(entry.token_ids)
        ]
        self._entries.append(_Entry(token_ids=ids, kv=kv))
        while sum(len(entry.token_ids) for entry in self._entries) > self._max_tokens:
            self._entries.pop(0)


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """Length of the common prefix."""
    size = min(len(a), len(b))
    different = np.flatnonzero(a[:size] != b[:size])
    return int(different[0]) if len(different) else size
