"""RUN FOLDER -> ITS TRAJECTORIES, one after the other, and what of them can't be read.

    trajectories.jsonl, or rollouts/step-*.jsonl of training -> read_records -> Record, Damage

Records are numbered from 0 in the order of the files and their lines, damaged lines not counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mem1.errors import DataError
from mem1.evals.run import TRAJECTORIES_FILE
from mem1.rollout.advantages import advantages_of, read_advantages
from mem1.rollout.store import load_trajectory
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Something that can't be read, which is left out."""

    path: Path
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.why}"


def trajectory_files(folder: Path) -> list[Path]:
    """The files of a run's trajectories: one of an evaluation, or one for each training step.

    Raises: DataError if there's none.
    """
    whole = folder / TRAJECTORIES_FILE
    files = [whole] if whole.is_file() else sorted((folder / ROLLOUTS).glob("step-*.jsonl"))
    if not files:
        raise DataError(
            f"{folder}: neither {TRAJECTORIES_FILE} nor {ROLLOUTS}/step-*.jsonl is there: name the "
            "folder of a run"
        )
    return files


def read_records(folder: Path) -> Iterator[Record | Damage]:
    """All trajectories of a run, failures included, holding one at a time."""
    number = 0
    for path in trajectory_files(folder):
        step = int(path.stem.removeprefix("step-")) if path.name != TRAJECTORIES_FILE else None
        try:
            stored = read_advantages(path)
        except DataError as error:
            stored = {}
            yield Damage(path=path, line=0, why=f"without advantages: {error}")
        with path.open("rb") as file:
            for line_number, line in enumerate(file, start=1):
                try:
                    trajectory = load_trajectory(line)
                except (ValueError, LookupError, TypeError) as error:
                    yield Damage(path=path, line=line_number, why=_why(line, error))
                    continue
                yield Record(
                    number=number,
                    trajectory=trajectory,
                    step=step,
                    advantages=advantages_of(trajectory, stored=stored),
                )
                number += 1


def _why(line: bytes, error: Exception) -> str:
    """One line that says what is wrong with a record."""
    if not line.endswith(b"\n"):
        return "the last line isn't whole: the run is writing it, or was stopped"
    said = str(error).splitlines()
    return f"not a trajectory: {'; '.join(part.strip() for part in said[:3])}"[:300]
