"""ATTENTION IN PARTS, joined by their log-sum-exp: no mask, nothing to compile.

    visible_until -> runs;  query, key, value, [Run] -> attend_by_runs -> output

A run is a stretch of keys [start, stop) that are forgotten together, at `end`. It is a chain of the
tree, so that attention over the row is, for every run,

    a causal triangle on [start, stop)  +  all queries [stop, end) x all keys [start, stop)

and each part is what plain attention kernels compute.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

_ROWS = 512
"""Queries whose scores exist at once where no kernel fits."""


@dataclass(frozen=True, slots=True)
class Run:
    """Keys [start, stop): seen causally within, and by all queries from `stop` to `end`."""

    start: int
    stop: int
    end: int


def runs(visible_until: np.ndarray) -> list[Run]:
    """Maximal stretches of equal `visible_until`, shape (S,), in order.

    >>> runs(np.array([6, 6, 6, 4, 6, 6]))
    [Run(start=0, stop=3, end=6), Run(start=3, stop=4, end=4), Run(start=4, stop=6, end=6)]
    """
    starts = np.flatnonzero(np.append(True, visible_until[1:] != visible_until[:-1]))
    stops = np.append(starts[1:], len(visible_until))
    return [
        Run(int(start), int(stop), int(visible_until[start]))
        for start, stop in zip(starts, stops, strict=True)
    ]


def attend_by_runs(
    query: Tensor, key: Tensor, value: Tensor, *, layout: list[Run], scale: float
) -> Tensor:
    """Attention over a packed row.

    Args: `query`, shape (1, num_heads, S, dim); `key` and `value`, of as many heads or of a divisor
    of them; values may be narrower than keys.
    """
    width = value.shape[-1]
    if width < key.shape[-1]:
        value = pad(value, (0, key.shape[-1] - width))
    out: Any = _ByRuns.apply(query, key, value, layout, scale)
    return out[..., :width]


class _ByRuns(torch.autograd.Function):
    """Each part is a softmax over its own keys; the log-sum-exps say how the softmax over all keys
    weighs them. Run backward with the merged output and log-sum-exp, a part gives its share of the
    gradients, and shares add up."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: list[Run], scale: float
    ) -> Tensor:
        groups = query.shape[1] // key.shape[1]
        keys, values = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        out = torch.empty_like(query)
        wide = torch.promote_types(query.dtype, torch.float32)
        lse = query.new_empty(query.shape[:3], dtype=wide)
        for seen, by in _parts(layout):
            part, part_lse = _forward(
                query[:, :, by],
                keys[:, :, seen],
                values[:, :, seen],
                causal=by == seen,
                scale=scale,
            )
            if by == seen:
                out[:, :, by], lse[:, :, by] = part, part_lse
            else:
                share = torch.sigmoid(part_lse - lse[:, :, by])[..., None].to(out.dtype)
                out[:, :, by] += (part - out[:, :, by]) * share
                lse[:, :, by] = torch.logaddexp(lse[:, :, by], part_lse)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.layout, ctx.scale, ctx.groups = layout, scale, groups
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        keys, values = (x.repeat_interleave(ctx.groups, 1) for x in (key, value))
        grad = grads[0].contiguous()
        to_query, to_keys, to_values = (torch.zeros_like(x) for x in (query, keys, values))
        for seen, by in _parts(ctx.layout):
            parts = _backward(
                grad[:, :, by],
                (query[:, :, by], keys[:, :, seen], values[:, :, seen]),
                out=out[:, :, by],
                lse=lse[:, :, by],
                causal=by == seen,
                scale=ctx.scale,
            )
            for total, part, at in zip(
                (to_query, to_keys, to_values), parts, (by, seen, seen), strict=True
            ):
                total[:, :, at] += part
        to_key, to_value = (x.unflatten(1, (-1, ctx.groups)).sum(2) for x in (to_keys, to_values))
        return to_query, to_key, to_value, None, None


def _parts(layout: list[Run]) -> Iterator[tuple[slice, slice]]:
    """Keys, and the queries that see them: first all triangles, then the rectangles."""
    for run in layout:
        own = slice(run.start, run.stop)
        yield own, own
    for run in layout:
        if run.end > run.stop:
            yield slice(run.start, run.stop), slice(run.stop, run.end)


def _forward(
    query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Output, and log-sum-exp of the scores, shape (1, num_heads, num_queries)."""
    if query.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, scale=scale
        )
    if _fits_flash(query):
        return torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, causal, scale=scale
        )[:2]
    return plain_forward(query, key, value, causal=causal, scale=scale)


def _backward(
    grad: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor],
    *,
    out: Tensor,
    lse: Tensor,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, the inputs, through these keys alone."""
    query, key, _ = inputs
    if query.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, *inputs, out, lse, 0.0, causal, scale=scale
        )
    if _fits_flash(query):
        sizes = query.shape[2], key.shape[2]
        no_seed = query.new_zeros(2, dtype=torch.uint64)
        return torch.ops.aten._scaled_dot_product_flash_attention_backward(
            grad,
            *inputs,
            out.contiguous(),
            lse.contiguous(),
            *(None, None, *sizes, 0.0, causal, no_seed, no_seed[0]),
            scale=scale,
        )
    return plain_backward(grad, inputs, out=out, lse=lse, causal=causal, scale=scale)


def _fits_flash(query: Tensor) -> bool:
    dim = query.shape[-1]
    return query.dtype in (torch.bfloat16, torch.float16) and dim % 8 == 0 and dim <= 256


def plain_forward(
    query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """The same by matrix products, for what no kernel takes."""
    parts: list[tuple[Tensor, Tensor]] = []
    for first, rows in _chunks(query):
        scores = _scores(rows, key, first=first if causal else None, scale=scale)
        lse = scores.logsumexp(-1)
        parts.append(((scores - lse[..., None]).exp().to(value.dtype) @ value, lse))
    out, lse = (torch.cat(part, 2) for part in zip(*parts, strict=True))
    return out, lse


def plain_backward(
    grad: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor],
    *,
    out: Tensor,
    lse: Tensor,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """With w = exp(scores - lse): dvalue = w^T grad, dscores = w (grad value^T - grad out)."""
    query, key, value = inputs
    to_query = torch.empty_like(query)
    to_key, to_value = (torch.zeros_like(x, dtype=lse.dtype) for x in (key, value))
    for first, rows in _chunks(query):
        at = slice(first, first + rows.shape[2])
        scores = _scores(rows, key, first=first if causal else None, scale=scale)
        weights = (scores - lse[:, :, at, None]).exp()
        low, rows_grad = weights.to(grad.dtype), grad[:, :, at]
        mean = (rows_grad.to(lse.dtype) * out[:, :, at].to(lse.dtype)).sum(-1, keepdim=True)
        to_weights = (rows_grad @ value.transpose(-1, -2)).to(lse.dtype)
        to_scores = (weights * (to_weights - mean) * scale).to(query.dtype)
        to_query[:, :, at] = to_scores @ key
        to_key += to_scores.transpose(-1, -2) @ rows
        to_value += low.transpose(-1, -2) @ rows_grad
    return to_query, to_key.to(key.dtype), to_value.to(value.dtype)


def _chunks(query: Tensor) -> Iterator[tuple[int, Tensor]]:
    for first in range(0, query.shape[2], _ROWS):
        yield first, query[:, :, first : first + _ROWS]


def _scores(query: Tensor, key: Tensor, *, first: int | None, scale: float) -> Tensor:
    """Args: `first`, place of the first query among the keys if attention is causal."""
    scores = (query @ key.transpose(-1, -2)) * scale
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if first is None:
        return scores
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
    return scores.masked_fill(later.triu(first + 1), -torch.inf)
