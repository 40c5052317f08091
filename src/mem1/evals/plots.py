"""Cells of a report -> SVG: figures against N, a line for each agent.

    [Cell]                    -> write_plots  -> em.svg, peak_tokens.svg
    [HorizonCell], [PaperRow] -> horizon_plot -> horizon.svg

Bars are 95 % intervals, dashes certified bounds.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mem1.evals.cells import Cell
from mem1.evals.metrics import Estimate
from mem1.evals.paper import MEM1, PaperRow
from mem1.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mem1.evals.horizon import HorizonCell

_FIGURES = {
    "em": "exact match, sum over objectives",
    "reward": "reward",
    "peak_tokens": "peak tokens",
}


def plotted(cells: Sequence[Cell]) -> list[str]:
    """The metrics that have a plot of their own."""
    return [metric for metric in _FIGURES if any(metric in cell.estimates for cell in cells)]


def write_plots(cells: Sequence[Cell], folder: Path) -> None:
    """Write one SVG per figure, atomically."""
    lines = {
        policy: [cell for cell in cells if cell.context_policy == policy]
        for policy in dict.fromkeys(cell.context_policy for cell in cells)
    }
    for metric in plotted(cells):
        figure, (axes,) = _canvas(1, 1)
        _against_n(axes, lines, metric=metric, label=_FIGURES[metric])
        axes.legend()
        atomic_write(folder / f"{metric}.svg", _svg(figure))


def horizon_plot(cells: "Sequence[HorizonCell]", *, paper: Sequence[PaperRow]) -> bytes:
    """EM per objective, turns per objective, survival by turn and by age, peak and dependency.

    Survival by age is that of each agent's largest N. With `paper`, MEM1's own EM and peak.
    """
    agents: dict[tuple[str, str], list[HorizonCell]] = {}
    for found in cells:
        agents.setdefault((found.run, found.cell.context_policy), []).append(found)
    one_run = len({run for run, _ in agents}) == 1
    names = {agent: agent[1] if one_run else ": ".join(agent) for agent in agents}
    lines = {names[agent]: [found.cell for found in line] for agent, line in agents.items()}
    figure, axes = _canvas(2, 3)
    em, turns, survival, ages, peak, dependency = axes
    theirs = [row for row in paper if row.agent == MEM1]
    said = {row.num_objectives: row.em / row.num_objectives for row in theirs}
    _against_n(em, lines, metric="em", label="exact match per objective", each=True, theirs=said)
    _against_n(turns, lines, metric="turns_per_objective", label="turns per objective")
    _against_n(survival, lines, metric="survival", label="survival per turn")
    for agent, line in agents.items():
        curve = line[-1].survival_by_age
        _line(ages, range(len(curve)), curve, by=[1] * len(curve), label=names[agent])
    ages.set_xlabel("turns since first held, largest N")
    ages.set_ylabel("share still held")
    ages.set_ylim(bottom=0)
    ages.grid(alpha=0.3)
    said = {row.num_objectives: row.peak_tokens for row in theirs}
    _against_n(peak, lines, metric="peak_tokens", label="peak tokens", theirs=said)
    _against_n(dependency, lines, metric="dependency", label="dependency", scale="log")
    figure.legend(*em.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return _svg(figure)


def _canvas(num_rows: int, num_columns: int) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    size = (5.2 * num_columns, 3.4 * num_rows)
    figure = Figure(figsize=size, layout="constrained")
    return figure, list(figure.subplots(num_rows, num_columns, squeeze=False).flat)


def _against_n(
    axes: "Axes",
    lines: Mapping[str, Sequence[Cell]],
    *,
    metric: str,
    label: str,
    each: bool = False,
    scale: str = "linear",
    theirs: Mapping[int, float] | None = None,
) -> None:
    """Draw a metric of each agent's cells. Args: `each`, whether it's divided by N; `theirs`, the
    paper's figures of MEM1 by N."""
    if theirs:
        axes.plot(
            list(theirs), list(theirs.values()), ":x", color="grey", label=f"{MEM1} (the paper's)"
        )
    for name, cells in lines.items():
        found = [cell for cell in cells if metric in cell.estimates]
        sizes = [cell.num_objectives for cell in found]
        by = sizes if each else [1] * len(sizes)
        color = _line(axes, sizes, [c.estimates[metric] for c in found], by=by, label=name)
        bounds = [cell.bound for cell in found if cell.bound is not None]
        if metric == "peak_tokens" and bounds:
            axes.axhline(max(bounds), linestyle="--", linewidth=1, color=color)
    ticks = sorted(
        {c.num_objectives for cells in lines.values() for c in cells} | set(theirs or ())
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_yscale(scale)
    if scale == "linear":
        axes.set_ylim(bottom=0)
    axes.set_xlabel("objectives N")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)


def _line(
    axes: "Axes", places: Sequence[int], found: Sequence[Estimate], *, by: Sequence[int], label: str
) -> Any:
    """Draw estimates, each divided by a number; gives the colour."""
    means = [e.mean / n for e, n in zip(found, by, strict=True)]
    lows = [(e.mean if e.low is None else e.low) / n for e, n in zip(found, by, strict=True)]
    highs = [(e.mean if e.high is None else e.high) / n for e, n in zip(found, by, strict=True)]
    # Of equal values, the mean may lie a rounding error outside its interval.
    below = [max(mean - low, 0.0) for mean, low in zip(means, lows, strict=True)]
    above = [max(high - mean, 0.0) for mean, high in zip(means, highs, strict=True)]
    bars = axes.errorbar(places, means, yerr=[below, above], marker="o", capsize=3, label=label)
    return bars.lines[0].get_color()


def _svg(figure: "Figure") -> bytes:
    from matplotlib import rc_context

    buffer = io.BytesIO()
    # Neither a date nor random ids: the same cells make the same file.
    with rc_context({"svg.hashsalt": "mem1"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
