"""ATTENTION KERNELS of many short sequences at once, in torch.

    starts, sizes -> padded -> [Padded]
    Padded.beside -> (count, heads, width, dim) -> attend_part -> Padded.put_back

A kernel's call costs as much as dozens of short sequences. So those of like length, which lie end
to end, go through it side by side, padded: under a causal mask no token sees what comes behind it.
Attention over a part of the keys tells the log-sum-exp of its scores: parts can be merged.

Imported once torch is known to be there.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_STEP = 16
"""Lengths are padded to a multiple of it, for which the kernel of CPUs is twice as fast."""
_QUERIES = 512
"""Of which scores exist at once where no kernel fits."""


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


def attend_part(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    causal: bool = False,
    bias: Tensor | None = None,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    """Attention over a part of the keys, and the log-sum-exp of its scores.

    Args: `query`, (rows, heads, num_queries, dim); `keys` and `values`, (rows, kv_heads, num_keys,
    dim), of as many heads or a divisor of them; `causal`, query n sees the keys up to n; `bias`,
    what is added to the scores, (rows, 1, num_queries or 1, num_keys).
    Returns: as query; (rows, heads, num_queries), float32 at least.
    """
    groups = query.shape[1] // keys.shape[1]
    if causal:
        keys, values = (x.repeat_interleave(groups, 1) if groups > 1 else x for x in (keys, values))
        return _attend(query, keys, values, causal=True, bias=None, scale=scale)
    # Heads that share keys are further queries of these keys.
    folded = query.reshape(query.shape[0], keys.shape[1], -1, query.shape[3])
    if bias is not None:
        repeats = groups if bias.shape[2] > 1 else 1
        bias = bias.to(query.dtype).repeat(1, 1, repeats, 1)
    out, lse = _attend(folded, keys, values, causal=False, bias=bias, scale=scale)
    return out.reshape(query.shape), lse.reshape(query.shape[:3])


def _attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    causal: bool,
    bias: Tensor | None,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    """Of as many heads as there are of keys; the bias is spread over them."""
    if query.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, keys, values, 0.0, causal, attn_mask=bias, scale=scale
        )
    if bias is None and fits_flash(query):
        return torch.ops.aten._scaled_dot_product_flash_attention(
            query, keys, values, 0.0, causal, scale=scale
        )[:2]
    return attend_plainly(query, keys, values, causal=causal, bias=bias, scale=scale)


def fits_flash(query: Tensor) -> bool:
    """Whether a GPU's kernel takes it, if nothing is added to the scores."""
    dim = query.shape[-1]
    return query.dtype in (torch.bfloat16, torch.float16) and dim % 8 == 0 and dim <= 256


def attend_plainly(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    causal: bool,
    bias: Tensor | None = None,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    """The same by matrix products, for what no kernel takes."""
    parts: list[tuple[Tensor, Tensor]] = []
    for first, rows in chunks(query):
        scores = scores_of(rows, keys, first=first if causal else None, scale=scale)
        if bias is not None:
            own = bias if bias.shape[2] == 1 else bias[:, :, first : first + rows.shape[2]]
            scores = scores + own
        lse = scores.logsumexp(-1)
        parts.append(((scores - lse[..., None]).exp().to(values.dtype) @ values, lse))
    out, lse = (torch.cat(part, 2) for part in zip(*parts, strict=True))
    return out, lse


def chunks(query: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Queries of which scores exist at once, and the place of the first."""
    size = max(_QUERIES // query.shape[0], 1)
    for first in range(0, query.shape[2], size):
        yield first, query[:, :, first : first + size]


def scores_of(query: Tensor, keys: Tensor, *, first: int | None, scale: float | None) -> Tensor:
    """Args: `first`, place of the first query among the keys if attention is causal."""
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = widened((query @ keys.transpose(-1, -2)) * factor)
    if first is None:
        return scores
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
    return scores.masked_fill(later.triu(first + 1), -torch.inf)


def widened(tensor: Tensor) -> Tensor:
    """In float32 at least: float64 stays what it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
