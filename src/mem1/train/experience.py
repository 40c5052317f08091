"""TRAJECTORIES -> WHAT TO LEARN FROM THEM, token by token.

    [Trajectory] -> gather -> Experience: rows to train on, advantages, log-probabilities before

A mini-batch is a run of whole groups, however many rows, turns or tokens they take. All arrays of
shape (T,) are in the order of `SampledTokens` of all trajectories.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch

from mem1.errors import BudgetError
from mem1.packing import PackedBatch, SampledTokens, pack, sampled_tokens
from mem1.train import advantages
from mem1.train.config import TrainConfig
from mem1.train.policy import Policy
from mem1.train.shaping import shaped
from mem1.train.team import Team
from mem1.types import Trajectory


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MiniBatch:
    """What one optimizer update learns from."""

    rows: tuple[PackedBatch, ...]
    """Their `index` counts through the tokens of the whole batch."""
    weights_T: np.ndarray
    """How much each token's loss counts, 0 outside of the mini-batch; shape (T,), sum 1."""
    task_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Experience:
    """A batch of trajectories, ready to learn from."""

    tokens: SampledTokens
    mini_batches: tuple[MiniBatch, ...]
    rewards_B: np.ndarray
    """What is learned from, `train.shaping` included; shape (B,)."""
    advantages_T: np.ndarray
    old_logprobs_T: np.ndarray | None
    """Under the weights before the first update; None where that one's own are they."""
    ref_logprobs_T: np.ndarray | None
    values_T: np.ndarray | None
    returns_T: np.ndarray | None


def gather(
    trajectories: Sequence[Trajectory],
    *,
    policy: Policy,
    config: TrainConfig,
    team: Team | None = None,
) -> Experience:
    """Pack the trajectories of a batch, score them as they are, and say how good each token was.

    Args: `trajectories`, those of a task side by side, the same for all of the `team`.
    """
    team = team or Team()
    tokens = sampled_tokens(trajectories)
    mini_batches = split(trajectories, tokens=tokens, config=config, team=team)
    group_B = np.array([trajectory.task.id for trajectory in trajectories])
    rewards_B = np.array([shaped(t, config=config.shaping) for t in trajectories], np.float64)
    rows = team.rounds([row for mini_batch in mini_batches for row in mini_batch.rows])
    several = len(mini_batches) * config.epochs > 1
    old_T, values_T = None, None
    if several or (config.loss.kl and config.loss.kl_in == "reward"):
        old_T, values_T = _score(policy, rows, tokens=tokens)
    elif config.critic:
        values_T = _values(policy, rows, tokens=tokens)
    ref_T = _reference(policy, rows, tokens=tokens) if config.loss.kl else None
    old_T, values_T, ref_T = (
        None if known_T is None else team.sum(known_T) for known_T in (old_T, values_T, ref_T)
    )
    advantages_T, returns_T = estimate(
        rewards_B,
        trajectory_T=tokens.trajectory,
        group_B=group_B,
        scored=(old_T, ref_T, values_T),
        config=config,
    )
    return Experience(
        tokens=tokens,
        mini_batches=mini_batches,
        rewards_B=rewards_B,
        advantages_T=advantages_T,
        old_logprobs_T=old_T,
        ref_logprobs_T=ref_T,
        values_T=values_T,
        returns_T=returns_T,
    )


def split(
    trajectories: Sequence[Trajectory],
    *,
    tokens: SampledTokens,
    config: TrainConfig,
    team: Team | None = None,
) -> tuple[MiniBatch, ...]:
    """Whole groups, `mini_batch_size` tasks at a time, in rows that the `team` can share evenly."""
    tasks = list(dict.fromkeys(trajectory.task.id for trajectory in trajectories))
    size = config.mini_batch_size or len(tasks)
    parts: list[MiniBatch] = []
    for begin in range(0, len(tasks), size):
        task_ids = tuple(tasks[begin : begin + size])
        members = [n for n, t in enumerate(trajectories) if t.task.id in task_ids]
        inside = np.flatnonzero(np.isin(tokens.trajectory, members))
        weights = np.zeros(tokens.num_tokens)
        weights[inside] = advantages.token_weights(
            tokens.trajectory[inside],
            group_B=[trajectory.task.id for trajectory in trajectories],
            by=config.loss.weigh_by,
        )
        rows = laid_out(
            [trajectories[n] for n in members], config=config, team_size=team.size if team else 1
        )
        parts.append(
            MiniBatch(
                rows=tuple(replace(row, index=inside[row.index]) for row in rows),
                weights_T=weights,
                task_ids=task_ids,
            )
        )
    return tuple(parts)


def laid_out(
    trajectories: Sequence[Trajectory], *, config: TrainConfig, team_size: int = 1
) -> list[PackedBatch]:
    """Rows of the trajectories; for several processes, of the lengths tried that with which they
    are done the soonest: a round takes as long as its longest row."""

    def packed(row_tokens: int) -> list[PackedBatch]:
        one_branch = config.microbatch == "branch"
        return pack(trajectories, row_tokens=row_tokens, one_branch=one_branch)

    tried = [packed(config.row_tokens)]
    if team_size > 1:
        fewest = -(-len(tried[0]) // team_size) * team_size
        even = sum(row.num_tokens for row in tried[0]) / fewest
        for slack in (1.0, 1.1, 1.25):
            # Shorter than the longest turn no row can be.
            with suppress(BudgetError):
                tried.append(packed(min(config.row_tokens, math.ceil(even * slack))))
    return min(tried, key=lambda rows: longest_rounds(rows, team_size=team_size))


def longest_rounds(rows: Sequence[PackedBatch], *, team_size: int) -> int:
    """Tokens of the longest row of every round, in all."""
    return sum(sorted((row.num_tokens for row in rows), reverse=True)[::team_size])


_Rows = Sequence[tuple[PackedBatch, bool]]
"""Those of this process, and whether each counts."""


def _score(
    policy: Policy, rows: _Rows, *, tokens: SampledTokens
) -> tuple[np.ndarray, np.ndarray | None]:
    """Log-probabilities and, if there's a critic, values of the rows' sampled tokens, as they are
    now; 0 for others."""
    logprobs_T = np.zeros(tokens.num_tokens)
    values_T = np.zeros(tokens.num_tokens) if policy.value_head is not None else None
    with torch.no_grad():
        for row, counts in rows:
            scores = policy.score(row, temperature_T=temperature(tokens, row, policy=policy))
            if counts:
                logprobs_T[row.index] = scores.logprobs_T.double().cpu()
            if counts and values_T is not None:
                assert scores.values_T is not None
                values_T[row.index] = scores.values_T.double().cpu()
    return logprobs_T, values_T


def _values(policy: Policy, rows: _Rows, *, tokens: SampledTokens) -> np.ndarray:
    values_T = np.zeros(tokens.num_tokens)
    with torch.no_grad():
        for row, counts in rows:
            found = policy.values(row).double().cpu()
            if counts:
                values_T[row.index] = found
    return values_T


def _reference(policy: Policy, rows: _Rows, *, tokens: SampledTokens) -> np.ndarray:
    logprobs_T = np.zeros(tokens.num_tokens)
    with torch.no_grad():
        for row, counts in rows:
            at = temperature(tokens, row, policy=policy)
            found = policy.ref_logprobs(row, temperature_T=at).double().cpu()
            if counts:
                logprobs_T[row.index] = found
    return logprobs_T


def temperature(tokens: SampledTokens, row: PackedBatch, *, policy: Policy) -> torch.Tensor:
    """At which the row's targets were sampled, shape (T_row,)."""
    return torch.from_numpy(tokens.temperature[row.index]).to(policy.device)


def estimate(
    rewards_B: np.ndarray,
    *,
    trajectory_T: np.ndarray,
    group_B: np.ndarray,
    scored: tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None],
    config: TrainConfig,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Advantages and, with a critic, the returns it should have predicted; shape (T,).

    Args: `scored`, log-probabilities before the update, those of the reference, and values, as far
    as the algorithm needs them, each of shape (T,).
    """
    old_T, ref_T, values_T = scored
    loss = config.loss
    if config.algorithm == "grpo":
        per_B = advantages.grpo(rewards_B, group_B=group_B, scale=loss.scale_by_deviation)
        return per_B[trajectory_T], None
    if config.algorithm == "rloo":
        return advantages.rloo(rewards_B, group_B=group_B)[trajectory_T], None
    kl_T = None
    if old_T is not None and ref_T is not None and loss.kl_in == "reward":
        kl_T = old_T - ref_T
    rewards_T = advantages.token_rewards(
        rewards_B, trajectory_T=trajectory_T, kl_T=kl_T, kl_coef=loss.kl
    )
    if config.algorithm == "reinforce++":
        whole = advantages.reinforce_plus_plus(
            rewards_T, trajectory_T=trajectory_T, gamma=loss.gamma
        )
        return whole, None
    assert values_T is not None
    gained, returns_T = advantages.gae(
        rewards_T, values_T=values_T, trajectory_T=trajectory_T, gamma=loss.gamma, lam=loss.lam
    )
    return advantages.whiten(gained), returns_T
