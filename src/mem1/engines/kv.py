"""Key/value memory of the local engine, in torch.

    prompt ids -> PrefixStore.longest -> keys and values of what was computed before
    prefilled sequence -> Slots.join -> one row of the decoding batch -> Slots.leave

Imported by `mem1.engines.local` alone, once torch is known to be there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

KV = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values per layer, each of shape (1, num_kv_heads, num_tokens, head_dim)."""

_SPARE_TOKENS = 256
"""What a decoding row may grow before the buffers are laid out anew."""


def kv_of(cache: Cache) -> KV:
    """What a cache of plain layers holds."""
    kv: KV = []
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None
        assert layer.values is not None
        kv.append((layer.keys, layer.values))
    return kv


def cache_of(kv: KV) -> DynamicCache:
    """A cache that holds this and grows from there; `kv` itself is never written to."""
    cache = DynamicCache()
    for index, (keys, values) in enumerate(kv):
        cache.update(keys, values, index)
    return cache


def is_plain(cache: Cache) -> bool:
    """Whether all layers keep all keys and values: no sliding windows, no recurrent states."""
    return all(type(layer) is DynamicLayer for layer in cache.layers)


class _SlotLayer(DynamicLayer):
    """One layer of `Slots`, as a transformers model sees it."""

    def __init__(self, slots: "Slots", index: int) -> None:
        super().__init__()
        self._slots = slots
        self._index = index
        self.is_initialized = True

    def get_seq_length(self) -> int:
        return self._slots.longest

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._slots.write(self._index, key_states, value_states)


class Slots(Cache):
    """The decoding batch: rows 0 … count - 1, left-aligned, each of its own length.

    Joining and leaving touch one row; nothing is padded, shifted or copied anew per step.
    """

    def __init__(self, num_layers: int, *, max_rows: int) -> None:
        super().__init__(layers=[_SlotLayer(self, index) for index in range(num_layers)])
        self._max_rows = max_rows
        self._sizes: list[int] = []
        self._buffers: KV = []
        """As KV, for all rows at once: each of shape (max_rows, num_kv_heads, room, head_dim)."""

    @property
    def count(self) -> int:
        return len(self._sizes)

    @property
    def longest(self) -> int:
        return max(self._sizes, default=0)

    def join(self, kv: KV) -> None:
        """Add a sequence as the last row."""
        size = kv[0][0].shape[2]
        self._reserve(max(size, self.longest) + 1, like=kv)
        for buffers, parts in zip(self._buffers, kv, strict=True):
            for buffer, part in zip(buffers, parts, strict=True):
                buffer[self.count, :, :size] = part[0]
        self._sizes.append(size)

    def leave(self, row: int) -> KV:
        """Take a row out; the last row moves to its place. Gives what the row held."""
        size, last, moved = self._sizes[row], self.count - 1, self._sizes[-1]
        kv = [
            (keys[row : row + 1, :, :size].clone(), values[row : row + 1, :, :size].clone())
            for keys, values in self._buffers
        ]
        if row != last:
            for buffer in chain.from_iterable(self._buffers):
                buffer[row, :, :moved] = buffer[last, :, :moved]
        self._sizes[row] = moved
        self._sizes.pop()
        return kv

    def step(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Make room for one token per row. Gives the attention mask, shape (count, longest + 1),
        and the positions of the new tokens, shape (count, 1)."""
        self._reserve(self.longest + 1, like=self._buffers)
        device = self._buffers[0][0].device
        self._rows = torch.arange(self.count, device=device)
        self._lengths = torch.tensor(self._sizes, device=device)
        columns = torch.arange(self.longest + 1, device=device)
        return (columns[None] <= self._lengths[:, None]).long(), self._lengths[:, None]

    def write(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put every row's new token behind its last one. Gives all that the rows attend to."""
        all_keys, all_values = self._buffers[layer]
        all_keys[self._rows, :, self._lengths] = keys[:, :, 0]
        all_values[self._rows, :, self._lengths] = values[:, :, 0]
        width = self.longest + 1
        return all_keys[: self.count, :, :width], all_values[: self.count, :, :width]

    def advance(self) -> None:
        """Every row has got its token."""
        self._sizes = [size + 1 for size in self._sizes]

    def _reserve(self, width: int, *, like: KV) -> None:
        """Have room for `width` tokens a row, and some more. Layer by layer: two copies of all
        would be gigabytes."""
        if not self._buffers:
            self._buffers = [(self._empty(0, like=k), self._empty(0, like=v)) for k, v in like]
        if self._buffers[0][0].shape[2] >= width:
            return
        for layer, (keys, values) in enumerate(self._buffers):
            self._buffers[layer] = (
                self._grown(keys, room=width + _SPARE_TOKENS),
                self._grown(values, room=width + _SPARE_TOKENS),
            )

    def _grown(self, buffer: torch.Tensor, *, room: int) -> torch.Tensor:
        grown = self._empty(room, like=buffer)
        grown[:, :, : self.longest] = buffer[:, :, : self.longest]
        return grown

    def _empty(self, room: int, *, like: torch.Tensor) -> torch.Tensor:
        # Zeros, since what is masked still gets multiplied: by 0, which garbage may survive.
        return like.new_zeros((self._max_rows, like.shape[1], room, like.shape[3]))


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
