"""RUNS -> HorizonReport: what becomes of agents as N grows.

    (label, [Trajectory]) of each run -> build_horizon -> HorizonReport
    HorizonReport -> write_horizon -> horizon.json, horizon.md, horizon.svg

A line for each run, context policy and N. Controls are policies like the others.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from mem1.evals.cells import Cell, cell_groups, make_cell
from mem1.evals.memory import half_life
from mem1.evals.metrics import Estimate, survival_curve
from mem1.evals.paper import PAPER, PaperRow, is_like_the_papers
from mem1.evals.plots import horizon_plot
from mem1.evals.tables import (
    MEMORY_COLUMNS,
    MEMORY_LEGEND,
    Column,
    cell_table,
    notes,
    per_objective,
    shown,
    table,
)
from mem1.files import atomic_write
from mem1.types import Trajectory

HORIZON_VERSION = 1
SCORES = ("em", "em_strict", "f1", "f1_strict")
CLOSED_BOOK = "closed_book"


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfLife:
    """Turns after which half of what was held is left; None: none was lost."""

    turns: float | None
    low: float | None
    high: float | None
    """Ends of the 95 % interval, from those of survival; None as well if there's none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HorizonCell:
    """The episodes of one run, context policy and number of objectives."""

    run: str
    cell: Cell
    per_objective: Mapping[str, Estimate]
    """em, em_strict, f1 and f1_strict, divided by the number of objectives."""
    half_life: HalfLife | None
    """None: nothing was held before the last turn."""
    survival_by_age: tuple[Estimate, ...]
    """Share of facts held 0, 1, … turns after they were first held."""
    is_like_the_papers: bool
    """Whether all tasks are composed of questions of the paper's data sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HorizonReport:
    """What several evaluations found."""

    cells: tuple[HorizonCell, ...]
    """Runs as they came, then by policy, then by number of objectives."""
    paper: tuple[PaperRow, ...]
    """The paper's figures, not ours; empty if no cell's tasks are like the paper's."""
    command: str
    schema_version: int = HORIZON_VERSION


def build_horizon(
    runs: Iterable[tuple[str, Sequence[Trajectory]]], *, command: str
) -> HorizonReport:
    """Estimate the figures of each cell of each run. Runs are read one at a time."""
    cells: list[HorizonCell] = []
    for run, trajectories in runs:
        found = [_horizon_cell(run, group) for group in cell_groups(trajectories)]
        policies = dict.fromkeys(trajectory.context_policy for trajectory in trajectories)
        rank = {policy: number for number, policy in enumerate(policies)}
        cells += sorted(found, key=lambda one: rank[one.cell.context_policy])
    papers = PAPER if any(cell.is_like_the_papers for cell in cells) else ()
    return HorizonReport(cells=tuple(cells), paper=papers, command=command)


def _horizon_cell(run: str, trajectories: Sequence[Trajectory]) -> HorizonCell:
    cell = make_cell(trajectories)
    survival = cell.estimates.get("survival")
    return HorizonCell(
        run=run,
        cell=cell,
        per_objective={
            name: _divided(cell.estimates[name], by=cell.num_objectives) for name in SCORES
        },
        half_life=_half_life(survival) if survival else None,
        survival_by_age=tuple(survival_curve(trajectories)),
        is_like_the_papers=all(is_like_the_papers(t.task) for t in trajectories),
    )


def _divided(estimate: Estimate, *, by: int) -> Estimate:
    return replace(
        estimate,
        mean=estimate.mean / by,
        low=None if estimate.low is None else estimate.low / by,
        high=None if estimate.high is None else estimate.high / by,
    )


def _half_life(survival: Estimate) -> HalfLife:
    return HalfLife(
        turns=half_life(survival.mean),
        low=None if survival.low is None else half_life(survival.low),
        high=None if survival.high is None else half_life(survival.high),
    )


def write_horizon(report: HorizonReport, folder: Path) -> None:
    """Write horizon.json, horizon.md and horizon.svg."""
    atomic_write(folder / "horizon.json", orjson.dumps(report, option=orjson.OPT_INDENT_2))
    atomic_write(folder / "horizon.md", horizon_markdown(report))
    atomic_write(folder / "horizon.svg", horizon_plot(report.cells, paper=report.paper))


_ANSWERS: Sequence[Column] = (
    Column(metric="em", title="EM / N", decimals=3, of=per_objective),
    Column(metric="f1", title="F1 / N", decimals=3, of=per_objective),
    Column(metric="em_strict", title="EM / N strict", decimals=3, of=per_objective),
    Column(metric="f1_strict", title="F1 / N strict", decimals=3, of=per_objective),
    Column(metric="answer_rate", title="answered", decimals=2),
    Column(metric="turns_per_objective", title="turns / N", decimals=2),
)
_COSTS: Sequence[Column] = (
    Column(metric="peak_tokens", title="peak", decimals=0),
    Column(metric="dependency", title="dependency", decimals=0),
    Column(metric="generated_tokens", title="generated", decimals=0),
    Column(metric="num_turns", title="turns", decimals=1),
)

_LEGEND = """\
EM / N and F1 / N: per objective (lenient: parts in order, missing ones score 0; strict: 0 for a \
wrong number of parts). A horizon is exercised only where turns / N does not fall as N grows. All \
episodes count, failed ones with score 0. […]: 95 % bootstrap interval over tasks.
"""
_COST_LEGEND = """\
Peak: largest context + reply of a turn, mean over tasks. Dependency: token pairs that generation \
attends to. Tokens are those of the model's own tokenizer; compare no two runs of other tokenizers.
"""
_PAPER_LEGEND = """\
The paper's figures, not ours (arXiv 2506.15841): its tasks are composed of questions of the same \
data sets, but other ones, over another corpus; its peak leaves out the task prompt and unsolved \
tasks, in the tokenizer of gpt-4o-mini; its seconds are those of its machine.
"""


def horizon_markdown(report: HorizonReport) -> str:
    """The report as Markdown tables."""
    cells = [found.cell for found in report.cells]
    head = ("run", "context", "N")
    labels = [
        (found.run, found.cell.context_policy, str(found.cell.num_objectives))
        for found in report.cells
    ]
    counted = [(*label, str(cell.num_tasks)) for label, cell in zip(labels, cells, strict=True)]
    bounds = [
        (*label, "none" if cell.bound is None else f"{cell.bound:,}", f"{cell.max_tokens:,}")
        for label, cell in zip(labels, cells, strict=True)
    ]
    parts = [
        "# Horizon",
        f"    {report.command}",
        "![figures against N](horizon.svg)",
        "## Answers",
        cell_table(cells, columns=_ANSWERS, head=(*head, "tasks"), labels=counted),
        _LEGEND,
        *_guesses(report.cells),
        "## Memory",
        cell_table(cells, columns=MEMORY_COLUMNS, head=head, labels=labels),
        MEMORY_LEGEND,
        "## Cost",
        cell_table(cells, columns=_COSTS, head=(*head, "bound", "largest"), labels=bounds),
        _COST_LEGEND,
        *_paper_part(report.paper),
        *notes(cells),
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _guesses(cells: Sequence[HorizonCell]) -> list[str]:
    """What each run says of guessing: the closed book's EM per objective, or that nobody knows."""
    lines: list[str] = []
    for run in dict.fromkeys(found.run for found in cells):
        closed = [
            f"{shown(found.cell, _ANSWERS[0])} at N = {found.cell.num_objectives}"
            for found in cells
            if found.run == run and found.cell.context_policy == CLOSED_BOOK
        ]
        said = "; ".join(closed) or f"not known, no {CLOSED_BOOK} among its context policies"
        lines.append(f"- {run}: {said}")
    return ["Right without having seen an observation (closed book), EM / N:", "\n".join(lines)]


def _paper_part(rows: Sequence[PaperRow]) -> list[str]:
    if not rows:
        return []
    head = ["N", "agent", "EM", "EM / N", "F1 / N", "peak", "s"]
    lines = [
        [
            str(row.num_objectives),
            row.agent,
            f"{row.em:.3f}",
            f"{row.em / row.num_objectives:.3f}",
            "–" if row.f1 is None else f"{row.f1 / row.num_objectives:.3f}",
            f"{row.peak_tokens:,.0f}",
            "–" if row.seconds is None else f"{row.seconds:.1f}",
        ]
        for row in rows
    ]
    return ["## The paper's figures", table(head, lines), _PAPER_LEGEND]
