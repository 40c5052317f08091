"""What else might be learned from than what was run: batches, rewritten.

[Trajectory] -> shuffled | stitched | plain | alone -> [Trajectory]
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mem1.context import ContextPolicy, Full, Parts
from mem1.types import Context, Segment, SegmentKind, Trajectory, Turn


def shuffled(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Rewards that have nothing to do with what was done."""
    order = list(range(len(trajectories)))
    random.Random(trajectories[0].task.id).shuffle(order)
    rewards = [trajectories[index].reward for index in order]
    return [replace(t, reward=r) for t, r in zip(trajectories, rewards, strict=True)]


def stitched(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The paper's rows: each token once, at the place where it was first written, and a mask that
    hides what each turn did not see. Exact for carried episodes, which these are not."""
    return [replace(trajectory, mode="carry") for trajectory in trajectories]


def plain(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """One causal row of everything that was said: each turn is asked about with all that came
    before it in view, evicted or not."""
    return [_with_contexts(trajectory, policy=Full()) for trajectory in trajectories]


def _with_contexts(trajectory: Trajectory, *, policy: ContextPolicy) -> Trajectory:
    context: Context = trajectory.turns[0].context[:1]
    turns: list[Turn] = []
    for turn, after in zip(trajectory.turns, [*trajectory.turns[1:], None], strict=True):
        turns.append(replace(turn, context=context))
        if after is not None:
            context = policy.update(context, _parts(turn, after, number=len(turns)))
    return replace(trajectory, turns=tuple(turns))


def _parts(turn: Turn, after: Turn, *, number: int) -> Parts:
    """What a turn added, read off the next one's context."""
    seen = {s.kind: s for s in after.context if s.turn == number}
    reply = Segment(
        kind=SegmentKind.REPLY,
        turn=number,
        token_ids=turn.completion.token_ids,
        text=turn.completion.text,
        start=0,
    )
    return Parts(
        reply=reply,
        internal_state=None,
        action=None,
        observation=seen[SegmentKind.OBSERVATION],
        hint=seen[SegmentKind.HINT],
    )


def alone(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Every turn an episode of its own: nothing is chained, and only the last one is rewarded.

    Were all of them rewarded with the outcome, nothing would change: with gamma = lam = 1 an
    advantage is the outcome less the value, chained or not.
    """
    return [
        replace(
            trajectory,
            turns=(turn,),
            sample=100 * trajectory.sample + number,
            reward=trajectory.reward if number == trajectory.num_turns else 0.0,
        )
        for trajectory in trajectories
        for number, turn in enumerate(trajectory.turns, start=1)
    ]


def ones(old_logprobs: Tensor, **others: Any) -> Tensor:
    """Weights of a trainer that takes its own probabilities for the sampler's."""
    return torch.ones_like(old_logprobs)
