"""EPISODES BY HAND, and the layout of the paper: one sequence, each token once, a 2-D mask.

    prompt, [Step] -> episode -> Trajectory           as a MEM1 agent would have made it
    prompt, [Step] -> stitch  -> Stitched             prompt, reply 1, observation 1, reply 2, ...

A token sees the prompt, its own turn, and what the turn before left. That isn't what the sampler
computed: there, what was left stood in a context of its own, without what it was written from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mem1.types import (
    Completion,
    Context,
    Objective,
    Segment,
    SegmentKind,
    StopReason,
    Task,
    Trajectory,
    Turn,
)

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A turn as token ids."""

    state: Ids
    action: Ids
    observation: Ids
    """The world's reply; the last one is seen by nobody."""

    @property
    def reply(self) -> Ids:
        return self.state + self.action


def episode(prompt: Ids, steps: Sequence[Step], *, sample: int = 0) -> Trajectory:
    """What rollout would record if a model sampled these replies at temperature 1."""
    first = Segment(kind=SegmentKind.PROMPT, turn=0, token_ids=prompt, text="")
    context: Context = (first,)
    turns: list[Turn] = []
    for number, step in enumerate(steps, start=1):
        completion = Completion(
            token_ids=step.reply, logprobs=None, temperature=1.0, text="", finish_reason="stop"
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
        kept = (
            (SegmentKind.INTERNAL_STATE, step.state, 0),
            (SegmentKind.ACTION, step.action, len(step.state)),
            (SegmentKind.OBSERVATION, step.observation, None),
        )
        context = (
            first,
            *(
                Segment(kind=kind, turn=number, token_ids=ids, text="", start=start)
                for kind, ids, start in kept
            ),
        )
    return Trajectory(
        task=Task(id="made", objectives=(Objective(question="", answers=("",)),)),
        sample=sample,
        context_policy="internal_state",
        turns=tuple(turns),
        stop_reason=StopReason.ANSWERED,
        answer=None,
        reward=0.0,
        reward_parts={},
        bound=None,
        seconds=0.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stitched:
    """An episode as one sequence; its positions run on."""

    token_ids: np.ndarray
    """int64, shape (S,)."""
    mask: np.ndarray
    """Which query (row) sees which key (column); bool, shape (S, S)."""
    targets: np.ndarray
    """Places of the sampled tokens, each predicted at the place before; int64, shape (T,)."""
    shift: np.ndarray
    """How much nearer the prompt was to each token when it was sampled; int64, shape (S,)."""
    num_prompt: int


def stitch(prompt: Ids, steps: Sequence[Step], *, hide_state: bool = False) -> Stitched:
    """The paper's layout. Args: `hide_state`, whether the internal state of the turn before is out
    of sight, as in the mask of the released code."""
    ids, targets = list(prompt), list[int]()
    seen_from, first_hidden, last_hidden = ([0] * len(prompt) for _ in range(3))
    begins, states = list[int](), list[range]()
    for number, step in enumerate(steps):
        begin = len(ids)
        begins.append(begin)
        states.append(range(begin, begin + len(step.state)))
        targets += range(begin, begin + len(step.reply))
        before = begins[number - 1] if number else begin
        hidden = states[number - 1] if number and hide_state else range(0)
        last = number == len(steps) - 1
        for part, seen in ((step.reply, before), ((() if last else step.observation), begin)):
            ids += part
            seen_from += [seen] * len(part)
            first_hidden += [hidden.start] * len(part)
            last_hidden += [hidden.stop] * len(part)
    place, size = np.arange(len(ids)), len(prompt)
    start, first, stop = (np.array(x)[:, None] for x in (seen_from, first_hidden, last_hidden))
    mask = (place <= place[:, None]) & ((place < size) | (place >= start))
    return Stitched(
        token_ids=np.array(ids),
        mask=mask & ~((first <= place) & (place < stop)),
        targets=np.array(targets),
        shift=np.maximum(np.array(seen_from) - size, 0),
        num_prompt=size,
    )
