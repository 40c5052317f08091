"""RUN FOLDERS -> ANSWERS: all that the page, the report and the terminal draw, by path.

    runs                                             the runs and the settings in which they differ
    runs/0/cells                                     its figures, as in report.json
    runs/0/curves                                    its metrics, step by step
    runs/0/trajectories?from=20                      its trajectories from the 20th on, a row each
    runs/0/trajectories/17                           one of them
    runs/0/trajectories/17/turns/3/tokens            tokens of a turn
    runs/0/trajectories/17/layout[?group=1]          as the trainer lays it out, or all of its task

A path is numbers and these words; nothing of it ever names a file.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mem1.errors import DataError
from mem1.evals.metrics import peak_tokens
from mem1.rewards import score_answer
from mem1.types import FAILURES
from mem1.viewer.layout import layout_view
from mem1.viewer.records import Damage, Record, Records, trajectory_files
from mem1.viewer.runs import (
    CONFIG_FILE,
    cells_of,
    curves_of,
    differing,
    find_runs,
    is_training,
    names_of,
    num_lines,
    settings_of,
)
from mem1.viewer.trajectory_view import Decode, Json, tokens_view, trajectory_view

COLUMNS = (
    *("trajectory", "task_id", "sample", "step", "context_policy", "num_objectives", "question"),
    *("answer", "reward", "hits", "num_turns", "peak_tokens", "bound", "stop_reason", "text"),
)
MAX_SEARCHED_CHARS = 2000
MAX_QUESTION_CHARS = 160


def no_decoder(folder: Path) -> None:
    """Tokens are shown as ids."""


@dataclass(slots=True, kw_only=True)
class _Run:
    """What is known of a run: grows as the run does."""

    folder: Path
    records: Records
    rows: list[list[Any]] = field(default_factory=list[list[Any]])
    damaged: list[Damage] = field(default_factory=list[Damage])

    def look(self) -> None:
        for found in self.records.news():
            if isinstance(found, Damage):
                self.damaged.append(found)
            else:
                self.rows.append(row_of(found))


def row_of(record: Record) -> list[Any]:
    """A trajectory in the list, in the order of COLUMNS."""
    it = record.trajectory
    score = score_answer(it.task, None if it.stop_reason in FAILURES else it.answer)
    questions = " · ".join(objective.question for objective in it.task.objectives)
    answers = " ".join(answer for one in it.task.objectives for answer in one.answers)
    return [
        record.number,
        it.task.id,
        it.sample,
        record.step,
        it.context_policy,
        len(it.task.objectives),
        questions[:MAX_QUESTION_CHARS],
        it.answer[:MAX_QUESTION_CHARS] if it.answer is not None else None,
        it.reward,
        int(sum(score.exact_match)),
        it.num_turns,
        peak_tokens(it),
        it.bound,
        it.stop_reason,
        f"{questions} {answers} {it.answer or ''}".lower()[:MAX_SEARCHED_CHARS],
    ]


class Library:
    """The runs at or below some folders.

    >>> library = Library([Path("runs")])                                         # doctest: +SKIP
    >>> library.load("runs/0/trajectories/17")["stop_reason"]                     # doctest: +SKIP
    'answered'
    """

    def __init__(
        self, roots: Sequence[Path], *, decoder_of: Callable[[Path], Decode | None] = no_decoder
    ) -> None:
        """Args: `decoder_of`, what decodes the tokens of a run folder, if anything does.

        Raises: DataError for a folder that isn't there.
        """
        for root in roots:
            if not root.is_dir():
                raise DataError(f"{root}: no such folder: name run folders, or one that holds some")
        self._roots = tuple(roots)
        self._decoder_of = decoder_of
        self._decoders: dict[Path, Decode | None] = {}
        self._runs: list[_Run] = []
        self._record: tuple[int, Record] | None = None
        """The last one that was asked for, of the run of that number: its turns are next."""
        self._find()

    @property
    def folders(self) -> list[Path]:
        """The run folders by number; new ones come last."""
        return [run.folder for run in self._runs]

    def load(self, path: str) -> Json:
        """The answer to a path. Raises: DataError if there's none."""
        for pattern, answer in _PATHS:
            if found := re.fullmatch(pattern, path):
                return answer(self, *(int(number or 0) for number in found.groups()))
        raise DataError(f"{path[:80]!r}: nothing is shown there")

    def _find(self) -> None:
        known = {run.folder for run in self._runs}
        for root in self._roots:
            for folder in find_runs(root):
                if folder not in known:
                    known.add(folder)
                    self._runs.append(_Run(folder=folder, records=Records(folder)))

    def _run(self, number: int) -> _Run:
        if number >= len(self._runs):
            raise DataError(f"there is no run {number}, there are {len(self._runs)}")
        return self._runs[number]

    def _list_runs(self) -> Json:
        self._find()
        names = names_of(self.folders)
        settings = [settings_of(folder) for folder in self.folders]
        runs = [
            {
                "run": number,
                "name": name,
                "folder": str(run.folder),
                "kind": "train" if is_training(run.folder) else "eval",
                "config": config,
                "num_trajectories": num_lines(trajectory_files(run.folder)) - len(run.damaged),
                "damaged": ([{"where": CONFIG_FILE, "why": wrong}] if wrong else [])
                + _told(run.damaged),
            }
            for number, (name, run, (config, wrong)) in enumerate(
                zip(names, self._runs, settings, strict=True)
            )
        ]
        return {"runs": runs, "differing": differing([config for config, _ in settings])}

    def _cells(self, run: int) -> Json:
        return {"cells": cells_of(self._run(run).folder)}

    def _curves(self, run: int) -> Json:
        return curves_of(self._run(run).folder)

    def _list(self, run: int, start: int) -> Json:
        it = self._run(run)
        it.look()
        return {
            "columns": COLUMNS,
            "rows": it.rows[start:],
            "next": len(it.rows),
            "damaged": _told(it.damaged),
        }

    def _trajectory(self, run: int, number: int) -> Json:
        record = self._load(run, number)
        return {"run": run, "trajectory": number, **trajectory_view(record)}

    def _tokens(self, run: int, number: int, turn: int) -> Json:
        record = self._load(run, number)
        if not 1 <= turn <= record.trajectory.num_turns:
            raise DataError(f"no turn {turn}: there are {record.trajectory.num_turns}")
        folder = self._run(run).folder
        if folder not in self._decoders:
            self._decoders[folder] = self._decoder_of(folder)
        return tokens_view(record, turn, decode=self._decoders[folder])

    def _layout(self, run: int, number: int) -> Json:
        answer = layout_view([self._load(run, number)])
        return answer | {"group": self._group(run, number)}

    def _group_layout(self, run: int, number: int) -> Json:
        return layout_view([self._load(run, other) for other in self._group(run, number)])

    def _group(self, run: int, number: int) -> list[int]:
        """The rollouts of its task under its policy, of its step if it was trained on."""
        it = self._run(run)
        names = ("task_id", "context_policy", "step")
        places = [COLUMNS.index(name) for name in names]
        keys = [[row[place] for place in places] for row in it.rows]
        return [other for other, key in enumerate(keys) if key == keys[number]]

    def _load(self, run: int, number: int) -> Record:
        if self._record and (self._record[0], self._record[1].number) == (run, number):
            return self._record[1]
        it = self._run(run)
        if number >= len(it.rows):
            it.look()
        record = it.records.record(number)
        self._record = run, record
        return record


_ONE = r"runs/(\d{1,9})"
_TRAJECTORY = rf"{_ONE}/trajectories/(\d{{1,9}})"
_PATHS: Sequence[tuple[str, Callable[..., Json]]] = (
    (r"runs", Library._list_runs),
    (rf"{_ONE}/cells", Library._cells),
    (rf"{_ONE}/curves", Library._curves),
    (rf"{_ONE}/trajectories(?:\?from=(\d{{1,9}}))?", Library._list),
    (_TRAJECTORY, Library._trajectory),
    (rf"{_TRAJECTORY}/turns/(\d{{1,9}})/tokens", Library._tokens),
    (rf"{_TRAJECTORY}/layout", Library._layout),
    (rf"{_TRAJECTORY}/layout\?group=1", Library._group_layout),
)


def _told(damaged: Sequence[Damage]) -> list[Json]:
    return [{"where": f"{one.path.name}:{one.line}", "why": one.why} for one in damaged]
