"""ATTENTION IN PARTS, joined by their log-sum-exp: no mask, nothing to compile.

    visible_until -> layout_of -> Layout;  query, key, value, Layout -> attend_by_runs -> output

A run is a stretch of keys [start, stop) that are forgotten together, at `end`. It is a chain of the
tree, so that attention over the row is, for every run,

    a causal triangle on [start, stop)  +  all queries [stop, end) x all keys [start, stop)

and each part is what plain attention kernels compute.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from mem1.engines.kernels import Padded, attend_part, chunks, fits_flash, padded, scores_of


@dataclass(frozen=True, slots=True)
class Run:
    """Keys [start, stop): seen causally within, and by all queries from `stop` to `end`."""

    start: int
    stop: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The parts of a row: triangles of like size are one, side by side."""

    triangles: list[Padded]
    rectangles: list[tuple[slice, slice]]
    """Keys, and the queries that see all of them."""


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


def layout_of(visible_until: np.ndarray, *, device: torch.device | None = None) -> Layout:
    """The parts of a row. Args: `visible_until`, int64, shape (S,)."""
    found = runs(visible_until)
    starts, stops = (np.array([getattr(run, end) for run in found]) for end in ("start", "stop"))
    return Layout(
        triangles=padded(starts, stops - starts, device=device),
        rectangles=[
            (slice(run.start, run.stop), slice(run.stop, run.end))
            for run in found
            if run.end > run.stop
        ],
    )


def attend_by_runs(
    query: Tensor, key: Tensor, value: Tensor, *, layout: Layout, scale: float
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
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float
    ) -> Tensor:
        keys, values = _for_each_head(query, key, value)
        out = torch.empty_like(query)
        wide = torch.promote_types(query.dtype, torch.float32)
        lse = query.new_empty(query.shape[:3], dtype=wide)
        for group in layout.triangles:
            inputs = [group.beside(x) for x in (query, keys, values)]
            part, part_lse = attend_part(*inputs, causal=True, scale=scale)
            group.put_back(part, into=out)
            group.put_back(part_lse[..., None], into=lse[..., None])
        for seen, by in layout.rectangles:
            inputs = [query[:, :, by], keys[:, :, seen], values[:, :, seen]]
            part, part_lse = attend_part(*inputs, scale=scale)
            share = torch.sigmoid(part_lse - lse[:, :, by])[..., None].to(out.dtype)
            out[:, :, by] += (part - out[:, :, by]) * share
            lse[:, :, by] = torch.logaddexp(lse[:, :, by], part_lse)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.layout, ctx.scale = layout, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        keys, values = _for_each_head(query, key, value)
        grad = grads[0].contiguous()
        by_queries, by_keys = (query, grad, out), (keys, values)
        totals = [torch.empty_like(x) for x in (query, keys, values)]
        for group in ctx.layout.triangles:
            found = _backward(
                [group.beside(x, blank=x is grad) for x in by_queries],
                [group.beside(x) for x in by_keys],
                lse=group.beside(lse[..., None])[..., 0],
                causal=True,
                scale=ctx.scale,
            )
            for total, part in zip(totals, found, strict=True):
                group.put_back(part, into=total)
        for seen, by in ctx.layout.rectangles:
            found = _backward(
                [x[:, :, by] for x in by_queries],
                [x[:, :, seen] for x in by_keys],
                lse=lse[:, :, by],
                causal=False,
                scale=ctx.scale,
            )
            for total, part, at in zip(totals, found, (by, seen, seen), strict=True):
                total[:, :, at] += part
        if (groups := query.shape[1] // key.shape[1]) > 1:
            totals[1:] = [x.unflatten(1, (-1, groups)).sum(2) for x in totals[1:]]
        return *totals, None, None


def _for_each_head(query: Tensor, *shared: Tensor) -> list[Tensor]:
    """Keys and values that several heads share, once for each of them."""
    groups = query.shape[1] // shared[0].shape[1]
    return [x.repeat_interleave(groups, 1) if groups > 1 else x for x in shared]


def _backward(
    by_queries: Sequence[Tensor],
    by_keys: Sequence[Tensor],
    *,
    lse: Tensor,
    causal: bool,
    scale: float,
) -> Sequence[Tensor]:
    """Gradients of query, key and value through these keys alone.

    Args: `by_queries`, query, gradient of the output, output; `by_keys`, key and value.
    """
    (query, grad, out), (key, value) = by_queries, by_keys
    if query.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, query, key, value, out, lse, 0.0, causal, scale=scale
        )
    if fits_flash(query):
        sizes = query.shape[2], key.shape[2]
        no_seed = query.new_zeros(2, dtype=torch.uint64)
        return torch.ops.aten._scaled_dot_product_flash_attention_backward(
            *(grad, query, key, value),
            out.contiguous(),
            lse.contiguous(),
            *(None, None, *sizes, 0.0, causal, no_seed, no_seed[0]),
            scale=scale,
        )
    return plain_backward(grad, (query, key, value), out=out, lse=lse, causal=causal, scale=scale)


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
    for first, rows in chunks(query):
        at = slice(first, first + rows.shape[2])
        scores = scores_of(rows, key, first=first if causal else None, scale=scale)
        weights = (scores - lse[:, :, at, None]).exp()
        low, rows_grad = weights.to(grad.dtype), grad[:, :, at]
        mean = (rows_grad.to(lse.dtype) * out[:, :, at].to(lse.dtype)).sum(-1, keepdim=True)
        to_weights = (rows_grad @ value.transpose(-1, -2)).to(lse.dtype)
        to_scores = (weights * (to_weights - mean) * scale).to(query.dtype)
        to_query[:, :, at] = to_scores @ key
        to_key += to_scores.transpose(-1, -2) @ rows
        to_value += low.transpose(-1, -2) @ rows_grad
    return to_query, to_key.to(key.dtype), to_value.to(value.dtype)
