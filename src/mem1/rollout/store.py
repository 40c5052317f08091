"""Trajectories on disk: one JSON line each, only ever appended.

    Trajectory -> append -> trajectories.jsonl -> read -> Trajectory

A context is stored as indices into its trajectory's table of segments, since most segments recur
from turn to turn. A line torn by a crash loses only itself; a second writer is refused.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import orjson
from pydantic import TypeAdapter

from mem1.errors import DataError, StoreError
from mem1.types import FAILURES, SCHEMA_VERSION, Segment, Trajectory, Turn

Key = tuple[str, int, str]
"""Task id, sample, context policy: what makes a trajectory one of its kind in a run."""


_SYNC_EVERY_S = 1.0
"""Waiting for the disk after every record would cost more than a small model takes to write it."""


def key_of(trajectory: Trajectory) -> Key:
    return trajectory.task.id, trajectory.sample, trajectory.context_policy


_SEGMENTS = TypeAdapter(list[Segment])
_TRAJECTORY = TypeAdapter(Trajectory)


def dump_trajectory(trajectory: Trajectory) -> bytes:
    """One line of JSON, without its line end."""
    table: dict[Segment, int] = {}
    turns = [
        _fields(turn) | {"context": [table.setdefault(s, len(table)) for s in turn.context]}
        for turn in trajectory.turns
    ]
    record = {"schema_version": SCHEMA_VERSION, **_fields(trajectory), "turns": turns}
    return orjson.dumps(record | {"segments": list(table)})


def load_trajectory(line: bytes) -> Trajectory:
    """The inverse of `dump_trajectory`. Raises ValueError (and subclasses) if it's not one."""
    found = orjson.loads(line)
    if not isinstance(found, dict):
        raise ValueError("a record is a JSON object")
    record = cast(dict[str, Any], found)
    version = record.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema_version {version}, this mem1 reads {SCHEMA_VERSION}")
    segments = _SEGMENTS.validate_python(record.pop("segments"))
    turns: list[dict[str, Any]] = record["turns"]
    for turn in turns:
        indices: list[int] = turn["context"]
        turn["context"] = tuple(segments[index] for index in indices)
    return _TRAJECTORY.validate_python(record)


def _fields(value: Trajectory | Turn) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


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
            except (ValueError, LookupError, TypeError) as error:
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
        self._synced = time.monotonic()
        self._drop_torn_line()
        self.done = {
            key: trajectory
            for key, trajectory in latest(path).items()
            if trajectory.stop_reason not in FAILURES
        }
        """What needs no second run, by key."""

    def append(self, trajectory: Trajectory) -> None:
        """Write one record: whatever becomes of this process, it's kept. A machine that fails may
        lose those of the last second, which are then owed again."""
        self._file.write(dump_trajectory(trajectory) + b"\n")
        self._file.flush()
        if time.monotonic() - self._synced >= _SYNC_EVERY_S:
            self._sync()
        if trajectory.stop_reason not in FAILURES:
            self.done[key_of(trajectory)] = trajectory

    def close(self) -> None:
        """Everything is on disk when this returns; calling twice is harmless."""
        if not self._file.closed:
            self._sync()
            self._file.close()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

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
