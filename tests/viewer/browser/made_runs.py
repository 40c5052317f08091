"""Runs that no model would make: hostile ones, long ones, large ones; all through the library."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import orjson

from mem1.rollout.store import dump_trajectory, read_trajectories
from mem1.types import (
    Action,
    Completion,
    Context,
    Objective,
    Segment,
    SegmentKind,
    StopReason,
    Task,
    Trajectory,
    Turn,
)

_SHAPES = (
    "<script>{}</script>",
    "</script><script>{}</script>",
    "<img src=x onerror={}>",
    "<svg onload={}>",
    "<svg><animate onbegin={} attributeName=x dur=1s>",
    "<body onload={}>",
    "<iframe srcdoc='<script>parent.{}</script>'>",
    "<iframe src=javascript:parent.{}>",
    "<a href=javascript:{}>x</a>",
    '"><img src=x onerror={}>',
    "'><svg/onload={}>",
    "<details open ontoggle={}>",
    "<input autofocus onfocus={}>",
    "<math><mtext><script>{}</script>",
    "<link rel=stylesheet href=//elsewhere.invalid/{}>",
    "<style>@import '//elsewhere.invalid/{}';</style>",
    "<meta http-equiv=refresh content=0;url=//elsewhere.invalid/{}>",
    "<base href=//elsewhere.invalid/><img src={}>",
    "<!-- --><script>{}</script><!--",
    "${{{}}}`-{}-`\u2028\u0000\u202e<script>{}</script>",
)
PAYLOADS = tuple(
    shape.replace("{}", f"window.hit={number}") for number in range(10) for shape in _SHAPES
)
"""200 texts, each of which would set `window.hit` or ask another host if a page took it as HTML."""


def _segment(kind: SegmentKind, *, turn: int, text: str) -> Segment:
    return Segment(kind=kind, turn=turn, token_ids=tuple(range(1, 9)), text=text)


def turn_of(number: int, text: str, *, last: bool) -> Turn:
    """A turn of a MEM1 agent with the same text in all its parts."""
    kept = [SegmentKind.INTERNAL_STATE, SegmentKind.ACTION, SegmentKind.OBSERVATION]
    context: Context = (
        _segment(SegmentKind.PROMPT, turn=0, text=text),
        *(_segment(kind, turn=number - 1, text=text) for kind in kept if number > 1),
        _segment(SegmentKind.HINT, turn=number - 1, text=text),
    )
    reply = f"<think>{text}</think><search>{text}</search>"
    completion = Completion(
        token_ids=(5, 9, 2), logprobs=(-0.1, -1.2, -0.3), temperature=1.0, text=reply,
        finish_reason="stop",
    )  # fmt: skip
    return Turn(
        context=context, completion=completion, action=Action(name="search", argument=text),
        faults=(), observation=None if last else text, engine_s=0.1, env_s=0.0,
    )  # fmt: skip


def trajectory_of(texts: Sequence[str], *, task_id: str, policy: str = "internal_state"):
    """One turn and one objective per text."""
    objectives = tuple(Objective(question=text, answers=(text,)) for text in texts)
    return Trajectory(
        task=Task(id=task_id, objectives=objectives, source=task_id),
        sample=0,
        context_policy=policy,
        turns=tuple(
            turn_of(number, text, last=number == len(texts))
            for number, text in enumerate(texts, start=1)
        ),
        stop_reason=StopReason.ANSWERED,
        answer="; ".join(texts),
        reward=1.0,
        reward_parts={texts[0]: 1.0},
        bound=4096,
        seconds=1.0,
        error=texts[0],
    )


def write_run(folder: Path, trajectories: Sequence[Trajectory]) -> Path:
    """A run folder; its config repeats the first task's id."""
    folder.mkdir(parents=True)
    lines = [dump_trajectory(trajectory) + b"\n" for trajectory in trajectories]
    (folder / "trajectories.jsonl").write_bytes(b"".join(lines))
    name = orjson.dumps(trajectories[0].task.id).decode()
    (folder / "config.toml").write_text(f'[engine]\nkind = "local"\nmodel = {name}\n', "utf-8")
    return folder


def hostile_run(folder: Path) -> Path:
    """Every payload in every text field: ten trajectories of twenty turns."""
    chunks = [PAYLOADS[start : start + 20] for start in range(0, len(PAYLOADS), 20)]
    return write_run(
        folder,
        [trajectory_of(chunk, task_id=chunk[0], policy=chunk[1]) for chunk in chunks],
    )


def long_run(folder: Path, *, num_turns: int, words: int = 20) -> Path:
    """One trajectory of so many turns, each of whose parts has so many words."""
    texts = [" ".join(f"w{turn}x{word}" for word in range(words)) for turn in range(num_turns)]
    whole = trajectory_of(texts, task_id="long")
    few = replace(whole, task=replace(whole.task, objectives=whole.task.objectives[:4]))
    return write_run(folder, [replace(few, error=None, reward_parts={})])


def large_run(folder: Path, *, of: Path, num_trajectories: int) -> Path:
    """The trajectories of a run over and over, each as another rollout."""
    found = list(read_trajectories(of / "trajectories.jsonl"))
    return write_run(
        folder,
        [
            replace(found[number % len(found)], sample=number // len(found))
            for number in range(num_trajectories)
        ],
    )
