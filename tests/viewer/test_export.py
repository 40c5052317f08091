"""An export is whole or not there, tells what it left out, and overwrites only another export."""

import json

import pyarrow.parquet as pq
import pytest
from worlds import answer, play, scripted, search

from mem1.errors import ConfigError, DataError, EngineError
from mem1.rollout.store import dump_trajectory
from mem1.viewer import export
from mem1.viewer.export import export_run

FOUND = play(scripted(search("nothing yet"), answer("Paris")))
FAILED = play(scripted(EngineError("server down")))


@pytest.fixture
def run(tmp_path):
    """A run of two trajectories, one that failed at once, and a damaged line."""
    folder = tmp_path / "demo"
    folder.mkdir()
    lines = [dump_trajectory(FOUND), b"{}", dump_trajectory(FAILED), dump_trajectory(FOUND)]
    (folder / "trajectories.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    (folder / "config.toml").write_text('[engine]\nmodel = "some/model"\n')
    return folder


def inside(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("to", ["atif", "parquet"])
def test_what_is_written_and_left_out_is_counted(run, to):
    done = export_run(run, to=to)
    assert (done.num_trajectories, done.num_turns, done.num_without_turns) == (3, 4, 1)
    assert [damage.line for damage in done.damaged] == [2]


def test_atif_is_one_document_for_each_trajectory(run):
    path = export_run(run, to="atif").path
    assert path == run / "atif"
    assert inside(path) == [f"trajectory-{number:06d}.json" for number in range(3)]
    found = json.loads((path / "trajectory-000002.json").read_bytes())
    assert found["trajectory_id"] == "demo-000002"
    assert found["agent"]["model_name"] == "some/model"


def test_parquet_is_one_file(run):
    path = export_run(run, to="parquet").path
    assert path == run / "turns.parquet"
    assert pq.read_table(path)["trajectory"].to_pylist() == [0, 0, 2, 2]


@pytest.mark.parametrize("config", [None, "no toml", "engine = 3\n", "[engine]\nkind = 'x'\n"])
def test_a_run_need_not_say_its_model(run, config):
    (run / "config.toml").unlink()
    if config is not None:
        (run / "config.toml").write_text(config)
    path = export_run(run, to="atif").path
    assert "model_name" not in json.loads((path / "trajectory-000000.json").read_bytes())["agent"]


@pytest.mark.parametrize("to", ["atif", "parquet"])
def test_an_earlier_export_is_replaced_only_if_asked(run, to, tmp_path):
    out = tmp_path / "there" / "out"
    export_run(run, to=to, out=out)
    with pytest.raises(ConfigError, match="is there already: add --force"):
        export_run(run, to=to, out=out)
    (run / "trajectories.jsonl").write_bytes(dump_trajectory(FOUND) + b"\n")
    assert export_run(run, to=to, out=out, force=True).num_trajectories == 1
    assert len(inside(out)) == 1 if to == "atif" else pq.read_metadata(out).num_rows == 2
    assert inside(out.parent) == ["out"]


@pytest.mark.parametrize("to", ["atif", "parquet"])
@pytest.mark.parametrize("name", [".", "config.toml", "trajectories.jsonl"])
def test_nothing_else_is_ever_replaced(run, to, name):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(ConfigError, match="nothing else is replaced"):
        export_run(run, to=to, out=run / name, force=True)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.parametrize("to", ["atif", "parquet"])
def test_an_export_that_breaks_off_leaves_what_was_there(run, to, tmp_path, monkeypatch):
    out = tmp_path / "out"
    export_run(run, to=to, out=out)
    before = inside(out) if to == "atif" else out.read_bytes()

    def interrupted(*_, **__):
        yield from list(export.read_records(run))[:1]
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "_counted", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_run(run, to=to, out=out, force=True)
    assert (inside(out) if to == "atif" else out.read_bytes()) == before
    assert inside(tmp_path) == ["demo", "out"]


@pytest.mark.parametrize("to", ["atif", "parquet"])
def test_a_run_of_which_nothing_can_be_read_gives_no_export(run, to):
    (run / "trajectories.jsonl").write_bytes(b"{}\n")
    with pytest.raises(DataError, match=r"no trajectory can be read, the first damage .*jsonl:1"):
        export_run(run, to=to)
    assert inside(run) == ["config.toml", "trajectories.jsonl"]
