"""WHO SEES WHOM, inside an unmodified Hugging Face decoder.

    with packed(model, row.visible_until) as told: model(..., **told)

A query sees a key iff key <= query < visible_until[key]. Three ways to compute it: `merge` runs
stretches of keys through the plain kernel and joins them (CPU; GPU without compiling); `flex` gives
FlexAttention the rule per token (GPU); `dense` is the boolean mask in full, slow and obviously
right.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from mem1.engines.slots import attending_with, beyond_plain
from mem1.errors import ModelError
from mem1.train.merge import attend_by_runs, layout_of

Backend = Literal["merge", "flex", "dense"]
_NAME = "mem1_packed"
_BLOCK = 128
"""Tokens of a block of FlexAttention; rows are padded to a multiple of it."""

_Attend = Callable[..., Tensor]
"""query (1, num_heads, S, dim), key, value, scale -> output, of the query's shape."""


@contextmanager
def packed(
    model: PreTrainedModel, visible_until: np.ndarray, *, backend: Backend | None = None
) -> Iterator[dict[str, Any]]:
    """Within the block the model attends as a packed row says. Gives what its forward pass must be
    told. A backward pass may come after the block.

    Args: `visible_until`, int64, shape (S,); `backend`, default flex on a GPU, else merge.
    """
    backend = backend or ("flex" if model.device.type == "cuda" else "merge")
    attend = _attend(visible_until, backend=backend, device=model.device)
    with attending_with(_NAME, model), _recomputed_alike(model):
        yield {"attend": attend}


@contextmanager
def _recomputed_alike(model: PreTrainedModel) -> Iterator[None]:
    """Gradient checkpointing runs layers again in the backward pass, when the model attends in its
    own way again: within the block it's told to switch for that."""
    layers: list[Any] = [m for m in model.modules() if "_gradient_checkpointing_func" in vars(m)]
    before = [layer._gradient_checkpointing_func for layer in layers]

    def checkpoint(func: Callable[..., Any], forward: Callable[..., Any], *args: Any) -> Any:
        def switched(*args: Any) -> Any:
            with attending_with(_NAME, model):
                return forward(*args)

        return func(switched, *args)

    for layer, func in zip(layers, before, strict=True):
        layer._gradient_checkpointing_func = partial(checkpoint, func)
    try:
        yield
    finally:
        for layer, func in zip(layers, before, strict=True):
            layer._gradient_checkpointing_func = func


def check_model(model: PreTrainedModel) -> None:
    """Raises: ModelError, naming the model and why, if its log-probabilities aren't what packed
    attention and a head on the last hidden states compute exactly."""
    for reason in _reasons(model):
        raise _refusal(type(model).__name__, reason)
    # What its layers ask of attention beyond that, they ask when they attend.
    ids = torch.tensor([[0, 1]], device=model.device)
    with torch.no_grad(), packed(model, np.array([2, 2]), backend="dense") as told:
        inputs = {"input_ids": ids, "position_ids": ids, "use_cache": False, **told}
        hidden = model.get_decoder()(**inputs).last_hidden_state
        head: Any = model.get_output_embeddings()
        found, expected = model(**inputs).logits, head(hidden)
    rounding = 8 * torch.finfo(expected.dtype).eps
    if not torch.allclose(found.to(expected.dtype), expected, rtol=rounding, atol=rounding):
        raise _refusal(type(model).__name__, "its logits aren't the head's alone")


def _reasons(model: PreTrainedModel) -> Iterator[str]:
    """Why a model isn't served."""
    config = model.config.get_text_config(decoder=True)
    if not model._supports_attention_backend:
        yield "it doesn't attend through transformers' AttentionInterface"
    elif model.config.is_encoder_decoder:
        yield "it has an encoder"
    elif any(getattr(module, "is_causal", True) is False for module in model.modules()):
        yield "it sees the future"
    elif any(type(layer) is not DynamicLayer for layer in DynamicCache(config=config).layers):
        yield "it has sliding windows or recurrent layers"
    elif any(name.endswith("sinks") for name, _ in model.named_parameters()):
        yield "it has attention sinks"
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, name, None) is not None:
            yield f"it caps what goes into a softmax, {name} = {getattr(config, name)}"
    for name, value in config.to_dict().items():
        of_this_head = not name.startswith(("classifier", "summary"))
        if "drop" in name and isinstance(value, float) and value and of_this_head:
            yield f"it drops at random, {name} = {value}: set that to 0"


def _refusal(name: str, reason: str) -> ModelError:
    return ModelError(
        f"{name} can't be trained exactly: {reason}. Llama, Qwen2 and Qwen3 models can"
    )


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    attend: _Attend | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls: query (1, num_heads, S, dim) -> (1, S, num_heads, dim)."""
    beyond = beyond_plain(kwargs)
    if attend is None or attention_mask is not None or beyond:
        asked = ["a mask of its own"] if attention_mask is not None else beyond
        reason = f"it attends with {asked[0]}" if asked else "it doesn't tell its layers what we do"
        raise _refusal(type(module).__name__, reason)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attend(query, key, value, scale=scale).transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _attention)


def _attend(visible_until: np.ndarray, *, backend: Backend, device: torch.device) -> _Attend:
    if backend == "merge":
        return partial(attend_by_runs, layout=layout_of(visible_until, device=device))
    until = torch.from_numpy(visible_until).to(device)
    if backend == "flex":
        return partial(_flex, block_mask=block_mask_of(until))
    place = torch.arange(len(until), device=device)
    mask = (place <= place[:, None]) & (place[:, None] < until)
    return partial(scaled_dot_product_attention, attn_mask=mask, enable_gqa=True)


def _flex(query: Tensor, key: Tensor, value: Tensor, *, block_mask: Any, scale: float) -> Tensor:
    size = query.shape[2]
    query, key, value = (pad(x, (0, 0, 0, -size % _BLOCK)) for x in (query, key, value))
    attend = _flex_attention(compiled=query.is_cuda)
    out = attend(query, key, value, block_mask=block_mask, scale=scale, enable_gqa=True)
    return out[:, :, :size]


@cache
def _flex_attention(*, compiled: bool) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if compiled else flex_attention


def block_mask_of(until: Tensor) -> Any:
    """Which blocks of 128 queries and 128 keys see each other wholly, partly or not at all, counted
    key by key: no mask of all pairs comes into being.

    Args: `until`, visible_until, shape (S,); the last block is filled up.
    """
    from torch.nn.attention.flex_attention import BlockMask

    size = len(until) + -len(until) % _BLOCK
    # Padding is seen by nothing but itself.
    until = torch.cat([until, torch.arange(len(until), size, device=until.device) + 1])
    key = torch.arange(size, device=until.device)[:, None]
    first = torch.arange(0, size, _BLOCK, device=until.device)
    queries = torch.minimum(until[:, None], first + _BLOCK) - torch.maximum(key, first)
    pairs = queries.clamp(min=0).unflatten(0, (-1, _BLOCK)).sum(1).T
    whole = pairs == _BLOCK**2

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < until[key])

    return BlockMask.from_kv_blocks(
        *_listed((pairs > 0) & ~whole), *_listed(whole), BLOCK_SIZE=_BLOCK, mask_mod=seen
    )


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many key blocks each query block has, and which, these first; with axes for batch and
    heads."""
    count = blocks.sum(-1, dtype=torch.int32)
    which = blocks.int().argsort(dim=-1, descending=True, stable=True).int()
    return count[None, None], which[None, None].contiguous()
