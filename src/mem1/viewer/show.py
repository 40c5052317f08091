"""THE VIEWER IN A TERMINAL: one trajectory, or the list of them, as rich draws it.

    load("runs/0/trajectories?from=0") -> show_list -> a table, and how to ask for one
    load("runs/0/trajectories/17") -> show_trajectory -> its turns, facts and outcome

`load` gives the same answers as the page in the browser is drawn from. Text that is not ours passes
`harmless` on its way into a `Text`, which obeys no markup.
"""

import difflib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from mem1.errors import DataError
from mem1.evals.memory import Mark
from mem1.types import SegmentKind

Json = Mapping[str, Any]

MAX_SHOWN_CHARS = 1200
"""Characters of one text that the terminal shows, unless a single turn is asked for."""

NAMES: Mapping[str, tuple[str, str]] = {
    SegmentKind.PROMPT: ("prompt", "blue"),
    SegmentKind.INTERNAL_STATE: ("state", "cyan"),
    SegmentKind.ACTION: ("action", "green"),
    SegmentKind.REPLY: ("reply", "yellow"),
    SegmentKind.OBSERVATION: ("observation", "white"),
    SegmentKind.HINT: ("hint", "magenta"),
}
"""What the parts of a context are called, and their colours."""

SIGNS: Mapping[str, tuple[str, str]] = {
    Mark.HELD: ("●", "green"),
    Mark.CORRUPTED: ("✗", "bold red"),
    Mark.LOST: ("○", "red"),
    Mark.MISSED: ("◌", "yellow"),
    Mark.INVENTED: ("!", "magenta"),
    Mark.UNSEEN: ("·", "dim"),
    Mark.STALE: ("◍", "yellow"),
    Mark.SUPERSEDED: ("-", "dim"),
}
"""How a fact's mark is drawn."""

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co"})
"""Unicode categories that move a cursor, set colours, turn the line round, or show nothing."""


def harmless(text: str) -> str:
    """Text that a terminal only prints: each control or invisible character is shown as `�`; line
    ends and tabs stay."""
    text = text.replace("\r\n", "\n")
    found = {c for c in set(text) - {"\n", "\t"} if unicodedata.category(c) in _UNSAFE}
    return text.translate(dict.fromkeys(map(ord, found), "\N{REPLACEMENT CHARACTER}"))


def choose(
    listing: Json, *, task: str, sample: int | None = None, context: str | None = None
) -> tuple[Json, Sequence[Json]]:
    """The row that is meant, and those that are not of it but match as well.

    Of several records of one task, sample and context policy (a failure and its retry, or the same
    task in two steps of training) the last is meant.
    Raises: DataError if there's none.
    """
    rows = [dict(zip(listing["columns"], row, strict=True)) for row in listing["rows"]]
    of_task = [row for row in rows if row["task_id"] == task]
    if not of_task:
        known = dict.fromkeys(row["task_id"] for row in rows)
        near = difflib.get_close_matches(task, known, n=3, cutoff=0) or list(known)[:3]
        names = harmless(", ".join(near) or "none")
        raise DataError(f"no task {task!r} in this run: it has {names}, …")
    newest = {
        (row["sample"], row["context_policy"]): row
        for row in of_task
        if sample in (None, row["sample"]) and context in (None, row["context_policy"])
    }
    if not newest:
        asked = f"sample {sample}, context {context}"
        raise DataError(f"task {task!r} has no {asked}: it has {how_to_ask(of_task)}")
    first, *others = newest.values()
    return first, others


def how_to_ask(rows: Sequence[Json]) -> str:
    """The options that tell trajectories of one task apart, at most five of them."""
    asks = dict.fromkeys(f"--sample {r['sample']} --context '{r['context_policy']}'" for r in rows)
    return harmless("; ".join(list(asks)[:5]))


def show_list(console: Console, listing: Json, *, folder: str) -> None:
    """Print all trajectories of a run with their outcomes, and how to ask for one."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("task", "sample", "context", "hits", "reward", "turns", "peak / bound", "end"):
        is_text = heading in ("task", "context", "end")
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=True)
    for values in listing["rows"]:
        row = dict(zip(listing["columns"], values, strict=True))
        table.add_row(
            _text(row["task_id"]),
            str(row["sample"]),
            _text(row["context_policy"]),
            Text(f"{row['hits']:g} / {row['num_objectives']}", style=_good(row)),
            f"{row['reward']:.2f}",
            str(row["num_turns"]),
            f"{row['peak_tokens']:,.0f} / {_bound(row['bound'])}",
            _text(row["stop_reason"]),
        )
    console.print(_Wide(table), crop=False)
    for damage in listing["damaged"]:
        console.print(_text(f"{damage['where']}: {damage['why']}", style="red"))
    asks = f"mem1 show {folder} --task ID [--sample K] [--context POLICY] [--turn T]"
    console.print(_text(f"one of them: {asks}", style="dim"))


class _Wide:
    """A table that is as wide as it needs: a line longer than the terminal is still a line, so that
    ids can be copied, and searched for."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        needed = self._table.__rich_measure__(console, options.update(width=100_000)).maximum
        yield from console.render(self._table, options.update(width=max(needed, options.max_width)))


def show_trajectory(console: Console, view: Json, *, turn: int | None = None) -> None:
    """Print a trajectory turn by turn, or one of its turns with everything the model saw.

    Raises: DataError if it has no turn of this number.
    """
    turns: Sequence[Json] = view["turns"]
    if turn is not None and not 1 <= turn <= len(turns):
        raise DataError(f"--turn {turn}: the trajectory has turns 1 to {len(turns)}")
    shown = turns if turn is None else turns[turn - 1 : turn]
    console.print(_head(view))
    for one in shown:
        for part in _turn(view, one, whole=turn is not None):
            console.print(part)
    for part in _outcome(view):
        console.print(part)


def _head(view: Json) -> RenderableType:
    name = f"{view['task_id']} · sample {view['sample']} · {view['context_policy']}"
    saved = view["savings"]
    return Group(
        Rule(_text(name, style="bold"), align="left"),
        _text(
            f"{view['stop_reason']} · reward {view['reward']:.2f} · {len(view['turns'])} turns · "
            f"peak {saved['peak_tokens']:,.0f} tokens, bound {_bound(view['bound'])}, with full "
            f"context {saved['full_peak_tokens']:,.0f} · dependency {saved['dependency']:,.0f}, "
            f"with full context {saved['full_dependency']:,.0f}"
        ),
    )


def _turn(view: Json, turn: Json, *, whole: bool) -> Iterator[RenderableType]:
    """Args: `whole`, show all of its context and of its reply."""
    used = turn["context_tokens"] + turn["reply_tokens"]
    sizes = f"{turn['context_tokens']:,} in + {turn['reply_tokens']:,} out = {used:,} tokens"
    limits = f"bound {_bound(view['bound'])}; full context {turn['full_tokens']:,} in"
    title = Text.assemble(
        (f"turn {turn['turn']}", "bold"), f"  {sizes}, {limits}  {turn['engine_s']:.1f} s"
    )
    yield Rule(title, align="left", style="dim")
    yield _labelled("context", _parts(view, turn["context"]))
    if whole:
        for segment in (view["segments"][index] for index in turn["context"]):
            name, style = NAMES[segment["kind"]]
            yield from _block(_origin(segment, name), segment["text"], style=style, whole=True)
    if turn["state_diff"]:
        yield Text("state", style="cyan")
        yield Padding(_difference(turn["state_diff"]), (0, 0, 0, 4))
    action = turn["action"]
    if whole or action is None:
        yield from _block("reply", _said(turn), style="yellow", whole=whole)
    if action is not None:
        yield from _block(action["name"], action["argument"], style="bold green", whole=whole)
    if turn["faults"]:
        yield _labelled("faults", _text(", ".join(turn["faults"]), style="red"))
    if turn["observation"] is not None:
        yield from _block("seen", turn["observation"], style="dim", whole=whole)
    if turn["evicted"]:
        yield _labelled("evicted", _parts(view, turn["evicted"]))
    if view["facts"]:
        yield _labelled("facts", _facts_line(view["facts"], turn=turn["turn"]))


def _said(turn: Json) -> str:
    return "".join(text for _, text in turn["reply"])


def _parts(view: Json, indices: Sequence[int]) -> Text:
    """What segments are, with their tokens: `prompt 96 · state of turn 1 12`."""
    found = Text()
    for place, segment in enumerate(view["segments"][index] for index in indices):
        name, style = NAMES[segment["kind"]]
        found.append(" · " if place else "", style="dim")
        found.append(_origin(segment, name), style=style)
        found.append(f" {segment['tokens']:,}")
    return found


def _origin(segment: Json, name: str) -> str:
    return f"{name} of turn {segment['turn']}" if segment["turn"] else name


def _difference(diff: Sequence[Sequence[str]]) -> Text:
    """The state, with what is new since the last turn and what has gone."""
    if all(sign == "+" for sign, _ in diff):
        return _text(" ".join(words for _, words in diff))
    found = Text()
    for place, (sign, words) in enumerate(diff):
        found.append(" " if place else "")
        said = harmless(words)
        if sign == "-":
            found.append(f"[-{said}-]", style="red")
        elif sign == "+":
            found.append(f"{{+{said}+}}", style="green")
        else:
            found.append(said)
    return found


def _facts_line(facts: Sequence[Json], *, turn: int) -> Text:
    found = Text()
    for place, fact in enumerate(facts):
        sign, style = SIGNS[fact["marks"][turn - 1]]
        found.append("  " if place else "")
        found.append(f"{sign} ", style=style)
        found.append(_shortened(harmless(fact["key"]), 24))
    return found


def _outcome(view: Json) -> Iterator[RenderableType]:
    yield Rule(Text("outcome", style="bold"), align="left")
    for objective in view["objectives"]:
        sign, style = ("✓", "bold green") if objective["em"] else ("✗", "bold red")
        gold = " | ".join(objective["answers"])
        given = objective["given"]
        yield Text.assemble(
            (f"{sign} ", style),
            harmless(objective["question"]),
            (f"\n    given  {harmless(given) if given is not None else '(nothing)'}", style),
            f"\n    gold   {harmless(gold)}   F1 {objective['f1']:.2f}",
        )
    if view["error"] is not None:
        yield _text(f"failed: {view['error']}", style="red")
    if not view["facts"]:
        return
    yield Rule(Text("facts, turn by turn", style="bold"), align="left")
    for fact in view["facts"]:
        marks = [SIGNS[mark] for mark in fact["marks"]]
        yield Text.assemble(
            *marks,
            f"  {_shortened(harmless(fact['key']), 40)} = {harmless(' | '.join(fact['values']))}",
            ("  used", "green") if fact["used"] else ("  not used", "dim"),
        )
    yield Text.assemble(
        *(piece for mark, sign in SIGNS.items() for piece in (sign, f" {mark}  ")), style="dim"
    )
    known = [f"{name} {value:.2f}" for name, value in view["figures"].items() if value is not None]
    if known:
        yield _text(" · ".join(known).replace("_", " "))


def _block(label: str, text: str, *, style: str, whole: bool) -> Iterator[RenderableType]:
    yield Text(harmless(label), style=style)
    said = harmless(text.strip())
    body = said if whole else _shortened(said, MAX_SHOWN_CHARS)
    yield Padding(Text(body, style=style if style == "dim" else ""), (0, 0, 0, 4))


def _labelled(label: str, text: Text) -> Text:
    return Text.assemble((f"{label}  ", "dim"), text)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} …"


def _text(text: str, *, style: str = "") -> Text:
    return Text(harmless(text), style=style)


def _bound(bound: int | None) -> str:
    return "none" if bound is None else f"{bound:,}"


def _good(row: Json) -> str:
    if row["hits"] == row["num_objectives"]:
        return "green"
    return "yellow" if row["hits"] else "red"
