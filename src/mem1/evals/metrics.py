"""TRAJECTORIES -> NUMBERS: figures of one trajectory, and estimates over many. Pure.

    Trajectory -> measure -> {metric: value};  [Trajectory] -> aggregate -> {metric: Estimate}

All trajectories count, failed ones included, and all tokens are those of the model's own tokenizer.
A figure that a trajectory doesn't have (survival, where nothing was held) is left out, never 0.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np

from mem1.evals.memory import MEMORY_METRICS, MemoryTrace, survival_by_age, trace
from mem1.rewards import score_answer
from mem1.types import FAILURES, Segment, SegmentKind, Trajectory, Turn, num_tokens

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean with its bootstrap confidence interval."""

    mean: float
    low: float | None
    high: float | None
    """Ends of the 95 % interval; None with fewer than two values."""
    num_values: int
    """Tasks that have the figure."""


def peak_tokens(trajectory: Trajectory) -> float:
    """Largest context + reply of any turn, in tokens: what the bound certifies."""
    return float(max(map(_turn_tokens, trajectory.turns), default=0))


def peak_tokens_without_prompt(trajectory: Trajectory) -> float:
    """Largest context + reply of any turn, the task prompt left out: the peak of MEM1's release,
    which averages over solved tasks only and counts in another tokenizer."""
    sizes = (_turn_tokens(turn) - _prompt_tokens(turn) for turn in trajectory.turns)
    return float(max(sizes, default=0))


def dependency(trajectory: Trajectory) -> float:
    """Pairs of tokens that attention looks at for what is generated, over all turns."""
    return float(
        sum(pairs(num_tokens(t.context), t.completion.num_tokens) for t in trajectory.turns)
    )


def pairs(context: int, reply: int) -> int:
    """(context + l // 2) * l: pairs of tokens that attention looks at to generate l tokens after a
    context of so many. Source: MEM1's release (arXiv 2506.15841)."""
    return (context + reply // 2) * reply


def generated_tokens(trajectory: Trajectory) -> float:
    """Sampled tokens of all turns."""
    return float(sum(turn.completion.num_tokens for turn in trajectory.turns))


def prompt_tokens(trajectory: Trajectory) -> float:
    """Context tokens of all turns: what an engine that reuses nothing has to encode."""
    return float(sum(num_tokens(turn.context) for turn in trajectory.turns))


def state_tokens(trajectory: Trajectory) -> float | None:
    """Tokens of an internal state with its tags, mean over the contexts that hold one; None if none
    does."""
    sizes = [num_tokens(states) for turn in trajectory.turns if (states := _states(turn))]
    return fmean(sizes) if sizes else None


def turns_per_objective(trajectory: Trajectory) -> float:
    """Turns divided by the number of objectives."""
    return trajectory.num_turns / len(trajectory.task.objectives)


def compressions(trajectory: Trajectory) -> float:
    """Turns whose context lacks something that the context before it showed."""
    contexts = [turn.context for turn in trajectory.turns]
    return float(sum(new[: len(old)] != old for old, new in pairwise(contexts)))


def answer_rate(trajectory: Trajectory) -> float:
    """1 if the agent gave an answer, or bought something, else 0."""
    return float(trajectory.answer is not None)


def valid_turns(trajectory: Trajectory) -> float:
    """Share of turns without a fault of form; 0 without turns."""
    if not trajectory.turns:
        return 0.0
    return sum(not turn.faults for turn in trajectory.turns) / trajectory.num_turns


def seconds(trajectory: Trajectory) -> float:
    """Wall-clock seconds of the episode, waiting for its share of a batch included."""
    return trajectory.seconds


def _turn_tokens(turn: Turn) -> int:
    return num_tokens(turn.context) + turn.completion.num_tokens


def _prompt_tokens(turn: Turn) -> int:
    return num_tokens([s for s in turn.context if s.kind is SegmentKind.PROMPT])


def _states(turn: Turn) -> list[Segment]:
    return [s for s in turn.context if s.kind is SegmentKind.INTERNAL_STATE]


def _turns(trajectory: Trajectory) -> float:
    return float(trajectory.num_turns)


METRICS: Mapping[str, Callable[[Trajectory], float | None]] = {
    "peak_tokens": peak_tokens,
    "peak_tokens_without_prompt": peak_tokens_without_prompt,
    "dependency": dependency,
    "generated_tokens": generated_tokens,
    "prompt_tokens": prompt_tokens,
    "state_tokens": state_tokens,
    "num_turns": _turns,
    "turns_per_objective": turns_per_objective,
    "compressions": compressions,
    "answer_rate": answer_rate,
    "valid_turns": valid_turns,
    "seconds": seconds,
}
"""What `measure` gives besides the scores em, em_strict, f1, f1_strict (sums over objectives), or
reward and its parts where there are no gold answers, and `mem1.evals.memory.MEMORY_METRICS`."""


def measure(trajectory: Trajectory, *, memory: MemoryTrace | None = None) -> dict[str, float]:
    """All figures that one trajectory has, by name. A failed episode scores 0. Args: `memory`, its
    trace if that is known already."""
    figures = {name: metric(trajectory) for name, metric in METRICS.items()}
    memory = memory or trace(trajectory)
    held = {name: metric(memory) for name, metric in MEMORY_METRICS.items()}
    found = {name: value for name, value in (figures | held).items() if value is not None}
    return _scores(trajectory) | found


def _scores(trajectory: Trajectory) -> dict[str, float]:
    """Of the answer; of tasks without gold answers, the reward and its parts."""
    if not any(objective.answers for objective in trajectory.task.objectives):
        return {"reward": trajectory.reward, **trajectory.reward_parts}
    failed = trajectory.stop_reason in FAILURES
    return score_answer(trajectory.task, None if failed else trajectory.answer).parts()


def aggregate(trajectories: Sequence[Trajectory], *, seed: int = 0) -> dict[str, Estimate]:
    """Mean and confidence interval of every figure; one that no trajectory has is left out."""
    return over_tasks(((t.task.id, measure(t)) for t in trajectories), seed=seed)


def survival_curve(trajectories: Sequence[Trajectory], *, seed: int = 0) -> list[Estimate]:
    """Share of facts still held by their age in turns, 0, 1, …: means over tasks that have any of
    that age."""
    rows = ((t.task.id, survival_by_age(trace(t))) for t in trajectories)
    return list(over_tasks(rows, seed=seed).values())


def over_tasks(
    rows: Iterable[tuple[str, Mapping[str, float]]], *, seed: int
) -> dict[str, Estimate]:
    """Estimates of figures, from (task id, {name: value}) of each trajectory.

    The interval is the percentile bootstrap over tasks (Efron 1979): samples of one task are
    averaged first, since they aren't independent.
    """
    by_task: dict[str, dict[str, list[float]]] = {}
    for task_id, figures in rows:
        found = by_task.setdefault(task_id, {})
        for name, value in figures.items():
            found.setdefault(name, []).append(value)
    longest = sorted(by_task.values(), key=len, reverse=True)
    names = list(dict.fromkeys(name for found in longest for name in found))
    if not names:
        return {}
    values = np.array(
        [
            [np.mean(found[name]) if name in found else np.nan for name in names]
            for found in by_task.values()
        ]
    )
    return dict(zip(names, estimates(values, seed=seed), strict=True))


def estimates(values: np.ndarray, *, seed: int) -> list[Estimate]:
    """Estimates of each column of `values`, shape (num_values, num_columns).

    NaN is no value: a mean is over the others, and so is that of each resample; resamples without
    any tell nothing of the interval.
    """
    size, known = len(values), ~np.isnan(values)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(size, np.full(size, 1 / size), size=RESAMPLES)
    sums, sizes = counts @ np.where(known, values, 0.0), counts @ known
    resampled = np.divide(sums, sizes, out=np.full(sums.shape, np.nan), where=sizes > 0)
    return [_estimate(*pair) for pair in zip(values.T, resampled.T, strict=True)]


def _estimate(values: np.ndarray, means: np.ndarray) -> Estimate:
    """Of one column; `means` are those of the resamples."""
    values, means = values[~np.isnan(values)], means[~np.isnan(means)]
    mean, size = float(values.mean()), len(values)
    if size < 2:
        return Estimate(mean=mean, low=None, high=None, num_values=size)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return Estimate(mean=mean, low=float(low), high=float(high), num_values=size)
