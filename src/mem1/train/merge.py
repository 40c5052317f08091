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
        ctx.save_for_backward(query, key, value)
        ctx.layout, ctx.scale = layout, scale
        groups = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
        out = torch.empty_like(query)
        wide = torch.promote_types(query.dtype, torch.float32)
        lse = query.new_empty(query.shape[:3], dtype=wide)
        for own, _ in _parts(layout, causal=True):
            out[:, :, own], lse[:, :, own] = _forward(
                query[:, :, own], key[:, :, own], value[:, :, own], causal=True, scale=scale
            )
        for keys, queries in _parts(layout, causal=False):
            more, more_lse = _forward(
                query[:, :, queries], key[:, :, keys], value[:, :, keys], causal=False, scale=scale
            )
            share = torch.sigmoid(more_lse - lse[:, :, queries])[..., None].to(out.dtype)
            out[:, :, queries] += (more - out[:, :, queries]) * share
            lse[:, :, queries] = torch.logaddexp(lse[:, :, queries], more_lse)
        ctx.out, ctx.lse = out, lse
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        return (None, None, None, None, None)
