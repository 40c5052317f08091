"""A ROW THROUGH THE MODEL: log-probabilities, entropy and values of its sampled tokens.

    model, PackedBatch -> score -> Scores, differentiable

The prediction of a token is read at its parent, wherever in the row that is. The head is computed
at these places only, a chunk at a time, and again in the backward pass: logits of a whole row would
be gigabytes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mem1.errors import ModelError
from mem1.packing import PackedBatch
from mem1.train.attention import Backend, packed

_CHUNK = 1024
"""Rows of logits that exist at once."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """Of a row's targets, in their order; each of shape (T_row,), in float32 at least."""

    logprobs_T: Tensor
    entropy_T: Tensor
    """Of the distribution that each target was sampled from."""
    values_T: Tensor | None
    """None without a value head."""


def score(
    model: Any,
    row: PackedBatch,
    *,
    temperature_T: Tensor,
    value_head: nn.Linear | None = None,
    backend: Backend | None = None,
) -> Scores:
    """Score the sampled tokens of a row.

    Args: `temperature_T`, at which each target's log-probability is wanted, shape (T_row,);
    `value_head`, a layer on the same hidden states.
    Raises: ModelError if the output head isn't a plain linear layer.
    """
    hidden = hidden_states(model, row, backend=backend)
    targets = torch.from_numpy(row.token_ids[row.targets]).to(hidden.device)
    logprobs, entropy = _head(
        hidden, _output_head(model), targets=targets, temperature_T=temperature_T
    )
    read = None if value_head is None else _read(hidden, value_head)
    return Scores(logprobs_T=logprobs, entropy_T=entropy, values_T=read)


def values(
    model: Any, row: PackedBatch, *, value_head: nn.Linear, backend: Backend | None = None
) -> Tensor:
    """What a critic of its own says of each target, before it is sampled; shape (T_row,)."""
    return _read(hidden_states(model, row, backend=backend), value_head)


def hidden_states(model: Any, row: PackedBatch, *, backend: Backend | None = None) -> Tensor:
    """Last hidden states where the row's targets are predicted, shape (T_row, hidden_size)."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    with packed(base, row.visible_until, backend=backend) as told:
        output = base.get_decoder()(
            input_ids=torch.from_numpy(row.token_ids)[None].to(base.device),
            position_ids=torch.from_numpy(row.positions)[None].to(base.device),
            use_cache=False,
            **told,
        )
    read_at = torch.from_numpy(row.parent[row.targets]).to(base.device)
    return output.last_hidden_state[0, read_at]


def _read(hidden: Tensor, value_head: nn.Linear) -> Tensor:
    return value_head(hidden.to(value_head.weight.dtype))[:, 0]


def _output_head(model: Any) -> nn.Linear:
    """Raises: ModelError for a head that isn't one matrix: adapters around it would be left out."""
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise ModelError(
            f"the output head is a {type(head).__module__}.{type(head).__name__}, not a plain "
            "linear layer: take it out of the adapters' targets"
        )
    return head


def _head(
    hidden: Tensor, head: nn.Linear, *, targets: Tensor, temperature_T: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies, shape (T_row,)."""
    return _ChunkedHead.apply(  # pyright: ignore[reportReturnType]
        hidden, head.weight, head.bias, targets, temperature_T
    )


class _ChunkedHead(torch.autograd.Function):
    """log softmax(z / temperature) at the targets, and its entropy; z = hidden @ weight.T + bias.

    With p the softmax, dlogp/dz = (onehot - p) / temperature and
    dH/dz = -p * (log p + H) / temperature.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature_T: Tensor,
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        logprobs = hidden.new_empty(len(hidden), dtype=wide)
        entropy = torch.empty_like(logprobs)
        for at in _chunks(len(hidden)):
            logp = _log_softmax(hidden[at], weight, bias, temperature_T[at])
            logprobs[at] = logp.gather(1, targets[at, None])[:, 0]
            entropy[at] = -(logp.exp() * logp).sum(1)
        ctx.save_for_backward(hidden, weight, bias, targets, temperature_T, entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        to_logprobs, to_entropy = grads
        hidden, weight, bias, targets, temperature_T, entropy = ctx.saved_tensors
        to_hidden = torch.empty_like(hidden)
        # With adapters the head is frozen, and a gradient as large as it would be in vain.
        to_weight, to_bias = (
            torch.zeros_like(tensor, dtype=entropy.dtype) if needed else None
            for tensor, needed in zip((weight, bias), ctx.needs_input_grad[1:3], strict=True)
        )
        for at in _chunks(len(hidden)):
            logp = _log_softmax(hidden[at], weight, bias, temperature_T[at])
            p = logp.exp()
            to_z = -p * (to_logprobs[at, None] + to_entropy[at, None] * (logp + entropy[at, None]))
            to_z.scatter_add_(1, targets[at, None], to_logprobs[at, None])
            to_z = (to_z / temperature_T[at, None]).to(hidden.dtype)
            to_hidden[at] = to_z @ weight
            if to_weight is not None:
                to_weight += (to_z.T @ hidden[at]).to(to_weight.dtype)
            if to_bias is not None:
                to_bias += to_z.sum(0).to(to_bias.dtype)
        weight_grad, bias_grad = (
            None if grad is None else grad.to(hidden.dtype) for grad in (to_weight, to_bias)
        )
        return to_hidden, weight_grad, bias_grad, None, None


def _chunks(size: int) -> list[slice]:
    return [slice(start, min(start + _CHUNK, size)) for start in range(0, size, _CHUNK)]


def _log_softmax(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature_T: Tensor
) -> Tensor:
    z = hidden @ weight.T
    z = z if bias is None else z + bias
    wide = torch.promote_types(z.dtype, torch.float32)
    return (z.to(wide) / temperature_T.to(wide)[:, None]).log_softmax(1)
