"""Answers against gold answers: exact match and F1, per objective.

    "a1; a2; …" -> split_answer -> parts -> score_answer -> AnswerScore -> reward

Everything is compared in one normal form (`mem1.text.normalise_answer`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from mem1.rewards.base import RewardOutput
from mem1.text import normalise_answer
from mem1.types import Task, Turn

SEPARATOR = ";"


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction equals one of the answers in normal form, else 0. Source: SQuAD v1.1."""
    normal = normalise_answer(prediction)
    return float(bool(normal) and any(normal == normalise_answer(answer) for answer in answers))


def f1(prediction: str, answers: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over normalised words, counted with multiplicity; the
    best over the answers. Source: SQuAD v1.1."""
    normal = normalise_answer(prediction)
    return max((_f1(normal, answer) for answer in answers), default=0.0)


def _f1(prediction: str, answer: str) -> float:
    predicted, gold = prediction.split(), normalise_answer(answer).split()
    common = sum((Counter(predicted) & Counter(gold)).values())
    return 2 * common / (len(predicted) + len(gold)) if common else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerScore:
    """Figures per objective, shape (num_objectives,), lenient: a missing part scores 0, parts
    beyond the last objective are ignored."""

    exact_match: tuple[float, ...]
    f1: tuple[float, ...]
    well_formed: bool
    """Whether the answer has one part per objective. Strict scoring gives 0 for all if not."""

    def parts(self) -> dict[str, float]:
        """Sums over the objectives, lenient and strict."""
        em, overlap, strict = sum(self.exact_match), sum(self.f1), float(self.well_formed)
        return {"em": em, "em_strict": em * strict, "f1": overlap, "f1_strict": overlap * strict}


def score_answer(task: Task, answer: str | None) -> AnswerScore:
    """Score an answer text, its parts in the order of the objectives.

    None (no answer action) scores 0 everywhere.
    """
    num_objectives = len(task.objectives)
    given = split_answer(answer, task) if answer is not None else ()
    parts = [*given, *[""] * num_objectives][:num_objectives]
    pairs = list(zip(parts, task.objectives, strict=True))
    matches = tuple(exact_match(part, objective.answers) for part, objective in pairs)
    return AnswerScore(
        exact_match=matches,
        f1=tuple(
            match or f1(part, objective.answers)
            for match, (part, objective) in zip(matches, pairs, strict=True)
        ),
        well_formed=len(given) == num_objectives,
    )


def split_answer(answer: str, task: Task) -> tuple[str, ...]:
    """Cut an answer at its semicolons into one part per objective.

    An objective whose gold answers hold m semicolons may take m + 1 pieces as one part. Of the
    ways to do so, one that fits the number of objectives comes first, then the one with the most
    exact matches, then the highest F1.
    """
    pieces = [piece.strip() for piece in answer.split(SEPARATOR)]
    if pieces and not pieces[-1]:
        pieces.pop()
    objectives = task.objectives
    if not any(SEPARATOR in gold for objective in objectives for gold in objective.answers):
        return tuple(pieces)

    @cache
    def best(piece: int, objective: int) -> tuple[tuple[float, float, float], tuple[str, ...]]:
        if piece == len(pieces) or objective == len(objectives):
            rest = pieces[piece:]
            fits = not rest and objective == len(objectives)
            return (float(fits), 0.0, 0.0), tuple(rest)
        answers = objectives[objective].answers
        options: list[tuple[tuple[float, float, float], tuple[str, ...]]] = []
        for width in sorted({1, *(1 + gold.count(SEPARATOR) for gold in answers)}):
            if piece + width > len(pieces):
                continue
            part = f"{SEPARATOR} ".join(pieces[piece : piece + width])
            (fits, matches, overlap), tail = best(piece + width, objective + 1)
            score = (fits, matches + exact_match(part, answers), overlap + f1(part, answers))
            options.append((score, (part, *tail)))
        return max(options, key=lambda option: option[0])

    return best(0, 0)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactMatchReward:
    """Number of objectives answered exactly. Source: MEM1, arXiv 2506.15841 (order matters, a
    missing part scores 0); strict figures are reported beside it."""

    def __call__(self, task: Task, *, answer: str | None, turns: Sequence[Turn]) -> RewardOutput:
        parts = score_answer(task, answer).parts()
        return RewardOutput(total=parts["em"], parts=parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class F1Reward:
    """Sum of F1 over the objectives: MEM1's reward on the open web."""

    def __call__(self, task: Task, *, answer: str | None, turns: Sequence[Turn]) -> RewardOutput:
        parts = score_answer(task, answer).parts()
        return RewardOutput(total=parts["f1"], parts=parts)
