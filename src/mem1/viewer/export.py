"""RUN FOLDER -> FILES THAT OTHER PROGRAMS OPEN: whole, or not there.

    runs/demo, "atif"    -> export_run -> runs/demo/atif/trajectory-000017.json, one for each
    runs/demo, "parquet" -> export_run -> runs/demo/turns.parquet, one row for each turn

Damaged lines are left out and told. Only an earlier export is ever overwritten, and only if asked.
"""

import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import orjson

from mem1.errors import ConfigError, DataError
from mem1.viewer.atif import Origin, atif_document
from mem1.viewer.parquet import write_turns
from mem1.viewer.records import Damage, Record, check_trajectories, read_records

Format = Literal["atif", "parquet"]

DEFAULT_NAMES: dict[Format, str] = {"atif": "atif", "parquet": "turns.parquet"}
"""Where an export goes in the run's folder."""


@dataclass(slots=True, kw_only=True)
class Exported:
    """What an export has written, and what it has left out."""

    path: Path
    num_trajectories: int = 0
    num_turns: int = 0
    num_without_turns: int = 0
    """Trajectories that ended before their first turn: no row tells of them."""
    damaged: list[Damage] = field(default_factory=list[Damage])


def export_run(
    folder: Path, *, to: Format, out: Path | None = None, force: bool = False
) -> Exported:
    """Write a run's trajectories in the format of other programs.

    Args: `out`, the folder (atif) or file (parquet) to write, else `DEFAULT_NAMES` in the run's
    folder; `force`, replace an earlier export there.
    Raises: DataError if the run has no trajectory that can be read; ConfigError if `out` is there.
    """
    folder = folder.resolve()
    check_trajectories(folder)
    done = Exported(path=out or folder / DEFAULT_NAMES[to])
    write, is_ours = (_write_atif, _is_atif) if to == "atif" else (_write_parquet, _is_parquet)
    if done.path.exists() and not force:
        raise ConfigError(f"{done.path} is there already: add --force to replace it, or name -o")
    if done.path.exists() and not is_ours(done.path):
        raise ConfigError(
            f"{done.path} is no earlier export to {to}, and nothing else is replaced: name another "
            "place with -o"
        )
    with _whole(done.path, is_folder=to == "atif") as partial:
        write(partial, _counted(folder, done), folder)
        if not done.num_trajectories:
            first = f", the first damage is {done.damaged[0]}" if done.damaged else ""
            raise DataError(f"{folder}: no trajectory can be read{first}: name another run")
    return done


def _counted(folder: Path, done: Exported) -> Iterator[Record]:
    """The records of a run; what is met is noted."""
    for record in read_records(folder):
        if isinstance(record, Damage):
            done.damaged.append(record)
            continue
        done.num_trajectories += 1
        done.num_turns += record.trajectory.num_turns
        done.num_without_turns += not record.trajectory.turns
        yield record


def _write_parquet(path: Path, records: Iterator[Record], folder: Path) -> None:
    write_turns(path, records, run=folder.name)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _write_atif(path: Path, records: Iterator[Record], folder: Path) -> None:
    origin = Origin(run=folder.name, version=version("mem1-rl"), model=_model(folder))
    path.mkdir()
    for record in records:
        document = orjson.dumps(
            atif_document(record, origin=origin),
            option=orjson.OPT_APPEND_NEWLINE,
        )
        (path / f"trajectory-{record.number:06d}.json").write_bytes(document)
    # One for all files: thousands of them would wait for the disk one after the other.
    os.sync()


def _model(folder: Path) -> str | None:
    """Name of the model that the run's config tells; None if it tells none."""
    try:
        config = tomllib.loads((folder / "config.toml").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    engine = config.get("engine")
    model = engine.get("model") if isinstance(engine, dict) else None
    return model if isinstance(model, str) else None


def _is_atif(path: Path) -> bool:
    return path.is_dir() and all(
        re.fullmatch(r"trajectory-\d+\.json", entry.name) for entry in path.iterdir()
    )


def _is_parquet(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


@contextmanager
def _whole(path: Path, *, is_folder: bool) -> Iterator[Path]:
    """A new path beside `path`, which takes its place at the end of the block; after an exception
    nothing has changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    partial = beside / "new"
    try:
        yield partial
        if is_folder and path.exists():
            # No folder can take the place of a full one.
            path.rename(beside / "old")
            try:
                partial.rename(path)
            except OSError:
                (beside / "old").rename(path)
                raise
        else:
            partial.replace(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
