"""TRAJECTORIES -> CELLS: one for each context policy and number of objectives.

A cell says how many episodes it holds, how they ended, and what its figures are worth (confidence
intervals, exactness, the bound).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mem1.evals.metrics import Estimate, aggregate, peak_tokens
from mem1.types import FAILURES, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The episodes of one context policy and number of objectives."""

    context_policy: str
    num_objectives: int
    num_tasks: int
    num_trajectories: int
    estimates: Mapping[str, Estimate]
    """By the names of `mem1.evals.metrics`; means over the tasks that have the figure, left out
    where none has."""
    stop_reasons: Mapping[str, int]
    num_failures: int
    """Episodes that an engine, tool or environment broke; they score 0 and are owed again."""
    num_inexact: int
    """Episodes whose token ids or log-probabilities the engine did not tell."""
    bound: int | None
    """Certified largest context + reply, in tokens; None if the policy has none."""
    max_tokens: int
    """Largest context + reply of all turns of all episodes."""


def cell_groups(trajectories: Iterable[Trajectory]) -> list[list[Trajectory]]:
    """The trajectories of each cell, ordered by number of objectives; policies as they came."""
    groups: dict[tuple[int, str], list[Trajectory]] = {}
    for trajectory in trajectories:
        key = len(trajectory.task.objectives), trajectory.context_policy
        groups.setdefault(key, []).append(trajectory)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]


def make_cell(trajectories: Sequence[Trajectory]) -> Cell:
    """The cell of one group, of at least one trajectory."""
    bounds = {trajectory.bound for trajectory in trajectories}
    return Cell(
        context_policy=trajectories[0].context_policy,
        num_objectives=len(trajectories[0].task.objectives),
        num_tasks=len({trajectory.task.id for trajectory in trajectories}),
        num_trajectories=len(trajectories),
        estimates=aggregate(trajectories),
        stop_reasons=dict(Counter(t.stop_reason.value for t in trajectories).most_common()),
        num_failures=sum(t.stop_reason in FAILURES for t in trajectories),
        num_inexact=sum(not t.exact for t in trajectories),
        bound=None if None in bounds else max(b for b in bounds if b is not None),
        max_tokens=int(max(map(peak_tokens, trajectories))),
    )
