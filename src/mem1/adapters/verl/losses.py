"""WHAT AN UPDATE MINIMISES: our losses, on the tensors that verl's workers have.

    model_output, data of a micro-batch -> actor_loss | critic_loss -> loss, metrics

Each token's loss is multiplied by its weight in the optimizer step (`credit`), so that the sum over
all micro-batches of all ranks is the step's loss, whichever row a token is in. verl averages
gradients over the ranks: hence `dp_size`.
"""

from typing import Any

from torch import Tensor
from verl.utils.metric import AggregationType, Metric  # pyright: ignore[reportMissingImports]
from verl.workers.utils.padding import (  # pyright: ignore[reportMissingImports]
    no_padding_2_padding,
)

from mem1.train import losses
from mem1.train.config import LossConfig

WEIGHTS = "loss_weights"
"""The column that verl's rows get from us; float, one for each sampled token."""


def actor_loss(
    model_output: Any, data: Any, dp_group: Any = None, *, settings: LossConfig
) -> tuple[Tensor, dict[str, Any]]:
    """The policy's, with the entropy bonus and, if it's in the loss, the divergence."""
    logprobs = no_padding_2_padding(model_output["log_probs"], data)
    entropy = no_padding_2_padding(model_output["entropy"], data)
    in_loss = settings.kl > 0 and settings.kl_in == "loss"
    names = [WEIGHTS, "advantages", "old_log_probs", "rollout_log_probs"]
    told = data.select(*names, *(["ref_log_prob"] if in_loss else [])).to_padded_tensor()
    old, weights = told["old_log_probs"], told[WEIGHTS]
    surrogate = losses.policy_loss(
        logprobs,
        old_logprobs=old,
        advantages=told["advantages"],
        clip_low=settings.clip_low,
        clip_high=settings.clip_high,
    )
    importance = losses.importance_weights(
        old, sampled_logprobs=told["rollout_log_probs"], cap=settings.importance_cap
    )
    parts = {
        "policy_loss": surrogate.loss,
        "entropy": entropy,
        "ratio": surrogate.ratio,
        "clip_fraction": surrogate.clipped.float(),
        "logprob_gap": (old - told["rollout_log_probs"]).abs(),
    }
    total = surrogate.loss * importance - settings.entropy * entropy
    if in_loss:
        parts["kl"] = losses.kl_divergence(
            logprobs, ref_logprobs=told["ref_log_prob"], estimator=settings.kl_estimator
        )
        total = total + settings.kl * parts["kl"]
    return _step_sum(total, weights, data), _metrics(parts, weights, data)


def critic_loss(
    model_output: Any, data: Any, dp_group: Any = None, *, clip: float
) -> tuple[Tensor, dict[str, Any]]:
    """The squared error of its values, clipped."""
    values = no_padding_2_padding(model_output["values"], data)
    told = data.select(WEIGHTS, "values", "returns").to_padded_tensor()
    missed = losses.value_loss(
        values, old_values=told["values"], returns=told["returns"], clip=clip
    )
    parts = {"value_loss": missed, "value_mean": values}
    return _step_sum(missed, told[WEIGHTS], data), _metrics(parts, told[WEIGHTS], data)


def _step_sum(per_token: Tensor, weights: Tensor, data: Any) -> Tensor:
    """The micro-batch's share of the step's loss."""
    return (weights * per_token).sum() * data["dp_size"]


def _metrics(parts: dict[str, Tensor], weights: Tensor, data: Any) -> dict[str, Any]:
    """Weighted means over the step: summed over micro-batches, averaged over ranks by verl."""
    return {
        name: Metric(value=_step_sum(part.detach(), weights, data), aggregation=AggregationType.SUM)
        for name, part in parts.items()
    }
