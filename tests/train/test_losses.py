"""Losses against small numpy references, gradients against finite differences and by hand."""

import math

import numpy as np
import pytest
import torch

from mem1.train.losses import importance_weights, kl_divergence, policy_loss, value_loss


def numbers(*, seed: int, size: int = 200, scale: float = 0.5) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(scale=scale, size=size), dtype=torch.float64)


def reference_policy(new, old, advantages, low, high):
    """PPO's objective, case by case."""
    losses = []
    for n, o, a in zip(new.tolist(), old.tolist(), advantages.tolist(), strict=True):
        ratio = math.exp(n - o)
        if a >= 0:
            losses.append(-a * min(ratio, 1 + high))
        else:
            losses.append(-a * max(ratio, 1 - low))
    return losses


def reference_value(values, old, returns, clip):
    losses = []
    for v, o, r in zip(values.tolist(), old.tolist(), returns.tolist(), strict=True):
        near = min(max(v, o - clip), o + clip)
        losses.append(max((v - r) ** 2, (near - r) ** 2) / 2)
    return losses


def slope(loss, at: torch.Tensor) -> torch.Tensor:
    """Central differences of a per-token loss."""
    return (loss(at + 1e-6) - loss(at - 1e-6)) / 2e-6


def gradient(loss, at: torch.Tensor) -> torch.Tensor:
    at = at.clone().requires_grad_()
    loss(at).sum().backward()
    assert at.grad is not None
    return at.grad


CASES = {
    "policy": lambda x: (
        policy_loss(
            x, old_logprobs=numbers(seed=1), advantages=numbers(seed=2), clip_low=0.2, clip_high=0.3
        ).loss
    ),
    "value": lambda x: value_loss(x, old_values=numbers(seed=1), returns=numbers(seed=2), clip=0.3),
    "k1": lambda x: kl_divergence(x, ref_logprobs=numbers(seed=1), estimator="k1"),
    "k3": lambda x: kl_divergence(x, ref_logprobs=numbers(seed=1), estimator="k3"),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_the_slopes(name):
    at = numbers(seed=3)
    assert (gradient(CASES[name], at) - slope(CASES[name], at)).abs().max() < 1e-6


@pytest.mark.parametrize("num_rows", [1, 2, 7, 200])
def test_rows_add_up_to_the_mini_batch(num_rows):
    """Loss and gradient are the same however the tokens are dealt out to rows."""
    new, old, advantages = (numbers(seed=seed) for seed in range(3))
    weights = numbers(seed=4).abs()

    def loss(row: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        result = policy_loss(
            at[row],
            old_logprobs=old[row],
            advantages=advantages[row],
            clip_low=0.2,
            clip_high=0.3,
        )
        return weights[row] @ result.loss

    rows = torch.tensor(np.random.default_rng(5).permutation(200)).tensor_split(num_rows)
    everything = torch.arange(200)
    whole, parts = new.clone().requires_grad_(), new.clone().requires_grad_()
    loss(everything, whole).backward()
    for row in rows:
        loss(row, parts).backward()
    assert torch.equal(whole.grad, parts.grad)
    assert abs(float(loss(everything, new) - sum(loss(row, new) for row in rows))) < 1e-12


def test_policy_loss_is_that_of_ppo_with_two_bounds():
    new, old, advantages = numbers(seed=1), numbers(seed=2), numbers(seed=3)
    result = policy_loss(new, old_logprobs=old, advantages=advantages, clip_low=0.2, clip_high=0.28)
    expected = reference_policy(new, old, advantages, 0.2, 0.28)
    assert np.abs(result.loss.numpy() - expected).max() < 1e-6
    assert np.abs(result.ratio.numpy() - np.exp(new.numpy() - old.numpy())).max() < 1e-6


def test_the_clip_holds_only_what_would_go_further():
    """Ratios 2, 2, 1/2, 1/2 with advantages of both signs; half of the cases keep their slope."""
    new = torch.log(torch.tensor([2.0, 2.0, 0.5, 0.5], dtype=torch.float64)).requires_grad_()
    advantages = torch.tensor([3.0, -3.0, 3.0, -3.0], dtype=torch.float64)
    result = policy_loss(
        new, old_logprobs=torch.zeros(4), advantages=advantages, clip_low=0.25, clip_high=0.5
    )
    result.loss.sum().backward()
    assert result.clipped.tolist() == [True, False, False, True]
    assert result.loss.tolist() == pytest.approx([-4.5, 6, -1.5, 2.25])
    assert new.grad is not None
    assert new.grad.tolist() == pytest.approx([0, 6, -1.5, 0])


def test_the_first_step_is_a_plain_policy_gradient():
    new, advantages = numbers(seed=1).requires_grad_(), numbers(seed=2)
    result = policy_loss(
        new, old_logprobs=new.detach(), advantages=advantages, clip_low=0.2, clip_high=0.2
    )
    result.loss.sum().backward()
    assert new.grad is not None
    assert torch.equal(new.grad, -advantages)
    assert (result.ratio.unique().tolist(), bool(result.clipped.any())) == ([1.0], False)


def test_what_metrics_read_has_no_gradient():
    new = numbers(seed=1).requires_grad_()
    zeros = torch.zeros(200)
    result = policy_loss(new, old_logprobs=zeros, advantages=zeros, clip_low=0.2, clip_high=0.2)
    assert [x.requires_grad for x in (result.loss, result.ratio, result.clipped)] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("clip", [0.1, 0.5, math.inf])
def test_value_loss_takes_the_worse_of_free_and_clipped(clip):
    values, old, returns = numbers(seed=1), numbers(seed=2), numbers(seed=3)
    losses = value_loss(values, old_values=old, returns=returns, clip=clip)
    assert np.abs(losses.numpy() - reference_value(values, old, returns, clip)).max() < 1e-6


def test_a_value_beyond_the_clip_moves_on_only_if_that_is_worse():
    """From 0, clip 1, return 5: at 3 nearer than the clip allows, no slope; at -3 worse, slope."""
    values = torch.tensor([3.0, -3.0, 0.5], requires_grad=True)
    losses = value_loss(values, old_values=torch.zeros(3), returns=torch.full((3,), 5.0), clip=1.0)
    losses.sum().backward()
    assert losses.tolist() == [8, 32, 10.125]
    assert values.grad is not None
    assert values.grad.tolist() == [0, -8, -4.5]


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_kl_estimates_average_to_the_divergence(estimator):
    """Weighted by the policy's probabilities, the estimates of all outcomes are the exact KL."""
    policy = torch.log_softmax(numbers(seed=1, size=50, scale=2.0), -1)
    ref = torch.log_softmax(numbers(seed=2, size=50, scale=2.0), -1)
    exact = float((policy.exp() * (policy - ref)).sum())
    estimates = kl_divergence(policy, ref_logprobs=ref, estimator=estimator)
    assert abs(float(policy.exp() @ estimates) - exact) < 1e-12
    assert bool((estimates < 0).any()) == (estimator == "k1")


def test_k3_keeps_its_digits_near_zero():
    small = torch.tensor([1e-3], dtype=torch.float32)
    estimate = kl_divergence(torch.zeros(1), ref_logprobs=small, estimator="k3")
    assert float(estimate) == pytest.approx(math.expm1(1e-3) - 1e-3, rel=1e-3)


def test_importance_weights_are_capped_and_without_gradient():
    old = torch.log(torch.tensor([0.5, 0.2, 0.9], dtype=torch.float64)).requires_grad_()
    sampled = torch.log(torch.tensor([0.25, 0.4, 0.1], dtype=torch.float64))
    weights = importance_weights(old, sampled_logprobs=sampled, cap=3.0)
    assert weights.tolist() == pytest.approx([2, 0.5, 3])
    assert not weights.requires_grad
