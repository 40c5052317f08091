"""The decoding batch of the local engine, in torch.

    a sequence -> Slots.join -> a row -> Slots.begin, one forward pass, Slots.end -> Slots.leave

A forward pass takes the new tokens of all rows as one flat sequence: one token of each row that
decodes, and all that is new of each row that has just joined. What all rows have in common at their
beginning, the head, is held and read once for all of them. Nothing is padded, shifted or copied per
step.

A row may begin with tokens that are evicted: the first of its new tokens still sees them, since it
belongs to what came before, and the others don't. After that pass they're gone.

Imported by `mem1.engines.batch` alone, once torch is known to be there.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from mem1.carry import common_prefix
from mem1.engines.kv import KV, cache_argument, num_tokens
from mem1.engines.passes import Part, Pass
from mem1.errors import ModelError

_ATTENTION = "mem1_slots"
_SPARE_TOKENS = 256
"""What a row may grow before the buffers are laid out anew."""
_LEAST_HEAD_TOKENS = 64


def can_batch(model: PreTrainedModel) -> bool:
    """Whether the model's attention can run over `Slots`: all layers keep all keys and values, and
    it attends through transformers' interface, with nothing added to the scores."""
    config = model.config.get_text_config(decoder=True)
    plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
    soft_cap = getattr(config, "attn_logit_softcapping", None) is not None
    return plain and model._supports_attention_backend and not soft_cap


@contextmanager
def attending_over(slots: "Slots", model: PreTrainedModel) -> Iterator[dict[str, Any]]:
    """Within the block the model attends over `slots`. Gives what its forward pass must be told."""
    with attending_with(_ATTENTION, model):
        yield {cache_argument(type(model)): slots, "slots": slots, "use_cache": True}


@contextmanager
def attending_with(name: str, model: PreTrainedModel) -> Iterator[None]:
    """Within the block the model attends with the function of AttentionInterface so named."""
    before = model.config._attn_implementation or "sdpa"
    # `set_attn_implementation` does this too, and walks through all modules, at every pass.
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    slots: "Slots",
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls; keys and values are in the slots already.

    Raises: ModelError if the layer asks for more than plain attention.
    """
    for asked in beyond_plain(kwargs):
        raise ModelError(
            f"{type(module).__name__} attends with {asked}, which the local engine does not: serve "
            "the model with vLLM or the like, and use engine.kind = 'openai'"
        )
    out = slots.attend(module.layer_idx, query, key, value, scale=scaling)
    return out.transpose(1, 2), None


AttentionInterface.register(_ATTENTION, _attention)


def beyond_plain(told: Mapping[str, Any]) -> list[str]:
    """What a layer asks of an attention function beyond scaled dot products and a softmax.

    Args: `told`, the keyword arguments that transformers calls it with.
    """
    return [name for name in ("softcap", "s_aux", "sliding_window") if told.get(name) is not None]


@dataclass(slots=True, kw_only=True)
class _Row:
    size: int
    """Tokens in the row's own buffer."""
    position: int
    """Of its next token: more than it has tokens, if some were evicted."""
    evicted: Sequence[int]
    """Tokens that leave after the next pass, counted from 0, the head included."""
    num_new: int = 0
    """Tokens of the forward pass that is under way."""
    on_head: bool
    """Whether the head comes before them."""


class _SlotLayer(DynamicLayer):
    """One layer of `Slots`, as a transformers model sees it."""

    def __init__(self, slots: "Slots", index: int) -> None:
        super().__init__()
        self._slots = slots
        self._index = index
        self.is_initialized = True

    def get_seq_length(self) -> int:
        return 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self._slots.write(self._index, key_states, value_states)
        return key_states, value_states


class Slots(Cache):
    """The rows of the batch, each of its own length; joining and leaving touch one row."""

    def __init__(self, num_layers: int, *, max_rows: int) -> None:
        super().__init__(layers=[_SlotLayer(self, index) for index in range(num_layers)])
        self._num_layers = num_layers
        self._max_rows = max_rows
        self._buffers: KV = []
        """As KV, for all rows at once: each of shape (max_rows, num_kv_heads, room, head_dim)."""
        self._rows: list[_Row] = []
        self._head: KV = []
        self._head_ids: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        return len(self._rows)

    def join(
        self,
        kv: KV | None,
        *,
        plain_ids: Sequence[int],
        position: int,
        evicted: Sequence[int] = (),
    ) -> None:
        """Add a sequence as the last row.

        Args: `kv`, of what it begins with, if that's known; `plain_ids`, its ids up to where
        something was evicted; `position`, of its next token; `evicted`, the tokens of `kv`, counted
        from 0, that only the next token still sees, itself included.
        """
        known = num_tokens(kv)
        on_head = self._starts_with_head(plain_ids, known=known)
        start = len(self._head_ids) if on_head else 0
        row = _Row(size=known - start, position=position, evicted=evicted, on_head=on_head)
        self._rows.append(row)
        for layer, parts in enumerate(kv or []):
            self._reserve(layer, row.size, like=parts)
            for buffer, part in zip(self._buffers[layer], parts, strict=True):
                buffer[self.count - 1, :, : row.size] = part[0, :, start:]

    def _starts_with_head(self, token_ids: Sequence[int], *, known: int) -> bool:
        size = len(self._head_ids)
        return 0 < size <= known and tuple(token_ids[:size]) == self._head_ids

    def leave(self, row: int) -> None:
        """Take a row out; the last row moves to its place."""
        last = self._rows.pop()
        if row == self.count:
            return
        self._rows[row] = last
        for buffer in chain.from_iterable(self._buffers):
            buffer[row, :, : last.size] = buffer[self.count, :, : last.size]

    def kv(self, row: int) -> KV:
        """A copy of what a row holds, from its first token on."""
        size = self._rows[row].size
        own = [
            (keys[row : row + 1, :, :size], values[row : row + 1, :, :size])
            for keys, values in self._buffers
        ]
        parts = [self._head, own] if self._rows[row].on_head else [own]
        found: KV = []
        for layers in zip(*parts, strict=True):
            keys, values = (torch.cat(some, dim=2) for some in zip(*layers, strict=True))
            found.append((keys, values))
        return found

    def clear(self) -> None:
        """Drop all rows and their keys and values; their room stays."""
        self._rows, self._head, self._head_ids = [], [], ()

    def share_head(self, sequences: Sequence[Sequence[int]]) -> None:
        """Hold once what all rows have in common, if no head is in use and it's worth it.

        Args: `sequences`, the token ids of each row's keys and values, up to where something was
        evicted.
        """
        if any(row.on_head for row in self._rows):
            return
        self._head, self._head_ids = [], ()
        least = sequences[0][:_LEAST_HEAD_TOKENS]
        alike = all(ids[:_LEAST_HEAD_TOKENS] == least for ids in sequences)
        if self.count < 2 or len(least) < _LEAST_HEAD_TOKENS or not alike:
            return
        first = np.asarray(sequences[0])
        size = min(common_prefix(first, np.asarray(ids)) for ids in sequences)
        self._head_ids = tuple(sequences[0][:size])
        self._head = [
            (keys[:1, :, :size].clone(), values[:1, :, :size].clone())
            for keys, values in self._buffers
        ]
        for number, row in enumerate(self._rows):
            row.size, row.on_head = row.size - size, True
            for buffer in chain.from_iterable(self._buffers):
                buffer[number, :, : row.size] = buffer[number, :, size : size + row.size].clone()

    def begin(
        self, num_new: Sequence[int], *, num_decoding: int, device: torch.device
    ) -> torch.Tensor:
        """Get ready for a forward pass over so many new tokens of each row. Gives their positions,
        shape (1, num_new).

        Args: `num_decoding`, the first rows, which have a few new tokens; the others join.
        """
        head = len(self._head_ids)
        for row, count in zip(self._rows, num_new, strict=True):
            row.num_new = count
        parts = [
            Part(
                size=row.size,
                num_new=row.num_new,
                evicted=[column - head * row.on_head for column in row.evicted],
                on_head=row.on_head,
            )
            for row in self._rows
        ]
        self._pass = Pass.of(parts, num_decoding=num_decoding, device=device)
        places = [range(row.position, row.position + row.num_new) for row in self._rows]
        return torch.tensor([[*chain.from_iterable(places)]], device=device)

    def end(self) -> None:
        """The forward pass is over."""
        for number, row in enumerate(self._rows):
            row.size, row.position = row.size + row.num_new, row.position + row.num_new
            row.num_new = 0
            if row.evicted:
                self._evict(number)

    def rewind(self, number: int, count: int) -> None:
        """Give up a row's last tokens, which were a wrong guess."""
        row = self._rows[number]
        row.size, row.position = row.size - count, row.position - count

    def _evict(self, number: int) -> None:
        """Give up the keys and values of what a row has evicted; the others move up."""
        row = self._rows[number]
        start, gone = len(self._head_ids) * row.on_head, set(row.evicted)
        staying = [column for column in range(row.size) if start + column not in gone]
        for buffer in chain.from_iterable(self._buffers):
            buffer[number, :, : len(staying)] = buffer[number][:, staying]
        row.size, row.evicted = len(staying), ()

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put every new token behind the last one of its row."""
        self._reserve(layer, self._pass.width, like=(keys, values))
        rows, columns = self._pass.rows, self._pass.columns
        for buffer, new in zip(self._buffers[layer], (keys, values), strict=True):
            # By token, buffers are one stretch of memory: rows * room of them.
            tokens = buffer.transpose(1, 2).flatten(0, 1)
            tokens.index_copy_(0, rows * buffer.shape[2] + columns, new[0].transpose(0, 1))

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scale: float | None,
    ) -> torch.Tensor:
        """Attention of all new tokens: query and result of shape (1, num_heads, num_new, dim)."""
        return self._pass.attend(
            query,
            (key, value),
            buffers=self._buffers[layer],
            head=self._head[layer] if self._head else None,
            scale=scale,
        )

    def _reserve(self, layer: int, width: int, *, like: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Have room for `width` tokens a row in this layer, and some more if it's to grow."""
        if layer == len(self._buffers):
            self._buffers.append((self._empty(0, like=like[0]), self._empty(0, like=like[1])))
        keys, values = self._buffers[layer]
        if keys.shape[2] < width:
            room = width + _SPARE_TOKENS
            self._buffers[layer] = (self._grown(keys, room=room), self._grown(values, room=room))

    def _grown(self, buffer: torch.Tensor, *, room: int) -> torch.Tensor:
        grown = self._empty(room, like=buffer)
        grown[:, :, : buffer.shape[2]] = buffer
        return grown

    def _empty(self, room: int, *, like: torch.Tensor) -> torch.Tensor:
        # Zeros, since what is masked still gets multiplied: by 0, which garbage may survive.
        rows = like.new_zeros((self._max_rows, room, like.shape[1], like.shape[3]))
        return rows.transpose(1, 2)
