"""A TASK -> THE FACTS its answers hang on, and what a text says of them.

    Task -> facts_of -> Facts;  an observation -> Facts.told -> the facts it tells
                                notes          -> Facts.said -> the facts they have right, and wrong

A ledger task knows its facts: the entries of its oracle's memory, and the second values of its
sums and counts. Of any other task with gold answers the facts are these answers. Facts are meant
by their number in `rows`.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mem1.tasks.ledger import COUNT, MOST, SUM, Ledger, is_ledger, ledger_of, read_entries
from mem1.text import normalise_answer
from mem1.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something to remember.

    >>> Fact(key="kami", values=("142",), objective=0, page="kami").values
    ('142',)
    """

    key: str
    """What it's about: a name of the ledger, or the question."""
    values: tuple[str, ...]
    """Any of them says it."""
    objective: int
    """Number of the objective it serves, counted from 0."""
    page: str | None
    """The query that shows it; None: whatever observation tells it."""
    supersedes: frozenset[int] = frozenset()
    """Facts before it that no longer count once it's known."""
    is_sum: bool = False
    """It's known once all that it supersedes are: no page tells it."""


class Facts(Protocol):
    """The facts of a task, in the order in which an expert finds them."""

    @property
    def rows(self) -> tuple[Fact, ...]: ...

    @property
    def bits(self) -> float | None:
        """Information in one fact; None if nobody knows, since its values are not drawn by us."""
        ...

    def told(self, observation: str) -> set[int]:
        """The facts that an observation tells."""
        ...

    def said(self, notes: str) -> dict[int, bool]:
        """What notes say of facts: True where they hold it, False where they give its key a value
        that it never had; facts of which they say nothing are left out."""
        ...


def facts_of(task: Task) -> Facts:
    """The facts of a task: those of the ledger, or else its gold answers."""
    return LedgerFacts.of(ledger_of(task)) if is_ledger(task) else AnswerFacts.of(task)


def inferred(rows: Sequence[Fact], told: Iterable[int]) -> set[int]:
    """What is known of these facts: they, and the sums that follow from them."""
    known = set(told)
    sums = {number for number, row in enumerate(rows) if row.is_sum and row.supersedes <= known}
    return known | sums


def newest(rows: Sequence[Fact], told: Iterable[int]) -> dict[int, int]:
    """Of each objective, the fact that counts once these are told."""
    return {rows[number].objective: number for number in sorted(inferred(rows, told))}


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFacts:
    """`Facts` of a ledger task: (name, value) as the oracle remembers them."""

    rows: tuple[Fact, ...]
    entries: tuple[tuple[str, str], ...]
    """How a page tells each fact: of a pair's maximum, under the name of the page. No page tells
    a sum."""
    known: Mapping[str, frozenset[str]]
    """By key, all values that it ever has, and both of a pair's of which the larger is asked:
    notes with another one are wrong."""
    bits: float

    @classmethod
    def of(cls, ledger: Ledger) -> "LedgerFacts":
        keys = list(ledger.memory[-1])
        pages = {name: read_entries(page) for name, page in ledger.pages.items()}
        rows: list[Fact] = []
        entries: list[tuple[str, str]] = []
        for read, page in enumerate(ledger.queries, start=1):
            asked, _, second = ledger.pair(read) or ("", "", "")
            is_sum = asked in (SUM, COUNT)
            for key, value in ledger.news(read).items():
                entry, objective = (key, value), keys.index(key)
                if is_sum:
                    rows.append(Fact(key=page, values=(second,), objective=objective, page=page))
                    entries.append((page, second))
                earlier = frozenset(n for n, row in enumerate(rows) if row.objective == objective)
                fact = Fact(key=key, values=(value,), objective=objective, page=page)
                rows.append(replace(fact, supersedes=earlier, is_sum=is_sum))
                entries.append(entry if is_sum or entry in pages[page] else (page, value))
        known: dict[str, set[str]] = {row.key: set() for row in rows}
        for row in rows:
            known[row.key].update(row.values)
        for key, question in zip(keys, ledger.questions, strict=True):
            asked, *pair = question.split()
            if asked == MOST:
                known[key].update(v for name in pair for told, v in pages[name] if told == name)
        return cls(
            rows=tuple(rows),
            entries=tuple(entries),
            known={key: frozenset(values) for key, values in known.items()},
            bits=math.log2(ledger.num_values),
        )

    def told(self, observation: str) -> set[int]:
        told = set(read_entries(observation))
        return {number for number, entry in enumerate(self.entries) if entry in told}

    def said(self, notes: str) -> dict[int, bool]:
        held = dict(read_entries(notes))
        said: dict[int, bool] = {}
        for number, row in enumerate(self.rows):
            value = held.get(row.key)
            if value in row.values:
                said[number] = True
            elif value is not None and value not in self.known[row.key]:
                said[number] = False
        return said


_TAG = re.compile(r"<[^<>]*>")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFacts:
    """`Facts` of questions: a text says an answer if it holds its words, in normal form
    (`mem1.text.normalise_answer`), one after the other. It can't say it wrongly."""

    rows: tuple[Fact, ...]
    bits: None = None

    @classmethod
    def of(cls, task: Task) -> "AnswerFacts":
        rows: list[Fact] = []
        for number, objective in enumerate(task.objectives):
            normal = dict.fromkeys(map(normalise_answer, objective.answers))
            if values := tuple(value for value in normal if value):
                rows.append(
                    Fact(key=objective.question, values=values, objective=number, page=None)
                )
        return cls(rows=tuple(rows))

    def told(self, observation: str) -> set[int]:
        words = f" {normalise_answer(_TAG.sub(' ', observation))} "
        return {
            number
            for number, row in enumerate(self.rows)
            if any(f" {value} " in words for value in row.values)
        }

    def said(self, notes: str) -> dict[int, bool]:
        return dict.fromkeys(self.told(notes), True)
