"""What the local engine remembers of sequences, in torch.

    prompt ids -> PrefixStore.longest -> keys and values of what was computed before

Imported by `mem1.engines.local` alone, once torch is known to be there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

KV = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values per layer, each of shape (1, num_kv_heads, num_tokens, head_dim)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    token_ids: np.ndarray
    kv: KV


class PrefixStore:
    """Keys and values of recent sequences, least recently used first, up to `max_tokens`."""

    def __init__(self, *, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._entries: list[_Entry] = []

    def clear(self) -> None:
        self._entries = []

    def longest(self, token_ids: Sequence[int]) -> KV | None:
        """Keys and values of the longest stored prefix of `token_ids[:-1]`; None if there's none.

        The last token is always computed: its logits are wanted.
        """
        ids = np.asarray(token_ids[:-1])
        common = [common_prefix(entry.token_ids, ids) for entry in self._entries]
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
            entry
            for entry in self._entries
            if common_prefix(entry.token_ids, ids) < len(entry.token_ids)
        ]
        self._entries.append(_Entry(token_ids=ids, kv=kv))
        while sum(len(entry.token_ids) for entry in self._entries) > self._max_tokens:
            self._entries.pop(0)


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """Length of the common prefix."""
    size = min(len(a), len(b))
    different = np.flatnonzero(a[:size] != b[:size])
    return int(different[0]) if len(different) else size
