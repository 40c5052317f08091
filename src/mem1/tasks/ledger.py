"""A MADE-UP LEDGER -> TASKS whose answers only memory can carry: seeded, endless, without a file.

    LedgerConfig, number -> ledger_task -> Task -> ledger_of -> Ledger
    {name: value} -> write_notes -> an internal state;  text -> read_entries -> [(name, value)]

Names have values, and only a query for a name shows its page. The world is small on purpose: a
few hundred words, so that a policy of a hundred thousand parameters can live in it.
"""

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from mem1.errors import ConfigError, DataError
from mem1.text import STATE_TAG, close_tag, open_tag
from mem1.types import Objective, Task

_SYLLABLES = ("ka", "mi", "lo", "ne", "ru", "ti", "so", "va", "de", "pu")
NAMES = tuple(first + last for first in _SYLLABLES for last in _SYLLABLES if first != last)
_NAMES = frozenset(NAMES)
_LEAST = 100
VALUES = tuple(str(value) for value in range(_LEAST, 300))
"""Three digits: a value is never mistaken for a number of turns."""
MOST_OBJECTIVES = 32
SEARCH = "search"
"""The action that shows a page."""
UNKNOWN = "unknown"
"""What the expert writes where it holds nothing."""
FOUND, NOW, NEXT = "found", "now", "next"
"""The ledger's own words: they open a page, mark an override, lead on."""
MOST, SUM, COUNT = "most", "sum", "count"
"""The first word of a question about a pair of names: what is asked of them."""
_MORE = ("0", "1")
"""What the second page of a count tells: whether one more came."""

Family = Literal["lookup", "chain", "update", "aggregate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerConfig:
    """The dials of a family of tasks, of N objectives each.

    lookup: the values of N names, independent of one another. chain: the page of a name tells the
    next name. update: some pages override the value of an earlier name. aggregate: of each of N
    pairs of names the larger value, the sum of both, or a count: the first page tells how many
    came so far, the second whether one more did. Sums and counts go round, the least value comes
    after the largest: so every value is as likely as any other, and a word of the ledger.
    """

    family: Family = "lookup"
    num_distractors: int = 0
    """Entries on a page that nobody asked for."""
    num_values: int = 100
    """Different values: a guess is right once in so many times. At the larger of two values the
    best guess is right nearly twice as often."""
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {"num_distractors": (0, 16), "num_values": (2, len(VALUES))}
        for name, (least, most) in limits.items():
            if not least <= (value := getattr(self, name)) <= most:
                raise ConfigError(f"ledger {name} is {value}: choose {least} to {most}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What an expert knows of a task.

    >>> Ledger(questions=("kami", "lone"), queries=("kami", "lone"),
    ...        pages={"kami": "found kami 142", "lone": "found lone 117"},
    ...        memory=({}, {"kami": "142"}, {"kami": "142", "lone": "117"}),
    ...        num_values=100).answers
    ('142', '117')
    """

    questions: tuple[str, ...]
    queries: tuple[str, ...]
    """The names to search for, in the expert's order."""
    pages: Mapping[str, str]
    """What a search for a name shows."""
    memory: tuple[Mapping[str, str], ...]
    """The oracle's internal state: what must be held once t pages are read, t = 0 … len(queries).
    The last one holds the answers, in the order of the questions."""
    num_values: int
    """How many different values there are."""

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(self.memory[-1].values())

    @property
    def needed_bits(self) -> tuple[float, ...]:
        """Least information that must survive once t pages are read, t = 0 … len(queries), in
        bits: log2(num_values) for each value held. The prompt tells whose values they are. The
        larger of two counts as much, though large ones are likelier."""
        return tuple(len(held) * math.log2(self.num_values) for held in self.memory)

    @property
    def needed_tokens(self) -> tuple[int, ...]:
        """The same in the reference encoding, `name value`: a token for each word, without tags,
        as the ledger's own tokenizer counts."""
        return tuple(2 * len(held) for held in self.memory)

    def news(self, read: int) -> dict[str, str]:
        """What the page read last, number `read` counted from 1, adds or changes."""
        before = self.memory[read - 1]
        return {n: v for n, v in self.memory[read].items() if before.get(n) != v}

    def pair(self, read: int) -> tuple[str, str, str] | None:
        """Of a page that completes a pair: what is asked, the first name, what the page tells of
        the second. None for other pages."""
        name = self.queries[read - 1]
        for question in self.questions:
            asked, *pair = question.split()
            if pair[1:] == [name]:
                return asked, pair[0], dict(read_entries(self.pages[name]))[name]
        return None

    def noted(self, held: Mapping[str, str], *, read: int) -> dict[str, str]:
        """What somebody who holds `held` holds once page number `read` is read too. Of a pair they
        know no more than follows: without its first value the larger one is that of the second,
        and a sum or count is unknown."""
        if (pair := self.pair(read)) is None:
            return {**held, **self.news(read)}
        asked, first, told = pair
        if first in held:
            told = combined(asked, held[first], told, num_values=self.num_values)
        elif asked != MOST:
            return dict(held)
        return {**held, first: told}


def ledger_tasks(
    config: LedgerConfig, *, num_objectives: int, count: int, start: int = 0
) -> list[Task]:
    """Tasks `start` … `start + count - 1` of an endless row.

    Raises: ConfigError for more objectives than there are names.
    """
    return [
        ledger_task(config, num_objectives=num_objectives, number=number)
        for number in range(start, start + count)
    ]


def ledger_task(config: LedgerConfig, *, num_objectives: int, number: int) -> Task:
    """The task of a number: the same one whenever and wherever it's asked for.

    Raises: ConfigError for more objectives than there are names.
    """
    if not 1 <= num_objectives <= MOST_OBJECTIVES:
        raise ConfigError(
            f"ledger num_objectives is {num_objectives}: choose 1 to {MOST_OBJECTIVES}"
        )
    dials = (
        f"{config.family}-n{num_objectives}-d{config.num_distractors}"
        f"-v{config.num_values}-s{config.seed}"
    )
    rng = random.Random(f"ledger/{dials}/{number}")
    ledger = _FAMILIES[config.family](config, num_objectives, rng)
    return Task(
        id=f"{dials}-{number:06d}",
        objectives=tuple(
            Objective(question=question, answers=(answer,))
            for question, answer in zip(ledger.questions, ledger.answers, strict=True)
        ),
        source=f"ledger/{config.family}",
        metadata={
            "num_values": ledger.num_values,
            "queries": list(ledger.queries),
            "pages": dict(ledger.pages),
            "memory": [dict(held) for held in ledger.memory],
        },
    )


_KNOWN = frozenset({"queries", "pages", "memory", "num_values"})


def is_ledger(task: Task) -> bool:
    """Whether it's a task of the ledger."""
    return set(task.metadata) >= _KNOWN


def ledger_of(task: Task) -> Ledger:
    """What an expert knows of a task. Raises: DataError if it's not a task of the ledger."""
    known: Mapping[str, Any] = task.metadata
    if missing := _KNOWN - set(known):
        raise DataError(
            f"task {task.id!r} is not of the ledger: its metadata lack {', '.join(sorted(missing))}"
        )
    return Ledger(
        questions=tuple(objective.question for objective in task.objectives),
        queries=tuple(known["queries"]),
        pages=known["pages"],
        memory=tuple(known["memory"]),
        num_values=known["num_values"],
    )


def combined(asked: str, first: str, second: str, *, num_values: int) -> str:
    """The answer of a pair.

    >>> combined(SUM, "142", "134", num_values=70), combined(COUNT, "169", "1", num_values=70)
    ('106', '100')
    """
    if asked == MOST:
        return max(first, second, key=int)
    more = int(second) - (_LEAST if asked == SUM else 0)
    return str(_LEAST + (int(first) - _LEAST + more) % num_values)


def _lookup(config: LedgerConfig, size: int, rng: random.Random) -> Ledger:
    pages, entries = _book(config, rng, choices=[VALUES[: config.num_values]] * size)
    return Ledger(
        questions=tuple(entries),
        queries=tuple(entries),
        pages=pages,
        memory=tuple(dict(list(entries.items())[:read]) for read in range(len(entries) + 1)),
        num_values=config.num_values,
    )


def _chain(config: LedgerConfig, size: int, rng: random.Random) -> Ledger:
    ledger = _lookup(config, size, rng)
    names, pages = ledger.queries, dict(ledger.pages)
    for name, after in pairwise(names):
        pages[name] += f" {NEXT} {after}"
    return replace(ledger, questions=(names[0], *[NEXT] * (len(names) - 1)), pages=pages)


def _update(config: LedgerConfig, size: int, rng: random.Random) -> Ledger:
    """Every other page overrides an earlier name, each name at most once: in whatever order the
    pages are read, what is marked as new holds."""
    ledger = _lookup(config, size, rng)
    pages, memory = dict(ledger.pages), [dict[str, str]()]
    overridden: set[str] = set()
    for read, name in enumerate(ledger.queries):
        held = {**memory[-1], name: ledger.memory[-1][name]}
        if read % 2:
            old = rng.choice([n for n in ledger.queries[:read] if n not in overridden])
            overridden.add(old)
            held[old] = draw_value(rng, config.num_values, but=held[old])
            pages[name] += f" {NOW} {old} {held[old]}"
        memory.append(held)
    return replace(ledger, pages=pages, memory=tuple(memory))


def _aggregate(config: LedgerConfig, size: int, rng: random.Random) -> Ledger:
    """What is known of a pair is kept under its first name: one number for two pages."""
    values = VALUES[: config.num_values]
    asked = [rng.choice((MOST, SUM, COUNT)) for _ in range(size)]
    choices = [words for it in asked for words in (values, _MORE if it == COUNT else values)]
    pages, entries = _book(config, rng, choices=choices)
    names = tuple(entries)
    pairs = tuple(zip(asked, names[::2], names[1::2], strict=True))
    memory = [dict[str, str]()]
    for it, first, second in pairs:
        answer = combined(it, entries[first], entries[second], num_values=config.num_values)
        memory += [{**memory[-1], first: value} for value in (entries[first], answer)]
    return Ledger(
        questions=tuple(" ".join(pair) for pair in pairs),
        queries=names,
        pages=pages,
        memory=tuple(memory),
        num_values=config.num_values,
    )


_FAMILIES: Mapping[Family, Callable[[LedgerConfig, int, random.Random], Ledger]] = {
    "lookup": _lookup,
    "chain": _chain,
    "update": _update,
    "aggregate": _aggregate,
}


def _book(
    config: LedgerConfig, rng: random.Random, *, choices: Sequence[Sequence[str]]
) -> tuple[dict[str, str], dict[str, str]]:
    """Pages and values of a name for each of `choices`, what its value is drawn from. Each entry
    stands among distractors, of names that nobody asks for."""
    shuffled = rng.sample(NAMES, len(NAMES))
    pages: dict[str, str] = {}
    values: dict[str, str] = {}
    for name, words in zip(shuffled, choices, strict=False):
        values[name] = rng.choice(words)
        entries = [f"{name} {values[name]}"]
        for other in rng.sample(shuffled[len(choices) :], config.num_distractors):
            entries.insert(
                rng.randint(0, len(entries)), f"{other} {draw_value(rng, config.num_values)}"
            )
        pages[name] = " ".join([FOUND, *entries])
    return pages, values


def draw_value(rng: random.Random, num_values: int, *, but: str = "") -> str:
    """Any value, each as likely, except `but`."""
    return rng.choice([value for value in VALUES[:num_values] if value != but])


def write_notes(held: Mapping[str, str], *, query: str | None = None) -> str:
    """An internal state in the reference encoding: the entries, then the name searched for.

    >>> write_notes({"kami": "142"}, query="lone")
    '<think> kami 142 lone</think>'
    """
    words = [word for entry in held.items() for word in entry] + ([query] if query else [])
    notes = "".join(f" {word}" for word in words or (UNKNOWN,))
    return f"{open_tag(STATE_TAG)}{notes}{close_tag(STATE_TAG)}"


def read_entries(text: str) -> list[tuple[str, str]]:
    """Every name of the ledger with the number that follows it before another name, in order.

    >>> read_entries("kami is 142; lone soru = 117")
    [('kami', '142'), ('soru', '117')]
    """
    entries: list[tuple[str, str]] = []
    name = None
    for word in re.findall(r"[a-z]+|[0-9]+", text.lower()):
        if word in _NAMES:
            name = word
        elif word.isdigit() and name:
            entries.append((name, word))
            name = None
    return entries
