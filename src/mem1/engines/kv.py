"""What the local engine remembers of sequences, in torch.

    prompt ids -> PrefixStore.longest -> keys and values of what was computed before
    an episode that is carried -> Held, from one of its turns to the next

Imported by `mem1.engines.batch` alone, once torch is known to be there.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from transformers import PreTrainedModel

from mem1.carry import common_prefix
from mem1.errors import ModelError

KV = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values per layer, each of shape (1, num_kv_heads, num_tokens, head_dim)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    token_ids: np.ndarray
    kv: KV


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Held:
    """What an episode that is carried has left at the end of a turn.

    The token sampled last was never fed: the next turn begins with it, since it sees what its own
    turn saw.
    """

    kv: KV
    places: tuple[int, ...]
    """Where its tokens stand in the episode, ascending; the last one is `last_id`'s."""
    last_id: int

    @property
    def end(self) -> int:
        """How many tokens the episode has had."""
        return self.places[-1] + 1

    def columns_without(self, kept: Sequence[int]) -> list[int]:
        """Which of its tokens, counted from 0, are none of those kept."""
        staying = set(kept)
        return [column for column, place in enumerate(self.places) if place not in staying]


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


def num_tokens(kv: KV | None) -> int:
    """How many tokens these are of."""
    return kv[0][0].shape[2] if kv else 0


@cache
def cache_argument(kind: type[PreTrainedModel]) -> str:
    """What a forward pass of such a model calls keys and values: `cache` since transformers 5.24.

    Raises: ModelError if it takes none.
    """
    taken = inspect.signature(kind.forward).parameters
    for name in ("cache", "past_key_values"):
        if name in taken:
            return name
    raise ModelError(
        f"{kind.__name__} does not decode with keys and values that are kept: serve it with "
        "vLLM or the like, and use engine.kind = 'openai'"
    )
