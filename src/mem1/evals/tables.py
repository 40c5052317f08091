"""Cells -> Markdown: columns of figures, each with its interval, and what a reader has to know."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mem1.evals.cells import Cell
from mem1.evals.memory import half_life

SMALL = 100
"""Fewer tasks than this in a cell and the report warns of it."""


def _itself(value: float, _num_objectives: int) -> float:
    return value


def per_objective(value: float, num_objectives: int) -> float:
    return value / num_objectives


def _half_life(survival: float, _num_objectives: int) -> float | None:
    return half_life(survival)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A figure of each cell."""

    metric: str
    """A name of `mem1.evals.metrics`."""
    title: str
    decimals: int
    of: Callable[[float, int], float | None] = _itself
    """What is shown of the metric and N: a monotone function, so that it holds for the ends of the
    interval too; None is shown as ∞."""


MEMORY_COLUMNS: Sequence[Column] = (
    Column(metric="held", title="held", decimals=2),
    Column(metric="survival", title="survival", decimals=3),
    Column(metric="survival", title="half-life", decimals=1, of=_half_life),
    Column(metric="corruption", title="corrupted", decimals=3),
    Column(metric="invention", title="invented", decimals=3),
    Column(metric="bits_held", title="bits held", decimals=1),
    Column(metric="bits_needed", title="bits needed", decimals=1),
    Column(metric="redundancy", title="redundant", decimals=2),
    Column(metric="compressions", title="compressions", decimals=1),
)

MEMORY_LEGEND = """\
Facts are what observations told: the ledger's entries, or gold answers. Held: share of the facts \
seen and still valid that the internal state holds, over turns. Survival: of the facts held at a \
turn, those held at the next; half-life, in turns, follows from it (∞: none was lost). Corrupted: \
seen, and given a wrong value; invented: unseen, and given a value all the same. Bits: most at \
one turn. Redundant: queries that were asked before or show only what is held. Compressions: \
turns whose context lacks something that the one before showed. A mean is over the tasks that \
have the figure: (n) if they aren't all, – if none has it.
"""


def cell_table(
    cells: Sequence[Cell],
    *,
    columns: Sequence[Column],
    head: Sequence[str],
    labels: Sequence[Sequence[str]],
) -> str:
    """A Markdown table with a line for each cell.

    Args: `head`, the headings of the labels; `labels`, what stands before the figures of each cell.
    """
    rows = [
        [*label, *(shown(cell, column) for column in columns)]
        for label, cell in zip(labels, cells, strict=True)
    ]
    return table([*head, *(column.title for column in columns)], rows)


def shown(cell: Cell, column: Column, *, interval: bool = True) -> str:
    """A figure; its interval, if there's one; in how many tasks it's defined, if not in all. – if
    the cell has no such figure."""
    estimate = cell.estimates.get(column.metric)
    if estimate is None:
        return "–"

    def text(value: float) -> str:
        seen = column.of(value, cell.num_objectives)
        return "∞" if seen is None else f"{seen:,.{column.decimals}f}"

    if not interval:
        return text(estimate.mean)
    known = "" if estimate.num_values == cell.num_tasks else f" ({estimate.num_values})"
    if estimate.low is None or estimate.high is None:
        return text(estimate.mean) + known
    return f"{text(estimate.mean)} [{text(estimate.low)}, {text(estimate.high)}]{known}"


def known(columns: Sequence[Column], cells: Sequence[Cell]) -> list[Column]:
    """The columns whose figure some cell has."""
    return [c for c in columns if any(c.metric in cell.estimates for cell in cells)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def kept_bound(cell: Cell) -> str:
    """Whether the largest context + reply kept to the bound, in a word."""
    if cell.bound is None:
        return "–"
    return "yes" if cell.max_tokens <= cell.bound else "NO"


def notes(cells: Sequence[Cell]) -> list[str]:
    """What a reader of the cells has to know."""
    total = sum(cell.num_trajectories for cell in cells)
    failed = sum(cell.num_failures for cell in cells)
    inexact = sum(cell.num_inexact for cell in cells)
    small = min((cell.num_tasks for cell in cells), default=0)
    found: list[str] = []
    if failed:
        found.append(
            f"**{failed} of {total} episodes failed** for reasons outside the agent and score 0; "
            "the same command tries them again."
        )
    if inexact:
        found.append(
            f"**{inexact} of {total} episodes are inexact**: the engine did not tell token ids or "
            "log-probabilities, so token counts are those of a tokenizer of ours, and these "
            "episodes can't be trained on."
        )
    if small < SMALL:
        found.append(f"Cells hold as few as {small} tasks: mind the intervals.")
    return found
