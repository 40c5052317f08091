"""Trajectories for tests of what is trained: made of token ids by the real context policies."""

import random

from mem1.context import ContextPolicy, Parts
from mem1.types import (
    Completion,
    Context,
    Objective,
    SamplingMode,
    Segment,
    SegmentKind,
    StopReason,
    Task,
    Trajectory,
    Turn,
    context_ids,
)

Reply = tuple[list[int], list[int]]
"""Ids of the internal state and of the action."""


def make_trajectory(
    policy: ContextPolicy,
    *,
    prompt: list[int],
    replies: list[Reply],
    observations: list[list[int]],
    sample: int = 0,
    mode: SamplingMode = "reencode",
) -> Trajectory:
    """An episode in which the model sampled these replies and saw these observations between."""
    context: Context = (_segment(SegmentKind.PROMPT, 0, prompt),)
    turns: list[Turn] = []
    for number, (state, action) in enumerate(replies, start=1):
        ids = tuple(state + action)
        completion = Completion(
            token_ids=ids,
            logprobs=tuple(-0.5 - 0.01 * place for place in range(len(ids))),
            temperature=1.0,
            text="",
            finish_reason="stop",
        )
        turns.append(
            Turn(
                context=context,
                completion=completion,
                action=None,
                faults=(),
                observation=None,
                engine_s=0.0,
                env_s=0.0,
            )
        )
        if number < len(replies):
            parts = Parts(
                reply=_segment(SegmentKind.REPLY, number, state + action, start=0),
                internal_state=_segment(SegmentKind.INTERNAL_STATE, number, state, start=0),
                action=_segment(SegmentKind.ACTION, number, action, start=len(state)),
                observation=_segment(SegmentKind.OBSERVATION, number, observations[number - 1]),
                hint=_segment(SegmentKind.HINT, number, []),
            )
            context = policy.update(context, parts)
    return Trajectory(
        task=Task(id="t", objectives=(Objective(question="q", answers=("a",)),)),
        sample=sample,
        context_policy=str(policy),
        turns=tuple(turns),
        stop_reason=StopReason.ANSWERED,
        answer="a",
        reward=1.0,
        reward_parts={},
        bound=None,
        seconds=0.0,
        mode=mode,
    )


def random_group(
    policy: ContextPolicy,
    *,
    rng: random.Random,
    size: int,
    vocab: int,
    lengths: tuple[int, int, int, int],
    max_turns: int = 5,
    mode: SamplingMode = "reencode",
) -> list[Trajectory]:
    """Rollouts of one task. Args: `lengths`, most tokens of prompt, state, action, observation."""

    def ids(most: int) -> list[int]:
        return [rng.randrange(vocab) for _ in range(rng.randint(max(1, most // 2), most))]

    prompt, (_, state, action, observation) = ids(lengths[0]), lengths
    group: list[Trajectory] = []
    for sample in range(size):
        num_turns = rng.randint(1, max_turns)
        group.append(
            make_trajectory(
                policy,
                prompt=prompt,
                replies=[(ids(state), ids(action)) for _ in range(num_turns)],
                observations=[ids(observation) for _ in range(num_turns)],
                sample=sample,
                mode=mode,
            )
        )
    return group


def seen_and_sampled(trajectory: Trajectory) -> list[tuple[tuple[int, ...], int]]:
    """For every sampled token: all ids the model saw when it sampled it, and its id."""
    return [
        (context_ids(turn.context) + turn.completion.token_ids[:place], token)
        for turn in trajectory.turns
        for place, token in enumerate(turn.completion.token_ids)
    ]


def _segment(kind: SegmentKind, turn: int, ids: list[int], *, start: int | None = None) -> Segment:
    return Segment(kind=kind, turn=turn, token_ids=tuple(ids), text="", start=start)
