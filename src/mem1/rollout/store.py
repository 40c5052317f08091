"""Trajectories on disk: one JSON line each, only ever appended.

    Trajectory -> append -> trajectories.jsonl -> read -> Trajectory

A context is stored as indices into its trajectory's table of segments, since most segments recur
from turn to turn. A line torn by a crash loses only itself; a second writer is refused.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson
from pydantic import TypeAdapter, ValidationError

from mem1.errors import DataError, StoreError
from mem1.types import (
    FAILURES,
    SCHEMA_VERSION,
    Action,
    Completion,
    Fault,
    Segment,
    StopReason,
    Task,
    Trajectory,
    Turn,
)

Key = tuple[str, int, str]
"""Task id, sample, context policy: what makes a trajectory one of its kind in a run."""


def key_of(trajectory: Trajectory) -> Key:
    return trajectory.task.id, trajectory.sample, trajectory.context_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoredTurn:
    context: tuple[int, ...]
    """Indices into the trajectory's `segments`."""
    completion: Completion
    action: Action | None
    faults: tuple[Fault, ...]
    observation: str | None
    engine_s: float
    env_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoredTrajectory:
    schema_version: int
    task: Task
    sample: int
    context_policy: str
    segments: tuple[Segment, ...]
    turns: tuple[_StoredTurn, ...]
    stop_reason: StopReason
    answer: str | None
    reward: float
    reward_parts: Mapping[str, float]
    bound: int | None
    seconds: float
    error: str | None


_ADAPTER = TypeAdapter(_StoredTrajectory)


def dump_trajectory(trajectory: Trajectory) -> bytes:
    """One line of JSON, without its line end."""
    table: dict[Segment, int] = {}
    turns = tuple(
        _StoredTurn(
            context=tuple(table.setdefault(segment, len(table)) for segment in turn.context),
            completion=turn.completion,
            action=turn.action,
            faults=turn.faults,
            observation=turn.observation,
            engine_s=turn.engine_s,
            env_s=turn.env_s,
        )
        for turn in trajectory.turns
    )
    stored = _StoredTrajectory(
        schema_version=SCHEMA_VERSION,
        task=trajectory.task,
        sample=trajectory.sample,
        context_policy=trajectory.context_policy,
        segments=tuple(table),
        turns=turns,
        stop_reason=trajectory.stop_reason,
        answer=trajectory.answer,
        reward=trajectory.reward,
        reward_parts=trajectory.reward_parts,
        bound=trajectory.bound,
        seconds=trajectory.seconds,
        error=trajectory.error,
    )
    return orjson.dumps(stored)


def load_trajectory(line: bytes) -> Trajectory:
    """The inverse of `dump_trajectory`. Raises ValueError (and subclasses) if it's not one."""
    stored = _ADAPTER.validate_json(line)
    if stored.schema_version != SCHEMA_VERSION:
        raise ValueError(
            f"schema_version {stored.schema_version}, this mem1 reads {SCHEMA_VERSION}"
        )
    turns = tuple(
        Turn(
            context=tuple(stored.segments[index] for index in turn.context),
            completion=turn.completion,
            action=turn.action,
            faults=turn.faults,
            observation=turn.observation,
            engine_s=turn.engine_s,
            env_s=turn.env_s,
        )
        for turn in stored.turns
    )
    return Trajectory(
        task=stored.task,
        sample=stored.sample,
        context_policy=stored.context_policy,
        turns=turns,
        stop_reason=stored.stop_reason,
        answer=stored.answer,
        reward=stored.reward,
        reward_parts=stored.reward_parts,
        bound=stored.bound,
        seconds=stored.seconds,
        error=stored.error,
    )


def read_trajectories(path: Path) -> Iterator[Trajectory]:
    """All whole records of a file, in order of writing; a torn last line is passed over.

    Raises: DataError naming the line if another line is damaged.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield load_trajectory(line)
            except (ValidationError, ValueError) as error:
                if not line.endswith(b"\n"):
                    return
                raise DataError(f"{path}:{number}: not a trajectory: {error}") from error


def latest(path: Path) -> dict[Key, Trajectory]:
    """The last record of each key: a failure gives way to the retry that followed it."""
    return {key_of(trajectory): trajectory for trajectory in read_trajectories(path)}


class TrajectoryStore:
    """The one writer of a trajectory file.

    >>> with TrajectoryStore(folder / "trajectories.jsonl") as store:  # doctest: +SKIP
    ...     store.append(trajectory)
    """

    def __init__(self, path: Path) -> None:
        """Open or create. Raises StoreError if another process has it open for writing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("ab+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise StoreError(
                f"{path} is being written by another process: wait for it, or use another folder"
            ) from error
        self._drop_torn_line()
        self.done = {
            key: trajectory
            for key, trajectory in latest(path).items()
            if trajectory.stop_reason not in FAILURES
        }
        """What needs no second run, by key."""

    def append(self, trajectory: Trajectory) -> None:
        """Write one record; it's on disk when this returns."""
        self._file.write(dump_trajectory(trajectory) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        if trajectory.stop_reason not in FAILURES:
            self.done[key_of(trajectory)] = trajectory

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _drop_torn_line(self) -> None:
        """Cut what a crash left behind the last line end, so that the next record starts clean."""
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            self._file.truncate(data.rfind(b"\n") + 1)
