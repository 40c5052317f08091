"""A control: the internal state is replaced by a perfect one, so that what fails is the acting.

    Oracle -> of(task, renderer) -> OracleOfTask
    its state, what the context shows, the query -> OracleOfTask.update -> its next state

The oracle knows only what the contexts showed, but of that exactly what the task needs.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mem1.chat import Renderer, text_segment
from mem1.context.base import Budget, Parts
from mem1.context.internal_state import InternalState
from mem1.errors import BudgetError, ConfigError
from mem1.tasks.facts import Facts, facts_of, newest
from mem1.tasks.ledger import SEARCH, UNKNOWN, is_ledger, ledger_of
from mem1.text import STATE_TAG, close_tag, neutralise, open_tag, parse_reply
from mem1.types import Context, Segment, SegmentKind, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """`internal_state` with the oracle's state; what it is of one task, `of` tells."""

    def bound(self, budget: Budget) -> int:
        return InternalState().bound(budget)

    def update(self, context: Context, parts: Parts) -> Context:
        raise ConfigError("context policy oracle: each task has its own, made by Agent.for_task")

    def of(self, task: Task, *, renderer: Renderer, budget: Budget) -> "OracleOfTask":
        """The policy of one task.

        Raises: BudgetError if its largest state is over the cap on internal states.
        """
        policy = _of_ledger(task, renderer) if is_ledger(task) else _of_answers(task, renderer)
        if (largest := policy.largest()) > budget.internal_state:
            raise BudgetError(
                f"context policy oracle: its state of task {task.id!r} takes up to {largest} "
                f"tokens, and budget.internal_state is {budget.internal_state}: raise it to "
                f"{largest}, or leave the oracle out"
            )
        return policy

    def __str__(self) -> str:
        return "oracle"


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleOfTask:
    """The oracle of one task."""

    facts: Facts
    entries: tuple[str, ...]
    """How the state says each fact, without blanks around it; shape (num_facts,)."""
    blank: str
    """What stands before each entry."""
    queries: frozenset[str]
    """Those that the state repeats, as the ledger's expert does."""
    renderer: Renderer

    def bound(self, budget: Budget) -> int:
        return InternalState().bound(budget)

    def update(self, context: Context, parts: Parts) -> Context:
        state = text_segment(
            self.renderer,
            self._write(self._known(context), query=self._query(parts.action)),
            kind=SegmentKind.INTERNAL_STATE,
            turn=parts.reply.turn,
        )
        return InternalState().update(context, replace(parts, internal_state=state))

    def largest(self) -> int:
        """Tokens of its longest state: the longest entry of each objective, and each query."""
        numbers = sorted(
            range(len(self.entries)), key=lambda number: self._size(self.entries[number])
        )
        longest = {self.facts.rows[number].objective: number for number in numbers}.values()
        queries = (None, *sorted(self.queries))
        return max(self._size(self._write(longest, query=query)) for query in queries)

    def _size(self, text: str) -> int:
        return len(self.renderer.encode(text))

    def _known(self, context: Context) -> Iterable[int]:
        """The facts that count after what a context shows, its state included."""
        state = _text(context, SegmentKind.INTERNAL_STATE).replace(close_tag(STATE_TAG), self.blank)
        held = {
            number
            for number, entry in enumerate(self.entries)
            if f"{self.blank}{entry}{self.blank}" in state
        }
        told = self.facts.told(_text(context, SegmentKind.OBSERVATION))
        return newest(self.facts.rows, held | told).values()

    def _write(self, numbers: Iterable[int], *, query: str | None) -> str:
        words = [self.entries[number] for number in numbers] + ([query] if query else [])
        notes = "".join(f"{self.blank}{word}" for word in words or (UNKNOWN,))
        return f"{open_tag(STATE_TAG)}{notes}{close_tag(STATE_TAG)}"

    def _query(self, action: Segment | None) -> str | None:
        asked = parse_reply(action.text, actions=(SEARCH,)).action if action else None
        return asked.argument if asked and asked.argument in self.queries else None

    def __str__(self) -> str:
        return "oracle"


def _of_ledger(task: Task, renderer: Renderer) -> OracleOfTask:
    """Its states are those of the perfect expert (`mem1.tasks.ledger.write_notes`)."""
    facts = facts_of(task)
    return OracleOfTask(
        facts=facts,
        entries=tuple(f"{fact.key} {fact.values[0]}" for fact in facts.rows),
        blank=" ",
        queries=frozenset(ledger_of(task).pages),
        renderer=renderer,
    )


def _of_answers(task: Task, renderer: Renderer) -> OracleOfTask:
    """Its states are lines `question: answer`."""
    facts = facts_of(task)
    golds = [task.objectives[fact.objective].answers[0] for fact in facts.rows]
    lines = [f"{fact.key}: {gold}" for fact, gold in zip(facts.rows, golds, strict=True)]
    return OracleOfTask(
        facts=facts,
        entries=tuple(" ".join(neutralise(line).split()) for line in lines),
        blank="\n",
        queries=frozenset(),
        renderer=renderer,
    )


def _text(context: Context, kind: SegmentKind) -> str:
    return "".join(segment.text for segment in context if segment.kind is kind)
