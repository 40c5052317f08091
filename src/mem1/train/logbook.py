"""The numbers of a run, step by step: metrics.jsonl always, and whatever else shows them.

    {metric: value} -> Logbook.write -> metrics.jsonl | TensorBoard | trackio | wandb

    {"schema_version": 1, "step": 7, "reward": 0.25, "kl": null}

One line for each step, ascending; NaN and infinity are null. A line torn by a crash loses only
itself. A resumed run drops what was written after its checkpoint, since it writes that again.
"""

import importlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Protocol, Self

import orjson

from mem1.errors import ConfigError, DataError, MissingExtraError
from mem1.files import atomic_write, read_lines

SCHEMA_VERSION = 1
"""Version of a line of metrics.jsonl."""

METRICS_FILE = "metrics.jsonl"


class Sink(Protocol):
    """Where metrics go."""

    def write(self, metrics: Mapping[str, float], *, step: int) -> None: ...

    def close(self) -> None: ...


class Logbook:
    """Writes each step's metrics to the file and to every sink.

    >>> with Logbook(folder, last_step=None, sinks=["tensorboard"]) as logbook:  # doctest: +SKIP
    ...     logbook.write({"reward": 0.25}, step=1)
    """

    def __init__(
        self,
        folder: Path,
        *,
        last_step: int | None,
        sinks: Sequence[str] = (),
        project: str = "mem1",
    ) -> None:
        """Open the logbook of a run folder.

        Args: `last_step`, step of the checkpoint the run goes on from: what was written after it
        is dropped; None for a new run, whose file begins empty. `sinks`, names of SINKS; `project`,
        what trackio and wandb file the run under.
        Raises: ConfigError for an unknown sink; MissingExtraError if its package isn't installed;
        DataError naming a damaged line of metrics.jsonl.
        """
        unknown = [name for name in sinks if name not in SINKS]
        if unknown:
            raise ConfigError(f"unknown sink {unknown[0]!r}: use some of {', '.join(SINKS)}")
        self._last_step = last_step
        others = [SINKS[name](folder, last_step, project) for name in sinks]
        self._sinks = [MetricsFile(folder / METRICS_FILE, last_step=last_step), *others]

    def write(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Write what was measured in a step; once for each, in ascending order.

        Args: `metrics`, all of the step, evaluations included; NaN where there is no number.
        """
        assert self._last_step is None or step > self._last_step, "one line for each step"
        self._last_step = step
        for sink in self._sinks:
            sink.write(metrics, step=step)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics file as `{"step": …, metric: …}`; a torn last line is passed over.

    Raises: DataError naming the line if another one is damaged or of another version.
    """
    for number, line in read_lines(path):
        try:
            record = orjson.loads(line)
            version, _ = record.pop("schema_version"), record["step"]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            if not line.endswith(b"\n"):
                return
            raise DataError(f"{path}:{number}: not metrics, delete the line: {error}") from error
        if version != SCHEMA_VERSION:
            raise DataError(
                f"{path}:{number}: schema_version {version}, this mem1 reads {SCHEMA_VERSION}: "
                "move the file away"
            )
        yield record


class MetricsFile:
    """metrics.jsonl: a `Sink` that only appends."""

    def __init__(self, path: Path, *, last_step: int | None) -> None:
        kept = b""
        if last_step is not None and path.exists():
            records = read_metrics(path)
            kept = b"".join(_line(record) for record in records if record["step"] <= last_step)
        # Also cuts off a torn line.
        atomic_write(path, kept)
        self._file = path.open("ab")

    def write(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Append one line; it's on disk when this returns."""
        self._file.write(_line({"step": step, **metrics}))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class TensorBoardSink:
    """Event files in the run folder; `tensorboard --logdir` shows them."""

    def __init__(self, folder: Path, *, last_step: int | None) -> None:
        # torch has the writer, tensorboard is what it writes with.
        _module("tensorboard")
        from torch.utils.tensorboard.writer import SummaryWriter

        # What the folder holds from this step on is hidden: the run writes it again.
        purge_step = 0 if last_step is None else last_step + 1
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge_step)

    def write(self, metrics: Mapping[str, float], *, step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class TrackerSink:
    """A run of trackio or wandb, both of which take no step back: what a resumed run does again
    is there twice in trackio, once in wandb."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def write(self, metrics: Mapping[str, float], *, step: int) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


def _tensorboard(folder: Path, last_step: int | None, project: str) -> Sink:
    return TensorBoardSink(folder, last_step=last_step)


def _trackio(folder: Path, last_step: int | None, project: str) -> Sink:
    run_id = _run_id(folder / "trackio.id", last_step=last_step)
    name = f"{folder.resolve().name}-{run_id}"
    return TrackerSink(_module("trackio").init(project=project, name=name, resume="allow"))


def _wandb(folder: Path, last_step: int | None, project: str) -> Sink:
    run_id = _run_id(folder / "wandb.id", last_step=last_step)
    name = folder.resolve().name
    run = _module("wandb").init(
        project=project, name=name, id=run_id, dir=str(folder), resume="allow"
    )
    return TrackerSink(run)


SINKS: Mapping[str, Callable[[Path, int | None, str], Sink]] = {
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "wandb": _wandb,
}
"""What may show the metrics beside the file: made from run folder, last step and project."""


def _run_id(path: Path, *, last_step: int | None) -> str:
    """What a tracker knows the run by: new for a new run, else as it was."""
    if last_step is None or not path.exists():
        atomic_write(path, uuid.uuid4().hex[:12])
    return path.read_text("utf-8")


def _module(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(package, extra=package) from error


def _line(record: Mapping[str, Any]) -> bytes:
    versioned = {"schema_version": SCHEMA_VERSION, **record}
    return orjson.dumps(versioned, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)
