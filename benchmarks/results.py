"""What trials found, as tables and curves: means and 95 % intervals over seeds.

Experiment, {trial: [figures of a seed]}  -> tables -> Markdown
Experiment, {trial: [steps of a seed]}    -> curves -> SVG
"""

import io
import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from trials import NUM_OBJECTIVES, Experiment

from mem1.evals.memory import half_life
from mem1.evals.tables import table

STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles, for two to ten seeds."""
TITLES = {
    "em": "EM / N",
    "turns_per_objective": "turns / N",
    "answer_rate": "answered",
    "valid_turns": "valid turns",
    "state_tokens": "tokens of a state",
    "half_life": "half-life",
    "corruption": "corrupted",
    "invention": "invented",
    "redundancy": "redundant",
    "bits_held": "bits held",
    "bits_needed": "bits needed",
    "logprob_gap": "gap, mean (nats)",
    "logprob_gap_max": "gap, largest (nats)",
    "clip_fraction": "clipped",
    "reply_tokens": "tokens of replies",
    "row_tokens": "tokens of rows",
    "sampler_tokens": "tokens the sampler computes",
    "collect_s": "sampling (s)",
    "learn_s": "learning (s)",
    "num_steps": "steps",
    "last_level": "level reached",
    "em_per_objective": "exact match per objective",
    "num_objectives": "objectives",
}
LOGARITHMIC = {"logprob_gap"}

Figures = Mapping[str, Sequence[Mapping[str, float]]]
"""By trial: those of each seed."""


def tables(experiment: Experiment, *, figures: Figures, seeds: Sequence[int], start: str) -> str:
    """Markdown: the tables that the experiment asks for, and what they are made of."""
    made: list[str] = []
    if names := experiment.columns:
        rows = [[trial, *(cell(found, name) for name in names)] for trial, found in figures.items()]
        made.append(table(["trial", *map(title, names)], rows))
    if names := experiment.sized:
        rows = [
            [str(size), trial, *(cell(found, f"{name}_{size}") for name in names)]
            for size in NUM_OBJECTIVES
            for trial, found in figures.items()
        ]
        made.append(table(["N", "trial", *map(title, names)], rows))
    said = ", ".join(map(str, seeds))
    made.append(f"Seeds {said}; mean ± half of the 95 % interval over seeds; start {start}.")
    return "\n\n".join(made) + "\n"


def title(name: str) -> str:
    """What a column is called.

    >>> title("em_16"), title("held")
    ('EM / N, N = 16', 'held')
    """
    figure, _, size = name.rpartition("_")
    if size.isdigit():
        return f"{title(figure)}, N = {size}"
    return TITLES.get(name, name)


def cell(found: Sequence[Mapping[str, float]], name: str) -> str:
    """A figure over the seeds that have it; – if none has."""
    key = name.replace("half_life", "survival")
    values = [seed[key] for seed in found if key in seed]
    if not values:
        return "–"
    known = "" if len(values) == len(found) else f" ({len(values)})"
    mean, half = over_seeds(values)
    return (_number(mean, half) if key == name else _half_life(mean, half)) + known


def _number(mean: float, half: float) -> str:
    style = ".1e" if 0 < mean < 1e-3 else ",.0f" if mean >= 100 else ".3f"
    return f"{mean:{style}}" + ("" if math.isnan(half) else f" ± {half:{style}}")


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval; NaN for one seed.

    >>> over_seeds([1.0, 1.0])
    (1.0, 0.0)
    """
    if len(values) == 1:
        return values[0], math.nan
    spread = STUDENT_T[len(values) - 2] * statistics.stdev(values)
    return statistics.mean(values), spread / math.sqrt(len(values))


def _half_life(survival: float, half: float) -> str:
    """In turns, of a mean survival; the ends are those of its interval."""

    def turns(share: float) -> str:
        found = half_life(min(max(share, 0.0), 1.0))
        return "∞" if found is None else f"{found:.1f}"

    if math.isnan(half):
        return turns(survival)
    return f"{turns(survival)} [{turns(survival - half)}, {turns(survival + half)}]"


def curves(
    experiment: Experiment, *, steps: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]
) -> bytes:
    """A panel for each metric, against tokens sampled; a line for each trial and seed. Trials that
    sample nothing have none."""
    names = experiment.curves
    figure = Figure(figsize=(6.4 * len(names), 4), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for number, (trial, seeds) in enumerate(steps.items()):
            for seed, made in enumerate(seeds):
                if not made or "logprob_gap" not in made[0]:
                    continue
                tokens = list(accumulate(step["generated_tokens"] for step in made))
                label = trial if seed == 0 else None
                axes.plot(tokens, [s[name] for s in made], f"C{number}", alpha=0.7, label=label)
        axes.set(xlabel="sampled tokens", ylabel=title(name))
        axes.set_yscale("log" if name in LOGARITHMIC else "linear")
        axes.grid(alpha=0.3)
    panels[0].legend()
    buffer = io.BytesIO()
    # Neither a date nor random ids: the same steps make the same file.
    with rc_context({"svg.hashsalt": "mem1"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
