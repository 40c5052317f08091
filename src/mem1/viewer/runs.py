"""RUN FOLDERS -> WHAT EACH IS: its settings, its curves, its cells.

    runs -> find_runs -> [runs/demo, runs/learn/seed-0/full-after, …]
    runs/demo -> settings_of, curves_of, cells_of -> JSON-able data

What can't be read is told as text, never raised: a run may be damaged, or only begun.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mem1.errors import DataError
from mem1.evals.cells import cell_groups, make_cell
from mem1.evals.report import read_report
from mem1.evals.run import TRAJECTORIES_FILE
from mem1.rollout.store import key_of
from mem1.train.logbook import METRICS_FILE, read_metrics
from mem1.viewer.records import ROLLOUTS, Record, Records

CONFIG_FILE = "config.toml"


def find_runs(root: Path) -> list[Path]:
    """The run folders at or below a folder, in order of their names."""
    found: list[Path] = []
    for folder, below, files in os.walk(root):
        if TRAJECTORIES_FILE in files or METRICS_FILE in files or ROLLOUTS in below:
            found.append(Path(folder))
            below.clear()
        below[:] = sorted(name for name in below if not name.startswith("."))
    return sorted(found)


def names_of(folders: Sequence[Path]) -> list[str]:
    """What tells run folders apart: as many last parts of their paths as that takes."""
    paths = [folder.resolve() for folder in folders]
    for size in range(1, max((len(path.parts) for path in paths), default=0)):
        names = ["/".join(path.parts[-size:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def settings_of(folder: Path) -> tuple[dict[str, Any], str | None]:
    """The run's config by dotted path, and what is wrong with the file."""
    path = folder / CONFIG_FILE
    try:
        return dict(_flat(tomllib.loads(path.read_text("utf-8")))), None
    except FileNotFoundError:
        return {}, None
    except (OSError, ValueError) as error:
        return {}, f"not a config: {error}"


def _flat(table: Mapping[str, Any], *, at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, at=f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Dotted paths at which not all configs agree, sorted."""
    keys = sorted({key for config in configs for key in config})
    return [key for key in keys if any(c.get(key) != configs[0].get(key) for c in configs)]


def curves_of(folder: Path) -> dict[str, Any]:
    """The metrics of training, step by step, as far as they can be read."""
    rows: list[dict[str, Any]] = []
    with suppress(DataError):
        # One after the other: those before the damage stay.
        for row in read_metrics(folder / METRICS_FILE):
            rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    return {
        "steps": [row["step"] for row in rows],
        "curves": {name: [row.get(name) for row in rows] for name in names},
    }


def is_training(folder: Path) -> bool:
    """Whether a run trains a policy."""
    return (folder / METRICS_FILE).is_file() or (folder / ROLLOUTS).is_dir()


def cells_of(folder: Path) -> list[dict[str, Any]]:
    """The cells of an evaluation: those of its report if it's newer than the trajectories, else
    computed now. A training run has none: its policy changes from step to step."""
    trajectories, report = folder / TRAJECTORIES_FILE, folder / "report.json"
    if not trajectories.is_file():
        return []
    if report.is_file() and report.stat().st_mtime_ns >= trajectories.stat().st_mtime_ns:
        with suppress(DataError):
            return [asdict(cell) for cell in read_report(folder).cells]
    # Of a failure and its retry, the retry counts.
    newest = {
        key_of(found.trajectory): found.trajectory
        for found in Records(folder).news()
        if isinstance(found, Record)
    }
    return [asdict(make_cell(group)) for group in cell_groups(newest.values())]


def num_lines(paths: Sequence[Path]) -> int:
    """Whole lines of some files."""
    return sum(_line_ends(path) for path in paths)


def _line_ends(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
