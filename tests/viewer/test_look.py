"""`mem1 show`, `export`, `report`, `view`: what they print, and how they end."""

import json
from dataclasses import replace

import pytest
from worlds import answer, play, scripted, search

from mem1.cli import run_command
from mem1.rollout import TrajectoryStore

FOUND = play(scripted(search("nothing yet"), answer("Paris")))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of two samples, looked at from the folder that holds it."""
    monkeypatch.chdir(tmp_path)
    with TrajectoryStore(tmp_path / "demo/trajectories.jsonl") as store:
        for sample in (0, 1):
            store.append(replace(FOUND, sample=sample))
    (tmp_path / "demo/config.toml").write_text('[engine]\nkind = "local"\nmodel = "none"\n')
    return tmp_path / "demo"


def said(capsys, *arguments, status=0):
    assert run_command([*arguments]) == status
    return capsys.readouterr()


def test_show_lists_the_tasks_of_a_run(run, capsys):
    printed = said(capsys, "show", "demo").out
    assert printed.count("internal_state") == 2
    assert "mem1 show demo --task ID" in printed


def test_show_prints_one_and_names_its_siblings(run, capsys):
    printed = said(capsys, "show", "demo", "--task", "t", "--sample", "1")
    assert "nothing yet" in printed.out
    assert printed.err == ""
    assert "--sample 1" in said(capsys, "show", "demo", "--task", "t").err


def test_show_prints_what_the_page_is_drawn_from(run, capsys):
    found = json.loads(said(capsys, "show", "demo", "--task", "t", "--json").out)
    assert [turn["turn"] for turn in found["turns"]] == [1, 2]


def test_damage_makes_status_1(run, capsys):
    with (run / "trajectories.jsonl").open("ab") as file:
        file.write(b"{}\n")
    assert "trajectories.jsonl:3" in said(capsys, "show", "demo", status=1).out
    printed = said(capsys, "export", "demo", "--to", "parquet", status=1)
    assert printed.out.startswith("2 trajectories, 4 turns in ")
    assert "left out" in printed.err


def test_report_writes_one_file_over_several_runs(run, capsys):
    printed = said(capsys, "report", "demo", "-o", "all.html")
    assert printed.out.rstrip().endswith("report: all.html")
    assert (run / "report.json").exists()
    assert '"runs/0/trajectories/1"' in (run.parent / "all.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nowhere"], "nowhere: neither trajectories.jsonl nor rollouts/"),
        (["show", "demo", "--task", "u"], "no task 'u' in this run: it has t"),
        (["show", "demo", "--turn", "2"], "name it with --task"),
        (["show", "demo", "--task", "t", "--turn", "3"], "--turn 3: the trajectory has turns 1 to"),
        (["view", "nowhere"], "nowhere: no such folder"),
        (["view", "demo", "--host", "192.0.2.7"], "can't serve at 192.0.2.7"),
        (["export", "demo", "--to", "atif", "-o", "demo"], "is there already"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(run, capsys, arguments, message):
    printed = said(capsys, *arguments, status=2)
    assert (message in printed.err, printed.out) == (True, "")
