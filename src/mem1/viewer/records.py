"""RUN FOLDER -> ITS TRAJECTORIES, one after the other, and what of them can't be read.

    trajectories.jsonl, or rollouts/step-*.jsonl of training -> Records.news -> Record, Damage
    17 -> Records.record -> Record

Records are numbered from 0 in the order of the files and their lines, damaged lines not counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mem1.errors import DataError
from mem1.evals.run import TRAJECTORIES_FILE
from mem1.rollout.advantages import Stored, advantages_of, read_advantages
from mem1.rollout.store import Key, load_trajectory
from mem1.types import Trajectory

ROLLOUTS = "rollouts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One stored trajectory and where it is from."""

    number: int
    trajectory: Trajectory
    step: int | None
    """Of training; None for an evaluation."""
    advantages: tuple[tuple[float, ...], ...] | None
    """Of each turn's sampled tokens; None if they weren't learned from."""
    left_out: bool = False
    """Whether training learned from others of its step, but not from this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Something that can't be read, which is left out."""

    path: Path
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    path: Path
    start: int
    """Of its line, in bytes."""


class Records:
    """The records of a run, which may still be written: what is new is read when asked for.

    >>> records = Records(Path("runs/demo"))                                      # doctest: +SKIP
    >>> sum(isinstance(found, Record) for found in records.news())                # doctest: +SKIP
    384
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: list[_Place] = []
        self._read: dict[Path, tuple[int, int]] = {}
        """Bytes and lines of each file that were read."""
        self._advantages: dict[Path, dict[Key, Stored]] = {}
        self._without_advantages: dict[Path, Damage] = {}
        """Files whose advantages can't be read."""

    def __len__(self) -> int:
        """Records met so far."""
        return len(self._places)

    def news(self) -> Iterator[Record | Damage]:
        """What was not met before, holding one at a time.

        A last line without an end is not met: it may still grow. Where a file has shrunk it was
        written anew; it's read from its beginning, and what it held before keeps its numbers.
        """
        for path in trajectory_files(self.folder):
            size, (start, number) = path.stat().st_size, self._read.get(path, (0, 0))
            if size < start:
                start, number = 0, 0
            if size == start:
                continue
            with path.open("rb") as file:
                file.seek(start)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    place = _Place(path=path, start=start)
                    start, number = start + len(line), number + 1
                    self._read[path] = start, number
                    yield from self._met(line, place=place, number=number)

    def torn(self) -> Iterator[Damage]:
        """Last lines without an end."""
        for path in trajectory_files(self.folder):
            start, number = self._read.get(path, (0, 0))
            if path.stat().st_size > start:
                why = "the last line isn't whole: the run is writing it, or was stopped"
                yield Damage(path=path, line=number + 1, why=why)

    def record(self, number: int) -> Record:
        """A record that was met. Raises: DataError if there's none of this number, or if its file
        has changed."""
        if not 0 <= number < len(self._places):
            raise DataError(f"{self.folder}: no trajectory {number}: there are {len(self)}")
        place = self._places[number]
        try:
            with place.path.open("rb") as file:
                file.seek(place.start)
                trajectory = load_trajectory(file.readline())
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DataError(
                f"{place.path}: trajectory {number} isn't where it was, open the run anew: {error}"
            ) from error
        return self._record(trajectory, place=place, number=number)

    def _met(self, line: bytes, *, place: _Place, number: int) -> Iterator[Record | Damage]:
        try:
            trajectory = load_trajectory(line)
        except (ValueError, LookupError, TypeError) as error:
            said = "; ".join(part.strip() for part in str(error).splitlines()[:3])
            yield Damage(path=place.path, line=number, why=f"not a trajectory: {said}"[:300])
            return
        known = len(self._without_advantages)
        self._places.append(place)
        record = self._record(trajectory, place=place, number=len(self._places) - 1)
        yield from list(self._without_advantages.values())[known:]
        yield record

    def _record(self, trajectory: Trajectory, *, place: _Place, number: int) -> Record:
        stored = self._stored(place.path)
        advantages = advantages_of(trajectory, stored=stored)
        return Record(
            number=number,
            trajectory=trajectory,
            step=step_of(place.path),
            advantages=advantages,
            left_out=bool(stored) and advantages is None,
        )

    def _stored(self, path: Path) -> dict[Key, Stored]:
        """The advantages of a file's trajectories; those of the last file are kept."""
        if path in self._without_advantages:
            return {}
        if path not in self._advantages or not self._advantages[path]:
            try:
                self._advantages = {path: read_advantages(path)}
            except DataError as error:
                why = f"without advantages: {error}"
                self._without_advantages[path] = Damage(path=path, line=0, why=why)
                return {}
        return self._advantages[path]


def read_records(folder: Path) -> Iterator[Record | Damage]:
    """All trajectories of a run, failures included, and all that can't be read.

    Raises: DataError if the folder has no trajectories.
    """
    check_trajectories(folder)
    records = Records(folder)
    yield from records.news()
    yield from records.torn()


def check_trajectories(folder: Path) -> None:
    """Raises: DataError if a folder has no files of trajectories."""
    if not trajectory_files(folder):
        raise DataError(
            f"{folder}: neither {TRAJECTORIES_FILE} nor {ROLLOUTS}/step-*.jsonl is there: name the "
            "folder of a run"
        )


def trajectory_files(folder: Path) -> list[Path]:
    """The files of a run's trajectories: one of an evaluation, or one for each training step."""
    whole = folder / TRAJECTORIES_FILE
    return [whole] if whole.is_file() else sorted((folder / ROLLOUTS).glob("step-*.jsonl"))


def step_of(path: Path) -> int | None:
    """The training step of a file of rollouts; None for another file."""
    return int(path.stem.removeprefix("step-")) if path.stem.startswith("step-") else None
