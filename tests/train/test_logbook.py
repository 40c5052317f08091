"""metrics.jsonl: append-only, torn-tail safe, set back with the run; and the sinks beside it."""

import importlib.util
import math
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from mem1.errors import ConfigError, DataError, MissingExtraError
from mem1.train.logbook import SINKS, Logbook, read_metrics


def log(folder: Path, *steps: int, last_step: int | None = None, **options) -> Path:
    with Logbook(folder, last_step=last_step, **options) as logbook:
        for step in steps:
            logbook.write({"reward": step / 4}, step=step)
    return folder / "metrics.jsonl"


def steps(path: Path) -> list[int]:
    return [record["step"] for record in read_metrics(path)]


def test_a_step_is_one_line_of_json(tmp_path):
    path = log(tmp_path / "run", 1)
    assert path.read_bytes() == b'{"schema_version":1,"step":1,"reward":0.25}\n'
    assert list(read_metrics(path)) == [{"step": 1, "reward": 0.25}]


def test_what_is_no_number_is_null(tmp_path):
    with Logbook(tmp_path, last_step=None) as logbook:
        numbers = {"a": math.nan, "b": math.inf, "c": np.float64("nan"), "d": np.float32(0.5)}
        logbook.write(numbers, step=1)
    expected = {"step": 1, "a": None, "b": None, "c": None, "d": 0.5}
    assert list(read_metrics(tmp_path / "metrics.jsonl")) == [expected]


def test_a_line_is_on_disk_when_it_is_written(tmp_path):
    logbook = Logbook(tmp_path, last_step=None)
    logbook.write({}, step=3)
    assert steps(tmp_path / "metrics.jsonl") == [3]
    logbook.close()


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path):
    path = log(tmp_path, 1, 2, 3, 4)
    before = path.read_bytes().splitlines()
    log(tmp_path, 3, 4, 5, last_step=2)
    assert steps(path) == [1, 2, 3, 4, 5]
    assert path.read_bytes().splitlines()[:4] == before


def test_a_new_run_begins_empty(tmp_path):
    log(tmp_path, 0, 1, 2)
    assert steps(log(tmp_path, 0)) == [0]


def test_a_run_may_be_resumed_without_its_metrics(tmp_path):
    assert steps(log(tmp_path, 8, last_step=7)) == [8]


def test_every_cut_of_the_last_line_loses_only_that(tmp_path):
    path = log(tmp_path, 1, 2)
    whole = path.read_bytes()
    for cut in range(len(whole) // 2, len(whole)):
        path.write_bytes(whole[:cut])
        # Without its line end only, a line is whole.
        kept = [1, 2] if cut == len(whole) - 1 else [1]
        assert steps(path) == kept
        assert steps(log(tmp_path, 5, last_step=4)) == [*kept, 5]


@pytest.mark.parametrize("line", [b"{torn", b"[1]", b'{"schema_version":1}'])
def test_a_damaged_line_is_named_and_nothing_is_dropped(tmp_path, line):
    path = log(tmp_path, 1, 2)
    path.write_bytes(data := line + b"\n" + path.read_bytes())
    with pytest.raises(DataError, match=r"metrics.jsonl:1: not metrics, delete the line"):
        Logbook(tmp_path, last_step=2)
    assert path.read_bytes() == data


def test_a_line_of_another_version_is_refused(tmp_path):
    path = log(tmp_path, 1)
    path.write_bytes(path.read_bytes().replace(b'version":1', b'version":2'))
    with pytest.raises(DataError, match="schema_version 2, this mem1 reads 1"):
        list(read_metrics(path))


def test_a_step_is_written_once(tmp_path):
    with pytest.raises(AssertionError, match="one line for each step"):
        log(tmp_path, 3, 3)
    with pytest.raises(AssertionError, match="one line for each step"):
        log(tmp_path, 3, last_step=3)


def test_an_unknown_sink_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match="'tensorbord': use some of tensorboard, trackio, wandb"):
        log(tmp_path, sinks=["tensorbord"])


@pytest.mark.parametrize("name", SINKS)
def test_a_sink_that_is_not_installed_names_its_extra(tmp_path, monkeypatch, name):
    log(tmp_path, 1, 2)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"{name} is not installed.*mem1-rl\[{name}\]"):
        log(tmp_path, sinks=[name])
    assert steps(tmp_path / "metrics.jsonl") == [1, 2]


def test_every_sink_has_its_extra():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(SINKS) <= set(project["optional-dependencies"])


class Tracker:
    """What trackio and wandb have in common: `init` gives a run, to log to and to finish."""

    def __init__(self) -> None:
        self.inits: list[dict] = []
        self.logged: list[tuple[dict, int]] = []
        self.finished = 0

    def init(self, **options) -> "Tracker":
        self.inits.append(options)
        return self

    def log(self, metrics: dict, step: int) -> None:
        self.logged.append((metrics, step))

    def finish(self) -> None:
        self.finished += 1


@pytest.mark.parametrize(("name", "identity"), [("trackio", "name"), ("wandb", "id")])
def test_a_tracker_gets_every_step_in_the_run_it_knows(tmp_path, monkeypatch, name, identity):
    tracker = Tracker()
    monkeypatch.setitem(sys.modules, name, tracker)
    log(tmp_path / "run", 1, 2, sinks=[name], project="p")
    log(tmp_path / "run", 3, sinks=[name], project="p", last_step=2)
    log(tmp_path / "run", 1, sinks=[name], project="p")
    assert tracker.logged == [({"reward": s / 4}, s) for s in (1, 2, 3, 1)]
    assert tracker.finished == 3
    first, resumed, new = (options[identity] for options in tracker.inits)
    assert first == resumed != new
    assert {(options["project"], options["resume"]) for options in tracker.inits} == {
        ("p", "allow")
    }


@pytest.mark.skipif(not importlib.util.find_spec("tensorboard"), reason="needs tensorboard")
def test_tensorboard_shows_what_was_written(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log(tmp_path, 1, 2, 3, sinks=["tensorboard"])
    log(tmp_path, 3, 4, sinks=["tensorboard"], last_step=2)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("reward")
    assert [(event.step, event.value) for event in events] == [
        (1, 0.25),
        (2, 0.5),
        (3, 0.75),
        (4, 1.0),
    ]
