"""ATTENTION KERNELS of many short sequences at once, in torch.

    starts, sizes -> padded -> [Padded]
    Padded.beside -> (count, heads, width, dim) -> a causal kernel -> Padded.put_back

A kernel's call costs as much as dozens of short sequences. So those of like length, which lie end
to end, go through it side by side, padded: under a causal mask no token sees what comes behind it.

Imported once torch is known to be there.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

_STEP = 16
"""Lengths are padded to a multiple of it, for which the kernel of CPUs is twice as fast."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Padded:
    """Sequences of like length among S tokens; behind the shorter ones their last token again."""

    shape: tuple[int, int]
    """How many, and how long with their padding: (count, width)."""
    read: Tensor
    """Which token is where, sequence by sequence; int64, shape (count * width,)."""
    real: Tensor
    """Where in `read` what isn't padding stands; int64, shape (num_tokens,)."""
    padding: Tensor
    """Where padding stands."""
    write: Tensor
    """`read[real]`."""

    def beside(self, tokens: Tensor, *, blank: bool = False) -> Tensor:
        """The sequences side by side: (1, heads, S, dim) -> (count, heads, width, dim).

        Args: `blank`, padding is zeros.
        """
        rows = tokens[0].transpose(0, 1).index_select(0, self.read)
        if blank:
            rows.index_fill_(0, self.padding, 0)
        return rows.unflatten(0, self.shape).transpose(1, 2)

    def put_back(self, rows: Tensor, *, into: Tensor) -> None:
        """The inverse of `beside`: what isn't padding, at its place in (1, heads, S, dim)."""
        flat = rows.transpose(1, 2).flatten(0, 1)
        into[0].transpose(0, 1).index_copy_(0, self.write, flat.index_select(0, self.real))


def padded(
    starts: np.ndarray, sizes: np.ndarray, *, device: torch.device | None = None
) -> list[Padded]:
    """Group sequences by their padded length: at most 15 tokens, or an eighth, are padding.

    Args: `starts`, `sizes`, int64, of sequences that don't overlap.

    >>> [group.shape for group in padded(np.array([0, 20, 25]), np.array([20, 5, 11]))]
    [(1, 32), (2, 16)]
    """
    members: dict[int, list[int]] = {}
    for number, size in enumerate(sizes.tolist()):
        step = max(_STEP, 1 << max(size.bit_length() - 4, 0))
        members.setdefault(-(-size // step) * step, []).append(number)
    return [
        beside(starts[numbers], sizes[numbers], width=width, device=device)
        for width, numbers in members.items()
    ]


def beside(
    starts: np.ndarray, sizes: np.ndarray, *, width: int, device: torch.device | None
) -> Padded:
    """One group of sequences, padded to `width`."""
    columns = np.arange(width)
    read = (starts[:, None] + np.minimum(columns, sizes[:, None] - 1)).ravel()
    is_real = (columns < sizes[:, None]).ravel()
    real, padding = np.flatnonzero(is_real), np.flatnonzero(~is_real)
    read, real, padding, write = (
        torch.from_numpy(places).to(device) for places in (read, real, padding, read[real])
    )
    return Padded(shape=(len(starts), width), read=read, real=real, padding=padding, write=write)


def attend_whole(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    causal: bool = False,
    mask: Tensor | None = None,
    scale: float | None,
) -> Tensor:
    """Attention over all keys, which have as many heads as the query or a divisor of them.

    Args: `causal`, a query sees the keys up to its own place; or `mask`, what it sees, bool, shape
    (queries, num_keys).
    """
    groups = query.shape[1] // keys.shape[1]
    keys, values = (x.repeat_interleave(groups, 1) if groups > 1 else x for x in (keys, values))
    return scaled_dot_product_attention(
        query, keys, values, attn_mask=mask, is_causal=causal, scale=scale
    )


def attend_part(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    bias: Tensor | None,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    """Attention over a part of the keys, and the log-sum-exp of its scores, float32 at least.

    Shapes: query (rows, heads, queries, dim), keys (rows, heads, num_keys, dim); gives out as
    query, lse (rows, heads, queries).
    """
    if query.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, keys, values, 0.0, False, attn_mask=bias, scale=scale
        )
        return widened(out), widened(lse)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = widened(query @ keys.transpose(-1, -2)) * factor
    scores = scores if bias is None else scores + bias
    lse = scores.logsumexp(-1)
    return widened((scores - lse[..., None]).exp().to(values.dtype) @ values), lse


def joined(before: tuple[Tensor, Tensor], after: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Keys and values, and those that come behind them."""
    keys, values = (torch.cat(pair, dim=2) for pair in zip(before, after, strict=True))
    return keys, values


def causal_bias(sizes: np.ndarray, counts: np.ndarray, *, device: torch.device) -> Tensor:
    """What is added to the scores of rows that have so many keys and a few new ones, shape
    (rows, 1, most new ones, most keys): a token sees those up to its own."""
    ends = sizes[:, None] + np.minimum(np.arange(counts.max(initial=0)), counts[:, None] - 1)
    unseen = np.arange(ends.max(initial=-1) + 1) > ends[:, :, None]
    bias = np.where(unseen, np.float32(-np.inf), np.float32(0))
    return torch.from_numpy(bias)[:, None].to(device)


def widened(tensor: Tensor) -> Tensor:
    """In float32 at least: float64 stays what it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
