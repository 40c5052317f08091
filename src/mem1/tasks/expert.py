"""A LEDGER'S TASK -> WHAT AN EXPERT SAYS, with failings as dialled: demonstrations to learn from.

Task, Imperfections, a seeded rng -> demonstrate -> the replies of an episode
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields

from mem1.errors import ConfigError
from mem1.tasks.ledger import SEARCH, UNKNOWN, draw_value, ledger_of, write_notes
from mem1.text import ANSWER_TAG, STATE_TAG, close_tag, open_tag
from mem1.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Imperfections:
    """Failings of an expert, each a probability: demonstrations from which one learns the form,
    and leaves something to learn from rewards."""

    forget: float = 0.0
    """Of dropping an entry, each time the notes are rewritten."""
    corrupt: float = 0.0
    """Of changing an entry's value, likewise."""
    redundant: float = 0.0
    """Of searching again for what the notes hold, if turns are to spare."""
    early_answer: float = 0.0
    """Of answering before all is read: of an episode, whatever its length."""
    format_slip: float = 0.0
    """Of leaving the notes unclosed: they are lost, the action counts."""
    flawless: float = 0.0
    """Of an episode without any of these."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 <= (value := getattr(self, field.name)) <= 1:
                raise ConfigError(f"{field.name} is {value}: a probability is from 0 to 1")


PERFECT = Imperfections()


def demonstrate(
    task: Task, *, max_turns: int, rng: random.Random, faults: Imperfections = PERFECT
) -> list[str]:
    """The replies of an expert: `<think> kami 142 lone</think><search> lone</search>`, and so on.

    The notes hold every entry, then the name to search for. The expert knows only what it has
    read and kept: what it lost it answers as unknown.

    Raises: DataError if it's not a task of the ledger.
    """
    ledger = ledger_of(task)
    faults = PERFECT if rng.random() < faults.flawless else faults
    replies: list[str] = []
    held: dict[str, str] = {}
    early = 1 - (1 - faults.early_answer) ** (1 / len(ledger.queries))
    read, fresh = 0, False
    for turns_left in range(max_turns, 0, -1):
        known = ledger.noted(held, read=read) if fresh else held
        notes = _worn(known, rng=rng, faults=faults, num_values=ledger.num_values)
        owed = ledger.queries[read:]
        if not owed or turns_left == 1 or rng.random() < early:
            answers = "; ".join(notes.get(name, UNKNOWN) for name in ledger.memory[-1])
            return [*replies, write_notes(notes) + _act(ANSWER_TAG, answers)]
        spare = turns_left > len(owed) + 1
        fresh = not (notes and spare and rng.random() < faults.redundant)
        query = owed[0] if fresh else rng.choice(list(notes))
        reply = write_notes(notes, query=owed[0]) + _act(SEARCH, query)
        read += fresh
        if fresh and rng.random() < faults.format_slip:
            reply = reply.replace(close_tag(STATE_TAG), "")
        else:
            held = notes
        replies.append(reply)
    return replies


def _worn(
    notes: Mapping[str, str], *, rng: random.Random, faults: Imperfections, num_values: int
) -> dict[str, str]:
    """Notes as an imperfect expert copies them."""
    return {
        name: draw_value(rng, num_values, but=value) if rng.random() < faults.corrupt else value
        for name, value in notes.items()
        if rng.random() >= faults.forget
    }


def _act(action: str, argument: str) -> str:
    return f"{open_tag(action)} {argument}{close_tag(action)}"
