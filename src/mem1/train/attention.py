"""WHO SEES WHOM, inside an unmodified Hugging Face decoder.

    PackedBatch.visible_until -> runs -> attention over a packed row, without a mask

A run is a stretch of keys [start, stop) that are forgotten together, at `end`. It is a chain of the
tree, so that attention over the row is, for every run,

    a causal triangle on [start, stop)  +  all queries [stop, end) x all keys [start, stop)

Three ways to compute it: `merge` runs these parts through the plain kernel and joins them by their
log-sum-exp (CPU; GPU without compiling); `flex` gives FlexAttention the rule per token (GPU);
`dense` is the boolean mask in full, slow and obviously right.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from mem1.errors import ModelError

Backend = Literal["merge", "flex", "dense"]
_NAME = "mem1_packed"
_BLOCK = 128
"""Rows are padded to a multiple of it for FlexAttention."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of keys: seen causally within, and by all queries from `stop` to `end`."""

    start: int
    stop: int
    end: int


def runs(visible_until: np.ndarray) -> list[Piece]:
    """Maximal stretches of equal `visible_until`, shape (S,), in order.

    >>> runs(np.array([6, 6, 6, 4, 6, 6]))
    [Piece(start=0, stop=3, end=6), Piece(start=3, stop=4, end=4), Piece(start=4, stop=6, end=6)]
    """
    starts = np.flatnonzero(np.append(True, visible_until[1:] != visible_until[:-1]))
    stops = np.append(starts[1:], len(visible_until))
    return [
        Piece(int(start), int(stop), int(visible_until[start]))
        for start, stop in zip(starts, stops, strict=True)
    ]


def check_model(model: PreTrainedModel) -> None:
    """Raises: ModelError, naming the model and why, if its attention isn't what the packed one
    computes exactly."""
    config = model.config.get_text_config(decoder=True)
    layers = DynamicCache(config=model.config).layers
    reasons = {
        "it doesn't attend through transformers' AttentionInterface": (
            not model._supports_attention_backend
        ),
        "it has an encoder": bool(model.config.is_encoder_decoder),
        "it has sliding windows or recurrent layers": any(
            type(layer) is not DynamicLayer for layer in layers
        ),
        "it caps attention scores": getattr(config, "attn_logit_softcapping", None) is not None,
        "it has attention sinks": any(
            name.endswith("sinks") for name, _ in model.named_parameters()
        ),
        "its values are of another size than its keys": getattr(config, "v_head_dim", None)
        is not None,
        "it drops attention at random": getattr(config, "attention_dropout", 0) > 0
        or getattr(config, "attn_pdrop", 0) > 0,
        "it drops activations at random": any(
            isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules()
        ),
        "it rescales or caps logits": any(
            getattr(config, name, None) not in (None, 1, 1.0)
            for name in ("final_logit_softcapping", "logit_scale", "logits_scaling")
        ),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ModelError(
                f"{type(model).__name__} can't be trained exactly: {reason}. Llama, Qwen2 and "
                "Qwen3 models can"
            )


@contextmanager
def packed(
    model: PreTrainedModel, visible_until: np.ndarray, *, backend: Backend | None = None
) -> Iterator[dict[str, Any]]:
    """Within the block the model attends as a packed row says. Gives what its forward pass must be
    told. Args: `backend`, default flex on a GPU, else merge."""
    backend = backend or ("flex" if model.device.type == "cuda" else "merge")
    layout = _layout(visible_until, backend=backend, device=model.device)
    with _attending(model):
        yield {"layout": layout}


def recomputing(
    model: PreTrainedModel,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """`context_fn` of `torch.utils.checkpoint`: layers that are computed a second time, in the
    backward pass, attend as they did the first time."""
    return nullcontext(), _attending(model)


@contextmanager
def _attending(model: PreTrainedModel) -> Iterator[None]:
    before = model.config._attn_implementation or "sdpa"
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _layout(visible_until: np.ndarray, *, backend: Backend, device: torch.device) -> Any:
    if backend == "merge":
        return runs(visible_until)
    until = torch.from_numpy(visible_until).to(device)
    return _dense_mask(until) if backend == "dense" else _block_mask(until)


def _dense_mask(until: Tensor) -> Tensor:
    place = torch.arange(len(until), device=until.device)
    return (place <= place[:, None]) & (place[:, None] < until)


def _block_mask(until: Tensor) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    size = len(until) + -len(until) % _BLOCK
    # Padding is seen by nothing but itself.
    until = torch.cat([until, torch.arange(len(until), size, device=until.device) + 1])

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < until[key])

    return create_block_mask(seen, None, None, size, size, device=str(until.device))


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Any,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls: query (1, num_heads, S, dim) -> (1, S, num_heads, dim)."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if isinstance(layout, list):
        groups = query.shape[1] // key.shape[1]
        keys, values = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        out: Any = _Merged.apply(query, keys, values, layout, scale)
    elif isinstance(layout, Tensor):
        out = scaled_dot_product_attention(
            query, key, value, attn_mask=layout, scale=scale, enable_gqa=True
        )
    else:
        size = query.shape[2]
        query, key, value = (pad(x, (0, 0, 0, -size % _BLOCK)) for x in (query, key, value))
        out = _flex(compiled=query.is_cuda)(
            query, key, value, block_mask=layout, scale=scale, enable_gqa=True
        )[:, :, :size]
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _attention)


@cache
def _flex(*, compiled: bool) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if compiled else flex_attention


class _Merged(torch.autograd.Function):
    """Attention in parts. Each part is a softmax over its own keys; their log-sum-exps say how the
    softmax over all keys weighs them. Run backward with the merged output and log-sum-exp, a part
    gives its share of the gradients, and shares add up."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        layout: list[Piece],
        scale: float,
    ) -> Tensor:
        out = torch.empty_like(query)
        lse = query.new_empty(
            query.shape[:3], dtype=torch.promote_types(query.dtype, torch.float32)
        )
        for piece in layout:
            own = slice(piece.start, piece.stop)
            out[:, :, own], lse[:, :, own] = _forward(
                query[:, :, own], key[:, :, own], value[:, :, own], causal=True, scale=scale
            )
        for piece in layout:
            if piece.end > piece.stop:
                own, later = slice(piece.start, piece.stop), slice(piece.stop, piece.end)
                more, more_lse = _forward(
                    query[:, :, later], key[:, :, own], value[:, :, own], causal=False, scale=scale
                )
                share = torch.sigmoid(more_lse - lse[:, :, later])[..., None].to(out.dtype)
                out[:, :, later] += (more - out[:, :, later]) * share
                lse[:, :, later] = torch.logaddexp(lse[:, :, later], more_lse)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.layout, ctx.scale = layout, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        grad = grads[0].contiguous()
        sums = [torch.zeros_like(tensor) for tensor in (query, key, value)]
        for piece in ctx.layout:
            own, later = slice(piece.start, piece.stop), slice(piece.stop, piece.end)
            for queries, causal in ((own, True), (later, False)):
                if queries.stop == queries.start:
                    continue
                parts = _backward(
                    grad[:, :, queries],
                    (query[:, :, queries], key[:, :, own], value[:, :, own]),
                    out=out[:, :, queries],
                    lse=lse[:, :, queries],
                    causal=causal,
                    scale=ctx.scale,
                )
                for total, part, where in zip(sums, parts, (queries, own, own), strict=True):
                    total[:, :, where] += part
        return (*sums, None, None)


def _forward(
    query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of the scores, shape (1, num_heads, num_queries)."""
    if query.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, scale=scale
        )
    scores = _scores(query, key, causal=causal, scale=scale)
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp().to(value.dtype) @ value, lse


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
    query, key, value = inputs
    if query.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, query, key, value, out, lse, 0.0, causal, scale=scale
        )
    weights = (_scores(query, key, causal=causal, scale=scale) - lse[..., None]).exp()
    mean = (grad.to(weights.dtype) * out.to(weights.dtype)).sum(-1, keepdim=True)
    to_weights = (grad @ value.transpose(-1, -2)).to(weights.dtype)
    to_scores = (weights * (to_weights - mean) * scale).to(query.dtype)
    low = weights.to(grad.dtype)
    return to_scores @ key, to_scores.transpose(-1, -2) @ query, low.transpose(-1, -2) @ grad


def _scores(query: Tensor, key: Tensor, *, causal: bool, scale: float) -> Tensor:
    scores = (query @ key.transpose(-1, -2)) * scale
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(hidden, -torch.inf)
    return scores
