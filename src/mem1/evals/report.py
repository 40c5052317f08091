"""TRAJECTORIES -> EvalReport -> report.json, report.md and plots.

One cell for each context policy and number of objectives; a cell says how many episodes it holds,
how they ended, and what its figures are worth (confidence intervals, exactness, the bound).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from mem1.errors import DataError
from mem1.evals.metrics import Estimate, aggregate, peak_tokens
from mem1.evals.plots import write_plots
from mem1.files import atomic_write
from mem1.types import FAILURES, Trajectory

REPORT_VERSION = 1
SMALL = 100
"""Fewer tasks than this in a cell and the report warns of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The episodes of one context policy and number of objectives."""

    context_policy: str
    num_objectives: int
    num_tasks: int
    num_trajectories: int
    estimates: Mapping[str, Estimate]
    """By the names of `mem1.evals.metrics`; means over tasks."""
    stop_reasons: Mapping[str, int]
    num_failures: int
    """Episodes that an engine, tool or environment broke; they score 0 and are owed again."""
    num_inexact: int
    """Episodes whose token ids or log-probabilities the engine did not tell."""
    bound: int | None
    """Certified largest context + reply, in tokens; None if the policy has none."""
    max_tokens: int
    """Largest context + reply of all turns of all episodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalReport:
    """What an evaluation found."""

    cells: tuple[Cell, ...]
    """Ordered by number of objectives; policies as they came."""
    command: str
    config: Mapping[str, Any]
    """The resolved config."""
    schema_version: int = REPORT_VERSION


def build_report(
    trajectories: Iterable[Trajectory], *, command: str, config: Mapping[str, Any]
) -> EvalReport:
    """Group trajectories into cells and estimate each cell's figures."""
    groups: dict[tuple[int, str], list[Trajectory]] = {}
    for trajectory in trajectories:
        key = len(trajectory.task.objectives), trajectory.context_policy
        groups.setdefault(key, []).append(trajectory)
    order = sorted(groups, key=lambda key: key[0])
    return EvalReport(
        cells=tuple(_cell(key, groups[key]) for key in order), command=command, config=config
    )


def _cell(key: tuple[int, str], trajectories: Sequence[Trajectory]) -> Cell:
    bounds = {trajectory.bound for trajectory in trajectories}
    return Cell(
        context_policy=key[1],
        num_objectives=key[0],
        num_tasks=len({trajectory.task.id for trajectory in trajectories}),
        num_trajectories=len(trajectories),
        estimates=aggregate(trajectories),
        stop_reasons=dict(Counter(t.stop_reason.value for t in trajectories).most_common()),
        num_failures=sum(t.stop_reason in FAILURES for t in trajectories),
        num_inexact=sum(not t.exact for t in trajectories),
        bound=None if None in bounds else max(b for b in bounds if b is not None),
        max_tokens=int(max(map(peak_tokens, trajectories))),
    )


def write_report(report: EvalReport, folder: Path) -> None:
    """Write report.json, report.md and the plots em.svg and peak_tokens.svg."""
    atomic_write(folder / "report.json", orjson.dumps(report, option=orjson.OPT_INDENT_2))
    atomic_write(folder / "report.md", report_markdown(report))
    write_plots(report.cells, folder)


def read_report(folder: Path) -> EvalReport:
    """Read report.json back. Raises DataError if there's none that this mem1 reads."""
    path = folder / "report.json"
    try:
        report = TypeAdapter(EvalReport).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"{path}: no report: {error}") from error
    if report.schema_version != REPORT_VERSION:
        raise DataError(
            f"{path}: schema_version {report.schema_version}, this mem1 reads {REPORT_VERSION}: "
            "write it again with  mem1 report"
        )
    return report


_COLUMNS: Sequence[tuple[str, str, int]] = (
    ("em", "EM", 2),
    ("f1", "F1", 2),
    ("peak_tokens", "peak", 0),
    ("peak_tokens_without_prompt", "peak w/o prompt", 0),
    ("dependency", "dependency", 0),
    ("generated_tokens", "generated", 0),
    ("prompt_tokens", "prompt", 0),
    ("num_turns", "turns", 1),
    ("seconds", "s", 1),
    ("answer_rate", "answered", 2),
    ("valid_turns", "valid turns", 2),
)
"""Metric, heading, decimals."""

_LEGEND = """\
EM and F1 are sums over the N objectives (lenient: parts in order, missing ones score 0; strict, 0 \
for a wrong number of parts, in the second table). Peak: largest context + reply of a turn, mean \
over tasks; the largest of all turns stands beside the bound. Dependency: token pairs that \
generation attends to. Prompt: context tokens of all turns. Valid turns: share without a fault of \
form. All episodes count, failed ones with score 0. Tokens are those of the model's own tokenizer. \
[…]: 95 % bootstrap interval over tasks.
"""


def report_markdown(report: EvalReport) -> str:
    """The report as Markdown tables."""
    head = ["N", "context", "tasks", *(title for _, title, _ in _COLUMNS)]
    rows = [
        [
            str(cell.num_objectives),
            cell.context_policy,
            str(cell.num_tasks),
            *(_figure(cell.estimates[name], decimals) for name, _, decimals in _COLUMNS),
        ]
        for cell in report.cells
    ]
    ends = [
        [
            str(cell.num_objectives),
            cell.context_policy,
            str(cell.bound) if cell.bound is not None else "none",
            str(cell.max_tokens),
            _promise(cell),
            *(_figure(cell.estimates[name], 2) for name in ("em_strict", "f1_strict")),
            ", ".join(f"{reason} {count}" for reason, count in cell.stop_reasons.items()),
        ]
        for cell in report.cells
    ]
    end_head = ["N", "context", "bound", "largest", "within", "EM strict", "F1 strict", "ended by"]
    parts = [
        "# Evaluation",
        f"    {report.command}",
        _table(head, rows),
        _LEGEND,
        _table(end_head, ends),
        *_notes(report.cells),
        "![EM against N](em.svg)\n![peak tokens against N](peak_tokens.svg)",
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _promise(cell: Cell) -> str:
    if cell.bound is None:
        return "–"
    return "yes" if cell.max_tokens <= cell.bound else "NO"


def _notes(cells: Sequence[Cell]) -> list[str]:
    total = sum(cell.num_trajectories for cell in cells)
    failed = sum(cell.num_failures for cell in cells)
    inexact = sum(cell.num_inexact for cell in cells)
    small = min((cell.num_tasks for cell in cells), default=0)
    notes: list[str] = []
    if failed:
        notes.append(
            f"**{failed} of {total} episodes failed** for reasons outside the agent and score 0; "
            "the same command tries them again."
        )
    if inexact:
        notes.append(
            f"**{inexact} of {total} episodes are inexact**: the engine did not tell token ids or "
            "log-probabilities, so token counts are those of a tokenizer of ours, and these "
            "episodes can't be trained on."
        )
    if small < SMALL:
        notes.append(f"Cells hold as few as {small} tasks: mind the intervals.")
    return notes


def _figure(estimate: Estimate, decimals: int) -> str:
    def shown(value: float) -> str:
        return f"{value:,.{decimals}f}"

    if estimate.low is None or estimate.high is None:
        return shown(estimate.mean)
    return f"{shown(estimate.mean)} [{shown(estimate.low)}, {shown(estimate.high)}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
