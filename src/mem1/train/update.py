"""EXPERIENCE -> NEW WEIGHTS: one optimizer step for each mini-batch.

    Experience -> learn -> metrics of the updates
    [Trajectory] -> imitate -> metrics      supervised: the sampled tokens as they are

The loss of a mini-batch is a weighted sum over its tokens, so its rows are added up one by one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mem1.errors import TrainingError
from mem1.packing import PackedBatch, sampled_tokens
from mem1.train import losses
from mem1.train.config import TrainConfig
from mem1.train.experience import Experience, MiniBatch, split, temperature
from mem1.train.memory import memory_advice
from mem1.train.optimizer import Optimizer
from mem1.train.policy import Policy
from mem1.train.team import Team
from mem1.types import Trajectory


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Learner:
    """A policy and the optimizers that change it."""

    policy: Policy
    optimizer: Optimizer
    critic_optimizer: Optimizer | None
    """Of a separate critic."""
    config: TrainConfig
    team: Team = field(default_factory=Team)
    """The processes that learn together."""

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """By the name of their gradient's norm."""
        found = {"grad_norm": self.optimizer, "critic_grad_norm": self.critic_optimizer}
        return {name: optimizer for name, optimizer in found.items() if optimizer is not None}

    @classmethod
    def create(cls, policy: Policy, *, config: TrainConfig, team: Team | None = None) -> "Learner":
        mini_batches = config.batch_size // (config.mini_batch_size or config.batch_size)
        total = config.steps * config.epochs * mini_batches
        critic = config.critic
        return cls(
            policy=policy,
            optimizer=Optimizer(
                policy.policy_parameters(),
                config=config.optimizer,
                total_steps=total,
                rounded=policy.rounds,
            ),
            critic_optimizer=Optimizer(
                policy.critic_parameters(),
                config=critic.optimizer,
                total_steps=total,
                rounded=policy.rounds,
            )
            if critic and critic.kind == "separate"
            else None,
            config=config,
            team=team or Team(),
        )


@dataclass(slots=True, kw_only=True)
class _Sums:
    """Weighted sums over tokens, and extremes; plain numbers."""

    total: dict[str, float] = field(default_factory=dict[str, float])
    most: dict[str, float] = field(default_factory=dict[str, float])

    def add(self, weights: Tensor, **per_token: Tensor) -> None:
        for name, values in per_token.items():
            share = float((weights * values.detach().to(weights.dtype)).sum())
            self.total[name] = self.total.get(name, 0.0) + share

    def top(self, **values: Tensor) -> None:
        for name, value in values.items():
            self.most[name] = max(self.most.get(name, -torch.inf), float(value.detach().max()))


def learn(learner: Learner, experience: Experience, *, name: str) -> dict[str, float]:
    """Learn from a batch, `epochs` times over. Gives means over the updates and their tokens.

    Args: `name`, of the batch, for messages.
    Raises: TrainingError if a loss or gradient isn't finite.
    """

    def backward(row: PackedBatch, weights: Tensor, sums: _Sums) -> Tensor:
        return _row_loss(learner, experience, row, weights=weights, sums=sums)

    updates = [
        _update(learner, mini_batch, backward=backward, name=name)
        for _ in range(learner.config.epochs)
        for mini_batch in experience.mini_batches
    ]
    return _merged(updates) | _sizes(experience.mini_batches)


def imitate(learner: Learner, trajectories: Sequence[Trajectory], *, name: str) -> dict[str, float]:
    """Supervised learning, `epochs` times over, on the tokens that the trajectories' replies are
    made of. Gives metrics and raises as `learn` does."""
    tokens = sampled_tokens(trajectories)
    mini_batches = split(trajectories, tokens=tokens, config=learner.config, team=learner.team)
    policy = learner.policy

    def backward(row: PackedBatch, weights: Tensor, sums: _Sums) -> Tensor:
        scores = policy.score(row, temperature_T=torch.ones_like(weights))
        sums.add(weights, loss=-scores.logprobs_T, entropy=scores.entropy_T)
        return -(weights * scores.logprobs_T).sum()

    updates = [
        _update(learner, mini_batch, backward=backward, name=name)
        for _ in range(learner.config.epochs)
        for mini_batch in mini_batches
    ]
    return _merged(updates) | _sizes(mini_batches)


def _update(
    learner: Learner,
    mini_batch: MiniBatch,
    *,
    backward: Callable[[PackedBatch, Tensor, _Sums], Tensor],
    name: str,
) -> dict[str, float]:
    """Add up the gradients of all rows and step: all optimizers or, if a loss or gradient isn't
    finite, none."""
    policy, team, sums = learner.policy, learner.team, _Sums()
    first, *more = mini_batch.task_ids
    name = f"{name}, tasks {first}" + (f" and {len(more)} more" if more else "")
    policy.learn(True)
    try:
        for row, counts in team.rounds(mini_batch.rows):
            weights = _tensor(mini_batch.weights_T, row, policy=policy) * counts
            with memory_advice(row, config=learner.config):
                loss = backward(row, weights, sums)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"{name}: the loss is {loss.item()}, nothing was updated: lower the learning "
                    "rate, or look at this batch's trajectories"
                )
            with memory_advice(row, config=learner.config):
                loss.backward()
        optimizers = learner.optimizers
        norms = {key: optimizer.clip(batch=name) for key, optimizer in optimizers.items()}
        for optimizer in optimizers.values():
            optimizer.step()
    finally:
        policy.learn(False)
        for optimizer in learner.optimizers.values():
            optimizer.clear()
    return norms | team.sums(sums.total) | team.most(sums.most)


def _row_loss(
    learner: Learner, experience: Experience, row: PackedBatch, *, weights: Tensor, sums: _Sums
) -> Tensor:
    """The row's share of the mini-batch's loss."""
    policy, config, settings = learner.policy, learner.config, learner.config.loss

    def known(values_T: np.ndarray) -> Tensor:
        return _tensor(values_T, row, policy=policy)

    at = temperature(experience.tokens, row, policy=policy)
    scores = policy.score(row, temperature_T=at)
    logprobs = scores.logprobs_T
    old_T = experience.old_logprobs_T
    old = logprobs.detach() if old_T is None else known(old_T)
    sampled = known(experience.tokens.sampled_logprobs)
    surrogate = losses.policy_loss(
        logprobs,
        old_logprobs=old,
        advantages=known(experience.advantages_T),
        clip_low=settings.clip_low,
        clip_high=settings.clip_high,
    )
    importance = losses.importance_weights(
        old, sampled_logprobs=sampled, cap=settings.importance_cap
    )
    loss = surrogate.loss * importance - settings.entropy * scores.entropy_T
    gap = (old - sampled).abs()
    sums.add(
        weights,
        loss=surrogate.loss,
        entropy=scores.entropy_T,
        ratio=surrogate.ratio,
        clip_fraction=surrogate.clipped,
        logprob_gap=gap,
    )
    sums.top(ratio_max=surrogate.ratio, logprob_gap_max=gap)
    if experience.ref_logprobs_T is not None:
        divergence = losses.kl_divergence(
            logprobs,
            ref_logprobs=known(experience.ref_logprobs_T),
            estimator=settings.kl_estimator,
        )
        sums.add(weights, kl=divergence)
        if settings.kl_in == "loss":
            loss = loss + settings.kl * divergence
    if config.critic is not None:
        assert experience.values_T is not None
        assert experience.returns_T is not None
        assert scores.values_T is not None
        missed = losses.value_loss(
            scores.values_T,
            old_values=known(experience.values_T),
            returns=known(experience.returns_T),
            clip=config.critic.value_clip,
        )
        sums.add(weights, value_loss=missed, value=scores.values_T)
        loss = loss + missed * (config.critic.coef if policy.critic is None else 1.0)
    return (weights * loss).sum()


def _tensor(values_T: np.ndarray, row: PackedBatch, *, policy: Policy) -> Tensor:
    return torch.from_numpy(values_T[row.index]).to(policy.device, policy.loss_dtype)


def _merged(updates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the updates; of extremes, the largest."""
    return {
        name: max(found) if name.endswith("_max") else float(np.mean(found))
        for name in updates[0]
        for found in [[update[name] for update in updates]]
    }


def _sizes(mini_batches: Sequence[MiniBatch]) -> dict[str, float]:
    """Tokens of the rows, and what one sequence for each turn would have taken."""
    rows = [row for mini_batch in mini_batches for row in mini_batch.rows]
    return {
        "packed_tokens": float(sum(row.num_tokens for row in rows)),
        "unpacked_tokens": float(sum(row.num_unpacked for row in rows)),
        "num_rows": float(len(rows)),
    }
