"""A TRAJECTORY -> WHAT ITS MEMORY HELD: facts x turns, and figures of it. Pure.

    Trajectory -> trace -> MemoryTrace: of each fact and turn a Mark
    MemoryTrace -> MEMORY_METRICS -> {metric: value}, survival_by_age -> {age: value}

The state of turn t is written after the observation of turn t - 1 was seen and before that of turn
t: a fact counts as seen from the first turn on whose context shows it in an observation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from mem1.rewards.answer import exact_match, split_answer
from mem1.tasks.facts import Fact, Facts, facts_of, inferred
from mem1.text import ANSWER_TAG, parse_reply
from mem1.types import Context, Fault, SegmentKind, Task, Trajectory, Turn


class Mark(StrEnum):
    """What became of a fact by the internal state of a turn."""

    UNSEEN = "unseen"
    INVENTED = "invented"
    """The state says it, or another value in its place, though no observation told it."""
    MISSED = "missed"
    """Seen, and never held so far."""
    HELD = "held"
    CORRUPTED = "corrupted"
    """Seen, and the state gives another value in its place, one that it never had."""
    LOST = "lost"
    """Held at an earlier turn, not now."""
    STALE = "stale"
    """The state says it though a newer fact has superseded it."""
    SUPERSEDED = "superseded"
    """A newer fact has superseded it, and the state no longer says it."""


NEEDED = frozenset({Mark.MISSED, Mark.HELD, Mark.CORRUPTED, Mark.LOST})
"""Marks of facts that were seen and still count: a perfect memory would hold them."""
GONE = frozenset({Mark.STALE, Mark.SUPERSEDED})


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryTrace:
    """What became of each fact at each turn; F facts, T turns."""

    facts: tuple[Fact, ...]
    """Shape (F,)."""
    marks: tuple[tuple[Mark, ...], ...]
    """Shape (F, T)."""
    used: tuple[bool, ...]
    """Whether the final answer gives the fact in its objective's place, shape (F,)."""
    redundant: tuple[bool | None, ...]
    """Shape (T,): whether the turn asks a tool for what it need not; None: it asks no tool."""
    bits: float | None
    """Information in one fact; None where nobody knows (gold answers)."""

    def count(self, *marks: Mark) -> int:
        """Facts and turns with one of these marks."""
        return sum(mark in marks for row in self.marks for mark in row)


def trace(trajectory: Trajectory) -> MemoryTrace:
    """Follow each fact of the task through the internal states of an episode."""
    facts, turns = facts_of(trajectory.task), trajectory.turns
    states = internal_states(turns)
    columns = _columns(facts, turns=turns, states=states)
    return MemoryTrace(
        facts=facts.rows,
        marks=tuple(
            tuple(column[number] for column in columns) for number in range(len(facts.rows))
        ),
        used=_used(facts.rows, task=trajectory.task, answer=trajectory.answer),
        redundant=_redundant(facts, turns=turns, columns=columns),
        bits=facts.bits,
    )


def internal_states(turns: Sequence[Turn]) -> list[str]:
    """What the agent carried over from each turn, tags included; "" for nothing.

    It's the state in the next context, or what a reply thinks if whole replies are kept. The last
    turn has no next one: it's what the reply thinks, or the state it saw if it thinks nothing or if
    the policy doesn't keep what replies think.
    """
    carried = [
        _kept_state(after.context) or (_thought(turn) if _keeps_reply(after, number) else "")
        for number, (turn, after) in enumerate(pairwise(turns), start=1)
    ]
    dropped = any(
        _thought(turn) not in state
        for turn, state in zip(turns[:-1], carried, strict=True)
        if Fault.STATE_OVERSIZE not in turn.faults
    )
    for last in turns[-1:]:
        thought = "" if dropped else _thought(last)
        carried.append(thought or _kept_state(last.context))
    return carried


def _kept_state(context: Context) -> str:
    return "".join(s.text for s in context if s.kind is SegmentKind.INTERNAL_STATE)


def _keeps_reply(after: Turn, number: int) -> bool:
    return any(s.kind is SegmentKind.REPLY and s.turn == number for s in after.context)


def _thought(turn: Turn) -> str:
    span = parse_reply(turn.completion.text, actions=()).state_span
    return turn.completion.text[slice(*span)] if span else ""


def _columns(
    facts: Facts, *, turns: Sequence[Turn], states: Sequence[str]
) -> list[tuple[Mark, ...]]:
    """The marks of all facts, turn by turn; shape (T, F)."""
    columns: list[tuple[Mark, ...]] = []
    seen, once = set[int](), set[int]()
    read: set[int] = set()
    for turn, state in zip(turns, states, strict=True):
        shown = [s for s in turn.context if s.kind is SegmentKind.OBSERVATION]
        seen = seen.union(*(facts.told(s.text) for s in shown if s.turn not in read))
        seen = inferred(facts.rows, seen)
        read |= {s.turn for s in shown}
        said, keys = facts.said(state), {facts.rows[number].key for number in seen}
        gone = {old for number in seen for old in facts.rows[number].supersedes}
        column = tuple(
            _mark(
                said.get(number),
                gone=number in gone,
                seen=number in seen,
                known=fact.key in keys,
                was_held=number in once,
            )
            for number, fact in enumerate(facts.rows)
        )
        once |= {number for number, mark in enumerate(column) if mark is Mark.HELD}
        columns.append(column)
    return columns


def _mark(said: bool | None, *, gone: bool, seen: bool, known: bool, was_held: bool) -> Mark:
    """Args: `said`, whether the state says the fact, or False for a value it never had; `gone`,
    whether a newer one has superseded it; `known`, whether any fact of its key was seen."""
    if gone:
        return Mark.STALE if said else Mark.SUPERSEDED
    if not seen:
        # A wrong value in place of what was seen is corrupted, not another invention.
        made_up = said or (said is False and not known)
        return Mark.INVENTED if made_up else Mark.UNSEEN
    if said is None:
        return Mark.LOST if was_held else Mark.MISSED
    return Mark.HELD if said else Mark.CORRUPTED


def _used(facts: Sequence[Fact], *, task: Task, answer: str | None) -> tuple[bool, ...]:
    parts = split_answer(answer, task) if answer is not None else ()
    return tuple(
        fact.objective < len(parts) and bool(exact_match(parts[fact.objective], fact.values))
        for fact in facts
    )


def _redundant(
    facts: Facts, *, turns: Sequence[Turn], columns: Sequence[Sequence[Mark]]
) -> tuple[bool | None, ...]:
    """A query is redundant if an earlier turn asked the same, or if its page shows only what the
    state holds or what is superseded."""
    asked: set[tuple[str, str]] = set()
    found: list[bool | None] = []
    for turn, column in zip(turns, columns, strict=True):
        if turn.action is None or turn.action.name == ANSWER_TAG:
            found.append(None)
            continue
        query = turn.action.name, " ".join(turn.action.argument.lower().split())
        shown = {m for f, m in zip(facts.rows, column, strict=True) if f.page == query[1]}
        found.append(query in asked or (bool(shown) and shown <= {Mark.HELD, *GONE}))
        asked.add(query)
    return tuple(found)


def survival(memory: MemoryTrace) -> float | None:
    """P(held at turn t + 1 | held at turn t), of facts that are not superseded meanwhile. None if
    nothing was held before the last turn."""
    after = [
        later
        for row in memory.marks
        for mark, later in pairwise(row)
        if mark is Mark.HELD and later not in GONE
    ]
    return _share(after.count(Mark.HELD), len(after))


def held(memory: MemoryTrace) -> float | None:
    """Bits held / bits needed, over all turns: all facts of a task hold equally many. None if
    nothing was seen."""
    return _share(memory.count(Mark.HELD), memory.count(*NEEDED))


def corruption(memory: MemoryTrace) -> float | None:
    """Share of what is needed, over facts and turns, that the state has wrong. None if nothing was
    seen, and for gold answers, which no state can be said to have wrong."""
    if memory.bits is None:
        return None
    return _share(memory.count(Mark.CORRUPTED), memory.count(*NEEDED))


def invention(memory: MemoryTrace) -> float | None:
    """Share of what is unseen, over facts and turns, that the state gives a value all the same."""
    invented = memory.count(Mark.INVENTED)
    return _share(invented, invented + memory.count(Mark.UNSEEN))


def redundancy(memory: MemoryTrace) -> float | None:
    """Share of queries that an earlier turn asked, or that show only what the state holds. None
    without queries."""
    queries = [redundant for redundant in memory.redundant if redundant is not None]
    return _share(sum(queries), len(queries))


def bits_needed(memory: MemoryTrace) -> float | None:
    """Most bits that a perfect memory would hold at one turn; None for gold answers."""
    return _most_bits(memory, NEEDED)


def bits_held(memory: MemoryTrace) -> float | None:
    """Most bits held at one turn; None for gold answers."""
    return _most_bits(memory, frozenset({Mark.HELD}))


def _most_bits(memory: MemoryTrace, marks: frozenset[Mark]) -> float | None:
    if memory.bits is None:
        return None
    columns = zip(*memory.marks, strict=True)
    return memory.bits * max((sum(m in marks for m in column) for column in columns), default=0)


MEMORY_METRICS: Mapping[str, Callable[[MemoryTrace], float | None]] = {
    "survival": survival,
    "held": held,
    "corruption": corruption,
    "invention": invention,
    "redundancy": redundancy,
    "bits_needed": bits_needed,
    "bits_held": bits_held,
}
"""What `mem1.evals.metrics.measure` gives of a trace, where it's defined."""


def survival_by_age(memory: MemoryTrace) -> dict[str, float]:
    """By age, the turns since a fact was first held: the share of facts of that age that are held.

    A fact has an age as long as the episode lasts and nothing supersedes it.
    """
    by_age: dict[str, list[bool]] = {}
    for row in memory.marks:
        first = row.index(Mark.HELD) if Mark.HELD in row else len(row)
        for age, mark in enumerate(row[first:]):
            if mark not in GONE:
                by_age.setdefault(str(age), []).append(mark is Mark.HELD)
    return {age: sum(marks) / len(marks) for age, marks in by_age.items()}


def half_life(survival: float) -> float | None:
    """Turns after which half of the facts are left, if this share survives each turn: ln ½ / ln s.
    None if none is lost."""
    if survival >= 1:
        return None
    return math.log(0.5) / math.log(survival) if survival > 0 else 0.0


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
