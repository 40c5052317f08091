"""REWARDS -> ADVANTAGES: how much better than expected each sampled token was. numpy, float64.

    rewards -> grpo | rloo -> one advantage for each trajectory
    rewards -> token_rewards -> gae | reinforce_plus_plus -> one advantage for each token
    tokens of a mini-batch -> token_weights -> how much the loss of each counts

Arrays of shape (T,) are in the order of `mem1.packing.SampledTokens`, and `trajectory_T` is its
`trajectory`. It holds sampled tokens only: what follows the last token of a turn is the first of
the next, so estimates are chained across rewritten contexts, and what the world wrote has neither
reward nor value. Arrays of shape (B,) have one element for each trajectory: statistics of a group
count trajectories, however many turns, rows or tokens they took.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from mem1.errors import ConfigError

EPSILON = 1e-6
"""Least spread that is divided by: below it, rewards differ by rounding only."""

Aggregation = Literal["token", "trajectory", "group"]
"""What counts equally in a loss."""

Groups = Sequence[str] | Sequence[int] | np.ndarray
"""A label for each trajectory, shape (B,); rollouts of one task have the same, its id for one."""


def token_rewards(
    rewards_B: np.ndarray,
    *,
    trajectory_T: np.ndarray,
    kl_T: np.ndarray | None = None,
    kl_coef: float = 0.0,
) -> np.ndarray:
    """The outcome at each trajectory's last sampled token, minus `kl_coef` * `kl_T` at every one.

    Args: `kl_T`, estimated divergence from the reference, log-probability under the policy minus
    that under the reference; it's unclamped, so that its mean is the divergence. None: no penalty.
    """
    last_T = _is_last(trajectory_T)
    rewards_T = np.zeros(len(trajectory_T))
    rewards_T[last_T] = np.asarray(rewards_B, np.float64)[trajectory_T[last_T]]
    return rewards_T if kl_T is None else rewards_T - kl_coef * np.asarray(kl_T, np.float64)


def gae(
    rewards_T: np.ndarray,
    *,
    values_T: np.ndarray,
    trajectory_T: np.ndarray,
    gamma: float,
    lam: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Advantages and returns (the critic's targets), both of shape (T,), not whitened.

        delta_t = r_t + gamma * V_{t+1} - V_t        V is 0 behind a trajectory's last token
        A_t = delta_t + gamma * lam * A_{t+1}        return_t = A_t + V_t

    Source: Schulman et al. 2015, arXiv 1506.02438, section 3.
    """
    values_T = np.asarray(values_T, np.float64)
    next_values_T = np.where(_is_last(trajectory_T), 0.0, np.roll(values_T, -1))
    deltas_T = rewards_T + gamma * next_values_T - values_T
    advantages_T = _discounted_sums(deltas_T, trajectory_T=trajectory_T, discount=gamma * lam)
    return advantages_T, advantages_T + values_T


def grpo(rewards_B: np.ndarray, *, group_B: Groups, scale: bool = True) -> np.ndarray:
    """Reward minus the group's mean, over the group's standard deviation (n - 1); shape (B,).

    Args: `scale`, False leaves out the deviation, which weighs tasks by how hard they are.
    Raises: ConfigError naming a group of one.
    Source: arXiv 2402.03300, section 4.1.2; without scale: Dr. GRPO, arXiv 2503.20783.
    """
    group_B = _numbered(group_B, user="GRPO")
    deviations_B = _centred(rewards_B, group=group_B)
    return _scaled(deviations_B, group=group_B) if scale else deviations_B


def rloo(rewards_B: np.ndarray, *, group_B: Groups) -> np.ndarray:
    """Reward minus the mean of the others of its group; shape (B,).

    Raises: ConfigError naming a group of one.
    Source: arXiv 2402.14740.
    """
    group_B = _numbered(group_B, user="RLOO")
    # r - (n * mean - r) / (n - 1) = (r - mean) * n / (n - 1)
    sizes_B = np.bincount(group_B)[group_B]
    return _centred(rewards_B, group=group_B) * sizes_B / (sizes_B - 1)


def reinforce_plus_plus(
    rewards_T: np.ndarray, *, trajectory_T: np.ndarray, gamma: float
) -> np.ndarray:
    """Discounted sums of what follows, whitened over the batch's sampled tokens; shape (T,).

    Source: arXiv 2501.03262; the penalty for divergence is part of the rewards.
    """
    return whiten(_discounted_sums(rewards_T, trajectory_T=trajectory_T, discount=gamma))


def whiten(advantages_T: np.ndarray) -> np.ndarray:
    """Shifted and scaled to mean 0 and standard deviation 1 (n - 1); zeros if all are equal."""
    one = np.zeros(len(advantages_T), np.int64)
    return _scaled(_centred(advantages_T, group=one), group=one)


def token_weights(trajectory_T: np.ndarray, *, group_B: Groups, by: Aggregation) -> np.ndarray:
    """How much each token's loss counts in a mini-batch; shape (T,), their sum is 1.

    Tokens, trajectories or groups count equally, and so do the tokens within one. What has no
    tokens has no share.

    Source: by token, DAPO, arXiv 2503.14476; by trajectory, GRPO, arXiv 2402.03300; by group (the
    average over prompts), ScaleRL, arXiv 2510.13786.
    """
    owner_T = {
        "token": np.zeros(len(trajectory_T)),
        "trajectory": trajectory_T,
        "group": np.asarray(group_B)[trajectory_T],
    }[by]
    _, owner_T, sizes = np.unique(owner_T, return_inverse=True, return_counts=True)
    return 1.0 / (len(sizes) * sizes[owner_T])


def _is_last(trajectory_T: np.ndarray) -> np.ndarray:
    """Which tokens are the last of their trajectory."""
    assert (np.diff(trajectory_T) >= 0).all(), "sampled tokens are ordered by trajectory"
    return np.append(np.diff(trajectory_T) != 0, True)[: len(trajectory_T)]


def _discounted_sums(
    terms_T: np.ndarray, *, trajectory_T: np.ndarray, discount: float
) -> np.ndarray:
    """At each token, the sum over it and what follows in its trajectory: x_t + discount * sum_t+1.

    Lists, since numpy's scalars would make the one loop over tokens several times as slow.
    """
    keep = np.where(_is_last(trajectory_T), 0.0, discount).tolist()
    terms = np.asarray(terms_T, np.float64).tolist()
    sums, total = [], 0.0
    for term, kept in zip(reversed(terms), reversed(keep), strict=True):
        total = term + kept * total
        sums.append(total)
    return np.array(sums[::-1], np.float64)


def _numbered(group_B: Groups, *, user: str) -> np.ndarray:
    """Number of each trajectory's group, counted from 0; int64, shape (B,)."""
    labels, group, sizes = np.unique(np.asarray(group_B), return_inverse=True, return_counts=True)
    if (sizes < 2).any():
        raise ConfigError(
            f"group {labels[sizes < 2][0]} has one trajectory, and {user} compares the rollouts of "
            "a task: set group_size to 2 or more"
        )
    return group


def _centred(values: np.ndarray, *, group: np.ndarray) -> np.ndarray:
    """Values minus their group's mean; exactly 0 where a group's are all equal."""
    values = np.asarray(values, np.float64)
    # The mean of equal values may be off by rounding; the mean of zeros isn't.
    shifted = values - values[np.unique(group, return_index=True)[1]][group]
    return shifted - (np.bincount(group, weights=shifted) / np.bincount(group))[group]


def _scaled(deviations: np.ndarray, *, group: np.ndarray) -> np.ndarray:
    """Deviations over their group's standard deviation."""
    variances = np.bincount(group, weights=deviations**2) / np.maximum(np.bincount(group) - 1, 1)
    return deviations / (np.sqrt(variances) + EPSILON)[group]
