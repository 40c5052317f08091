"""What the terminal shows: an episode turn by turn, the progress of many.

    Turn -> show_turn -> tokens against the bound, internal state, action, observation
    [Cell] -> show_plan -> what a run would do
    EvalReport -> show_report, HorizonReport -> show_horizon -> their main figures
    Trajectory -> RunProgress.add -> tasks done, tokens/s, EM so far, time left

Model and tool text is printed as plain text: no markup of it is obeyed.
"""

import time
from collections.abc import Mapping, Sequence
from textwrap import indent
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from mem1.evals import EvalReport, HorizonReport
from mem1.evals.tables import Column, known, per_objective, shown
from mem1.tasks.catalogue import Source
from mem1.text import parse_reply
from mem1.types import FAILURES, Trajectory, Turn
from mem1.verification import Verified
from mem1.wiring import Cell

MAX_SHOWN_CHARS = 1200
"""Characters of an observation that the terminal shows."""


def show_turn(console: Console, turn: Turn, *, number: int, bound: int | None) -> None:
    """Print one turn: what the context took, what the model kept, what it did, what came back."""
    used = len(turn.prompt_ids) + turn.completion.num_tokens
    limit = f"bound {bound:,}" if bound is not None else "no bound"
    size = f"{len(turn.prompt_ids):,} in + {turn.completion.num_tokens:,} out = {used:,} tokens"
    title = Text.assemble((f"turn {number}", "bold"), f"  {size} ({limit})  {turn.engine_s:.1f} s")
    console.print(Rule(title, align="left", style="dim"))
    state, rest = _take_apart(turn)
    if state:
        _block(console, "state", state, style="cyan")
    if turn.action:
        _block(console, turn.action.name, turn.action.argument, style="bold green")
    elif rest:
        _block(console, "reply", rest, style="yellow")
    if turn.faults:
        _block(console, "faults", ", ".join(turn.faults), style="red")
    if turn.observation is not None:
        _block(console, "seen", _shorten(turn.observation.strip()), style="dim")


def _take_apart(turn: Turn) -> tuple[str, str]:
    """The internal state without its tags, and the rest of the reply."""
    text = turn.completion.text
    span = parse_reply(text, actions=()).state_span
    if span is None:
        return "", text.strip()
    inner = text[span[0] : span[1]]
    return inner[inner.find(">") + 1 : inner.rfind("<")].strip(), text[span[1] :].strip()


def _block(console: Console, label: str, text: str, *, style: str) -> None:
    console.print(Text(label, style=style))
    console.print(Padding(Text(text, style=style if style == "dim" else ""), (0, 0, 0, 4)))


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]} …"


def show_outcome(console: Console, trajectory: Trajectory) -> None:
    """Print how an episode ended."""
    console.print(Rule(style="dim"))
    if trajectory.answer is not None:
        console.print(Text.assemble(("answer  ", "bold green"), trajectory.answer))
    else:
        why = f" ({trajectory.error})" if trajectory.error else ""
        console.print(Text(f"no answer: {trajectory.stop_reason}{why}", style="bold red"))


def show_plan(console: Console, cells: Sequence[Cell], *, window: int | None, samples: int) -> None:
    """Print what a run would do, a line for each context policy and number of objectives."""
    said = f"{window:,} tokens" if window is not None else "known to the server only"
    table = Table(title=f"model window: {said}", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("context", "N", "tasks", "episodes", "max turns", "bound (tokens)", "fits"):
        table.add_column(heading, justify="left" if heading in ("context", "fits") else "right")
    for cell in cells:
        table.add_row(
            Text(cell.context_policy),
            str(cell.num_objectives),
            str(cell.num_tasks),
            str(cell.num_tasks * samples),
            str(cell.max_turns),
            "none" if cell.bound is None else f"{cell.bound:,}",
            "no" if cell.problem else "yes" if window is not None else "?",
        )
    console.print(table)


def show_sources(console: Console, sources: Sequence[Source]) -> None:
    """Print tasks that can be loaded, with the settings that load them."""
    for source in sources:
        title = Text.assemble((source.name, "bold"), f"  {source.size}; {source.licence}")
        console.print(title, soft_wrap=True)
        console.print(Text(indent(source.load, "    ")), soft_wrap=True)


_FIGURES = (
    Column(metric="reward", title="reward", decimals=3),
    Column(metric="em", title="EM", decimals=2),
    Column(metric="f1", title="F1", decimals=2),
    Column(metric="answer_rate", title="answered", decimals=2),
    Column(metric="num_turns", title="turns", decimals=1),
    Column(metric="peak_tokens", title="peak", decimals=0),
)
"""What fits 80 columns. The rest, and intervals, are in report.md."""


def show_report(console: Console, report: EvalReport) -> None:
    """Print the main figures of an evaluation, means over tasks; peaks and bounds in tokens."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    columns = known(_FIGURES, report.cells)
    for heading in ("N", "context", "tasks", *(column.title for column in columns)):
        table.add_column(heading, justify="left" if heading == "context" else "right", no_wrap=True)
    table.add_column("largest / bound", justify="right", no_wrap=True)
    for cell in report.cells:
        bound = "none" if cell.bound is None else f"{cell.bound:,}"
        table.add_row(
            str(cell.num_objectives),
            Text(cell.context_policy),
            str(cell.num_tasks),
            *(shown(cell, column, interval=False) for column in columns),
            f"{cell.max_tokens:,} / {bound}",
        )
    console.print(table)


_HORIZON = (
    Column(metric="em", title="EM / N", decimals=3, of=per_objective),
    Column(metric="turns_per_objective", title="turns / N", decimals=2),
    Column(metric="survival", title="survival", decimals=3),
    Column(metric="peak_tokens", title="peak", decimals=0),
)


def show_horizon(console: Console, report: HorizonReport) -> None:
    """Print the main figures of agents against N, means over tasks; peaks in tokens."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("run", "context", "N", *(column.title for column in _HORIZON)):
        justify = "left" if heading in ("run", "context") else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    for found in report.cells:
        cell = found.cell
        means = [shown(cell, column, interval=False) for column in _HORIZON]
        table.add_row(Text(found.run), Text(cell.context_policy), str(cell.num_objectives), *means)
    console.print(table)


class _Bar:
    """A bar on standard error, drawn within a `with` block."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()


class RunProgress(_Bar):
    """Progress on standard error: the index being built, then tasks done, tokens/s, EM so far,
    failures and the time left."""

    def __init__(self) -> None:
        self._new, self._reward, self._failed, self._tokens = 0, 0.0, 0, 0
        self._started = time.perf_counter()
        super().__init__()
        self._task = self._bar.add_task("loading", total=None, figures="")

    def index(self, done: int, total: int) -> None:
        self._bar.update(self._task, description="indexing", completed=done, total=total or None)

    def start(self, done: int, total: int) -> None:
        """`done` of the episodes need no second run."""
        if done:
            self._bar.console.print(f"{done} of {total} episodes are done already")
        # They are left out of the total: the time left is that of the others.
        self._bar.reset(self._task, description="episodes", total=total - done)
        self._started = time.perf_counter()

    def add(self, trajectory: Trajectory) -> None:
        self._new += 1
        self._reward += trajectory.reward
        self._failed += trajectory.stop_reason in FAILURES
        self._tokens += sum(turn.completion.num_tokens for turn in trajectory.turns)
        speed = self._tokens / (time.perf_counter() - self._started)
        figures = f"reward {self._reward / self._new:.3f}  {speed:,.0f} tokens/s"
        if self._failed:
            figures += f"  {self._failed} failed"
        self._bar.update(self._task, advance=1, figures=figures)


def show_verified(console: Console, found: Sequence[Verified]) -> None:
    """Print how far packed log-probabilities are from plain ones, and from the sampler's."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("context", "mode"):
        table.add_column(heading, no_wrap=True)
    for heading in ("saved", "max", "mean", "gradient", "sampler"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("exact")
    for verified in found:
        report, sampler = verified.report, verified.report.sampler
        table.add_row(
            Text(verified.context_policy),
            verified.mode,
            f"{1 - report.num_packed / report.num_unpacked:.0%}",
            f"{report.packed.max_abs:.1e}",
            f"{report.packed.mean_abs:.1e}",
            f"{report.gradient_error:.1e}",
            "-" if sampler is None else f"{sampler.max_abs:.1e}",
            Text("yes", style="green") if report.exact else Text("NO", style="bold red"),
        )
    console.print(table)
    console.print(
        "saved: tokens that packing spares; max, mean: |packed - one forward per turn| of "
        "log-probabilities, nats; gradient: relative error; sampler: max |packed - recorded|"
    )


_BLOCKS = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 50
"""Characters; each stands for the mean of as many values as there must be."""


def curve(name: str, values: Sequence[float]) -> str:
    """A curve of one line: the first mean, blocks between the least and the largest, the last mean.

    >>> curve("reward", [0.0, 0.5, 1.0])
    'reward 0.00 ▁▄█ 1.00'
    """
    size = -(-len(values) // _CURVE_WIDTH)
    bins = [values[begin : begin + size] for begin in range(0, len(values), size)]
    means = [sum(members) / len(members) for members in bins]
    low, spread = min(means), (max(means) - min(means)) or 1.0
    blocks = "".join(_BLOCKS[int((mean - low) / spread * (len(_BLOCKS) - 1))] for mean in means)
    return f"{name} {means[0]:.2f} {blocks} {means[-1]:.2f}"


_STEP_FIGURES = (
    ("level", "level", 0),
    ("reward", "reward", 3),
    ("held out", "validation/reward", 3),
    ("valid", "valid_turns", 2),
    ("loss", "loss", 4),
    ("KL", "kl", 4),
    ("gap", "logprob_gap_max", 5),
)
"""Label, metric, decimals of what a training step shows; what a step lacks is left out."""


class TrainProgress(_Bar):
    """Progress of training on standard error: steps done, the time left, how it goes, and the
    curve of the reward so far."""

    def __init__(self, *, num_steps: int) -> None:
        super().__init__()
        self._task = self._bar.add_task("training", total=num_steps, figures="")
        self._episodes = 0
        self._rewards: list[float] = []
        self._curve = Text()
        self._live = Live(Group(self._curve, self._bar), console=self._bar.console)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def episode(self, trajectory: Trajectory) -> None:
        self._episodes += 1
        self._bar.update(self._task, description=f"training, {self._episodes} episodes")

    def index(self, done: int, total: int) -> None:
        self._bar.update(self._task, description=f"indexing {done:,} of {total:,}")

    def step(self, number: int, metrics: Mapping[str, float]) -> None:
        figures = "  ".join(
            f"{label} {metrics[name]:.{digits}f}"
            for label, name, digits in _STEP_FIGURES
            if name in metrics
        )
        self._episodes = 0
        if "reward" in metrics:
            self._rewards.append(metrics["reward"])
            self._curve.plain = curve("reward", self._rewards)
        self._bar.update(self._task, completed=number, description="training", figures=figures)
        if "validation/reward" in metrics:
            self._bar.console.print(f"step {number}: {figures}", highlight=False)

    def warn(self, text: str) -> None:
        self._bar.console.print(Text(text, style="yellow"))
