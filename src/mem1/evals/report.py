"""TRAJECTORIES -> EvalReport -> report.json, report.md and plots.

One cell for each context policy and number of objectives.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from mem1.errors import DataError
from mem1.evals.cells import Cell, cell_groups, make_cell
from mem1.evals.plots import plotted, write_plots
from mem1.evals.tables import (
    MEMORY_COLUMNS,
    MEMORY_LEGEND,
    Column,
    cell_table,
    kept_bound,
    known,
    notes,
    shown,
    table,
)
from mem1.files import atomic_write
from mem1.types import Trajectory

REPORT_VERSION = 1


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
    cells = tuple(map(make_cell, cell_groups(trajectories)))
    return EvalReport(cells=cells, command=command, config=config)


def write_report(report: EvalReport, folder: Path) -> None:
    """Write report.json, report.md and the plots: em.svg or reward.svg, and peak_tokens.svg."""
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


_COLUMNS: Sequence[Column] = (
    Column(metric="reward", title="reward", decimals=3),
    Column(metric="em", title="EM", decimals=2),
    Column(metric="f1", title="F1", decimals=2),
    Column(metric="peak_tokens", title="peak", decimals=0),
    Column(metric="peak_tokens_without_prompt", title="peak w/o prompt", decimals=0),
    Column(metric="dependency", title="dependency", decimals=0),
    Column(metric="generated_tokens", title="generated", decimals=0),
    Column(metric="prompt_tokens", title="prompt", decimals=0),
    Column(metric="num_turns", title="turns", decimals=1),
    Column(metric="seconds", title="s", decimals=1),
    Column(metric="answer_rate", title="answered", decimals=2),
    Column(metric="valid_turns", title="valid turns", decimals=2),
)

_STRICT: Sequence[Column] = (
    Column(metric="em_strict", title="EM strict", decimals=2),
    Column(metric="f1_strict", title="F1 strict", decimals=2),
)

_LEGEND = """\
EM and F1 are sums over the N objectives (lenient: parts in order, missing ones score 0; strict, 0 \
for a wrong number of parts, in the second table). Without gold answers there's the reward \
instead. Peak: largest context + reply of a turn, mean \
over tasks; the largest of all turns stands beside the bound. Dependency: token pairs that \
generation attends to. Prompt: context tokens of all turns. Valid turns: share without a fault of \
form. All episodes count, failed ones with score 0. Tokens are those of the model's own tokenizer. \
[…]: 95 % bootstrap interval over tasks.
"""


def report_markdown(report: EvalReport) -> str:
    """The report as Markdown tables."""
    cells = report.cells
    strict = known(_STRICT, cells)
    names = [(str(cell.num_objectives), cell.context_policy) for cell in cells]
    counted = [(*name, str(cell.num_tasks)) for name, cell in zip(names, cells, strict=True)]
    ends = [
        [
            *name,
            str(cell.bound) if cell.bound is not None else "none",
            str(cell.max_tokens),
            kept_bound(cell),
            *(shown(cell, column) for column in strict),
            ", ".join(f"{reason} {count}" for reason, count in cell.stop_reasons.items()),
        ]
        for name, cell in zip(names, cells, strict=True)
    ]
    head = ("N", "context")
    end_head = [*head, "bound", "largest", "within", *(c.title for c in strict), "ended by"]
    parts = [
        "# Evaluation",
        f"    {report.command}",
        cell_table(cells, columns=known(_COLUMNS, cells), head=(*head, "tasks"), labels=counted),
        _LEGEND,
        table(end_head, ends),
        "## Memory",
        cell_table(cells, columns=MEMORY_COLUMNS, head=head, labels=names),
        MEMORY_LEGEND,
        *notes(cells),
        "\n".join(f"![{metric} against N]({metric}.svg)" for metric in plotted(cells)),
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"
