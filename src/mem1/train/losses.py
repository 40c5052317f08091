"""LOSSES of single tokens: log-probabilities, values, advantages (T,) -> losses (T,). torch, pure.

The loss of a mini-batch is the sum over its tokens of weight * loss, with the weights of
`mem1.train.advantages.token_weights`. Nothing is averaged here, so that rows add up exactly to the
mini-batch, whichever row a token is in.

    ((weights * importance) @ policy_loss(...).loss + kl_coef * weights @ kl_divergence(...)
     - entropy_coef * weights @ entropy + value_coef * weights @ value_loss(...))
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Estimator = Literal["k1", "k3"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PolicyLoss:
    """The policy's loss and what it says about the update, each of shape (T,)."""

    loss: Tensor
    """With gradient."""
    ratio: Tensor
    """Probability now over that at the start of the update; no gradient."""
    clipped: Tensor
    """Which tokens are at the clip and so without gradient; bool."""


def policy_loss(
    policy_logprobs: Tensor,
    *,
    old_logprobs: Tensor,
    advantages: Tensor,
    clip_low: float,
    clip_high: float,
) -> PolicyLoss:
    """-min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A).

    Source: PPO, arXiv 1707.06347, equation 7; two bounds: DAPO, arXiv 2503.14476.
    """
    ratio = torch.exp(policy_logprobs - old_logprobs)
    unclipped = -ratio * advantages
    clipped = -ratio.clamp(1 - clip_low, 1 + clip_high) * advantages
    return PolicyLoss(
        loss=torch.maximum(unclipped, clipped),
        ratio=ratio.detach(),
        clipped=(clipped > unclipped).detach(),
    )


def value_loss(values: Tensor, *, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """0.5 * max((v - R)^2, (v' - R)^2), where v' is v kept within `clip` of the old value.

    A step away from the old value that leaves the clip and nears the return has no gradient.

    Args: `clip`, infinity for none.
    Source: ppo2 of OpenAI baselines, https://github.com/openai/baselines.
    """
    near = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2)


def kl_divergence(policy_logprobs: Tensor, *, ref_logprobs: Tensor, estimator: Estimator) -> Tensor:
    """Estimates of KL(policy, reference) from tokens the policy sampled; their mean is unbiased.

    k1 = log p/q may be negative: clamped, it would be biased. It belongs in the reward, for in the
    loss its gradient is 0 on average. k3 = q/p - 1 - log q/p is never negative and varies less.

    Source: J. Schulman, http://joschu.net/blog/kl-approx.html
    """
    difference = ref_logprobs - policy_logprobs
    return -difference if estimator == "k1" else torch.expm1(difference) - difference


def importance_weights(old_logprobs: Tensor, *, sampled_logprobs: Tensor, cap: float) -> Tensor:
    """min(trainer's probability over the sampler's, cap), without gradient; multiplies a loss.

    Corrects for a sampler that computes other probabilities than the trainer with the same
    weights (other kernels, other precision); the cap bounds the variance.

    Source: truncated importance sampling, Ionides 2008, doi 10.1198/106186008X320456.
    """
    return torch.exp(old_logprobs - sampled_logprobs).clamp(max=cap).detach()
