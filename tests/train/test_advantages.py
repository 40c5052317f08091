"""Advantages against hand-made numbers and small references that loop over trajectories."""

import numpy as np
import pytest

from mem1.errors import ConfigError
from mem1.train.advantages import (
    gae,
    grpo,
    reinforce_plus_plus,
    rloo,
    token_rewards,
    token_weights,
    whiten,
)

TRAJECTORY = np.array([0, 0, 0, 1, 3, 3])
"""Trajectory 2 sampled nothing."""


def reference_gae(rewards, values, gamma, lam):
    """GAE of one trajectory as the double sum of its definition."""
    values = [*values, 0.0]
    deltas = [r + gamma * values[t + 1] - values[t] for t, r in enumerate(rewards)]
    return [
        sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, len(deltas)))
        for t in range(len(deltas))
    ]


def random_batch(seed: int = 0):
    rng = np.random.default_rng(seed)
    trajectory = np.repeat(np.arange(7), rng.integers(1, 40, 7))
    return trajectory, rng.normal(size=len(trajectory)), rng.normal(size=len(trajectory))


def test_the_outcome_stands_at_the_last_sampled_token():
    rewards = token_rewards(np.array([5, 7, 9, 4]), trajectory_T=TRAJECTORY)
    assert rewards.tolist() == [0, 0, 5, 7, 0, 4]


def test_kl_is_taken_off_at_every_token_and_not_clamped():
    kl = np.array([1.0, -2.0, 0.0, 4.0, -1.0, 2.0])
    rewards = token_rewards(np.array([5, 7, 9, 4]), trajectory_T=TRAJECTORY, kl_T=kl, kl_coef=0.5)
    assert rewards.tolist() == [-0.5, 1, 5, 5, 0.5, 3]


def test_gae_runs_across_turns_and_stops_at_trajectories():
    """Two tokens of one trajectory, whether of one turn or two, then one of another."""
    advantages, returns = gae(
        np.array([0, 8, 6]),
        values_T=np.array([2, 4, 1]),
        trajectory_T=np.array([0, 0, 1]),
        gamma=0.5,
        lam=0.5,
    )
    assert advantages.tolist() == [1, 4, 5]  # 0 + .5 * 4 - 2 + .25 * 4; 8 - 4; 6 - 1
    assert returns.tolist() == [3, 8, 6]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.99, 0.95), (0.9, 0.0)])
def test_gae_is_the_discounted_sum_of_temporal_differences(gamma, lam):
    trajectory, rewards, values = random_batch()
    advantages, returns = gae(
        rewards, values_T=values, trajectory_T=trajectory, gamma=gamma, lam=lam
    )
    expected = np.concatenate(
        [
            reference_gae(rewards[trajectory == row], values[trajectory == row], gamma, lam)
            for row in range(7)
        ]
    )
    assert np.abs(advantages - expected).max() < 1e-12
    assert np.abs(returns - (expected + values)).max() < 1e-12


def test_with_gamma_and_lambda_1_returns_are_the_outcome_whatever_the_values():
    trajectory, _, values = random_batch()
    outcomes = np.arange(7)
    rewards = token_rewards(outcomes, trajectory_T=trajectory)
    _, returns = gae(rewards, values_T=values, trajectory_T=trajectory, gamma=1.0, lam=1.0)
    assert np.abs(returns - outcomes[trajectory]).max() < 1e-12


def test_grpo_compares_within_the_group():
    rewards = np.array([1, 10, 3, 10, 40, 70])
    groups = ["b", "a", "b", "a", "a", "a"]
    assert grpo(rewards, group_B=groups, scale=False).tolist() == [-1, -22.5, 1, -22.5, 7.5, 37.5]
    of_b = np.array([-1, 1]) / np.std([1, 3], ddof=1)
    of_a = np.array([-22.5, -22.5, 7.5, 37.5]) / np.std([10, 10, 40, 70], ddof=1)
    expected = [of_b[0], of_a[0], of_b[1], *of_a[1:]]
    assert np.abs(grpo(rewards, group_B=groups) - expected).max() < 1e-6


def test_rloo_compares_with_the_others_of_the_group():
    advantages = rloo(np.array([0, 3, 6, 5, 1]), group_B=[4, 4, 4, 2, 2])
    assert advantages.tolist() == [-4.5, 0, 4.5, 4, -4]


@pytest.mark.parametrize("estimate", [grpo, rloo])
def test_a_group_of_one_is_refused_by_name(estimate):
    with pytest.raises(ConfigError, match=r"group task-7 has one trajectory.*group_size to 2"):
        estimate(np.ones(3), group_B=["task-1", "task-1", "task-7"])


def test_equal_rewards_give_exactly_zero():
    """The mean of three times 0.1 is not 0.1."""
    rewards, groups = np.full(3, 0.1), np.zeros(3, int)
    assert grpo(rewards, group_B=groups).tolist() == [0, 0, 0]
    assert rloo(rewards, group_B=groups).tolist() == [0, 0, 0]
    assert whiten(rewards).tolist() == [0, 0, 0]


def test_rewards_that_differ_by_rounding_are_not_blown_up():
    assert np.abs(grpo(np.array([0.1 + 0.2, 0.3]), group_B=[0, 0])).max() < 1e-9


def test_reinforce_plus_plus_whitens_what_follows_over_all_tokens():
    advantages = reinforce_plus_plus(
        np.array([1, 0, 4, 8]), trajectory_T=np.array([0, 0, 0, 1]), gamma=0.5
    )
    following = np.array([2, 2, 4, 8])
    expected = (following - 4) / np.std(following, ddof=1)
    assert np.abs(advantages - expected).max() < 1e-6


def test_whitened_tokens_have_mean_0_and_deviation_1():
    white = whiten(random_batch()[1] * 50 + 3)
    assert abs(white.mean()) < 1e-12
    assert abs(white.std(ddof=1) - 1) < 1e-6


@pytest.mark.parametrize(
    ("by", "sixtieths"),
    [
        ("token", [10, 10, 10, 10, 10, 10]),
        ("trajectory", [20 / 3, 20 / 3, 20 / 3, 20, 10, 10]),
        ("group", [7.5, 7.5, 7.5, 7.5, 15, 15]),
    ],
)
def test_weights_share_out_one_equally(by, sixtieths):
    weights = token_weights(TRAJECTORY, group_B=["x", "x", "z", "y"], by=by)
    assert np.abs(weights * 60 - sixtieths).max() < 1e-12


def test_nothing_sampled_gives_nothing():
    none = np.empty(0, np.int64)
    assert token_rewards(np.ones(2), trajectory_T=none).shape == (0,)
    assert whiten(none).shape == (0,)
    assert token_weights(none, group_B=[0, 0], by="group").shape == (0,)
    advantages, returns = gae(none, values_T=none, trajectory_T=none, gamma=1.0, lam=1.0)
    assert (advantages.shape, returns.shape) == ((0,), (0,))


def test_tokens_out_of_order_are_our_own_mistake():
    with pytest.raises(AssertionError, match="ordered"):
        token_rewards(np.ones(2), trajectory_T=np.array([1, 0]))
