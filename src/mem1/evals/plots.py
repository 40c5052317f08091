"""Cells of a report -> em.svg and peak_tokens.svg: a figure against N, a line per policy."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mem1.files import atomic_write

if TYPE_CHECKING:
    from mem1.evals.report import Cell

_FIGURES = {"em": "exact match, sum over objectives", "peak_tokens": "peak tokens"}


def write_plots(cells: "Sequence[Cell]", folder: Path) -> None:
    """Write one SVG per figure, atomically; bars are 95 % intervals, dashes certified bounds."""
    for metric, label in _FIGURES.items():
        atomic_write(folder / f"{metric}.svg", _plot(cells, metric=metric, label=label))


def _plot(cells: "Sequence[Cell]", *, metric: str, label: str) -> bytes:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for policy in dict.fromkeys(cell.context_policy for cell in cells):
        line = [cell for cell in cells if cell.context_policy == policy]
        numbers = [cell.num_objectives for cell in line]
        found = [cell.estimates[metric] for cell in line]
        below = [e.mean - (e.mean if e.low is None else e.low) for e in found]
        above = [(e.mean if e.high is None else e.high) - e.mean for e in found]
        means = [e.mean for e in found]
        bars = axes.errorbar(
            numbers, means, yerr=[below, above], marker="o", capsize=3, label=policy
        )
        bounds = [cell.bound for cell in line if cell.bound is not None]
        if metric == "peak_tokens" and bounds:
            color = bars.lines[0].get_color()
            axes.axhline(max(bounds), linestyle="--", linewidth=1, color=color)
    ticks = sorted({cell.num_objectives for cell in cells})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("objectives N")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.legend()
    buffer = io.BytesIO()
    # Neither a date nor random ids: the same cells make the same file.
    with rc_context({"svg.hashsalt": "mem1"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
