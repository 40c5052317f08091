"""A library answers by path: lists that grow, figures of the report, damage told, nothing else."""

import shutil
from dataclasses import replace

import pytest
from worlds import answer, play, scripted, search

from mem1.errors import DataError
from mem1.evals import build_report, write_report
from mem1.rollout import TrajectoryStore
from mem1.rollout.advantages import advantages_file, write_advantages
from mem1.types import StopReason
from mem1.viewer.library import COLUMNS, Library

FOUND = play(scripted(search("nothing yet"), answer("Paris")))
FAILED = replace(FOUND, stop_reason=StopReason.TOOL_ERROR, reward=0.0)
LIST = "runs/0/trajectories?from=0"


def store(path, *trajectories):
    with TrajectoryStore(path) as file:
        for trajectory in trajectories:
            file.append(trajectory)
    return path


@pytest.fixture
def run(tmp_path):
    """A run folder of one trajectory."""
    folder = tmp_path / "runs/demo"
    store(folder / "trajectories.jsonl", FOUND)
    (folder / "config.toml").write_text('[engine]\nmodel = "a"\n[run]\nsamples = 1\n')
    return folder


def rows(answer):
    return [dict(zip(answer["columns"], row, strict=True)) for row in answer["rows"]]


def test_a_row_holds_what_the_list_shows(run):
    (row,) = rows(Library([run]).load(LIST))
    assert list(row) == list(COLUMNS)
    assert (row["task_id"], row["hits"], row["num_turns"]) == ("t", 1, 2)
    assert (row["question"], row["answer"]) == ("Capital of France?", "Paris")
    assert row["text"] == "capital of france? paris paris"


def test_a_failed_episode_hits_nothing(run):
    store(run / "trajectories.jsonl", replace(FAILED, sample=1))
    assert [row["hits"] for row in rows(Library([run]).load(LIST))] == [1, 0]


def test_only_what_is_new_is_listed_again(run):
    library = Library([run])
    assert library.load(LIST)["next"] == 1
    store(run / "trajectories.jsonl", replace(FOUND, sample=1))
    found = library.load("runs/0/trajectories?from=1")
    assert [row["sample"] for row in rows(found)] == [1]
    assert library.load("runs/0/trajectories/1")["sample"] == 1


def test_a_line_that_is_being_written_is_no_damage_until_it_ends(run):
    library, path = Library([run]), run / "trajectories.jsonl"
    line = path.read_bytes()
    for part, count in ((line[:50], 1), (line[50:], 2)):
        with path.open("ab") as file:
            file.write(part)
        answer = library.load(LIST)
        assert (len(answer["rows"]), answer["damaged"]) == (count, [])


def test_damage_is_told_where_it_is(run):
    with (run / "trajectories.jsonl").open("ab") as file:
        file.write(b"no record\n")
    library = Library([run])
    (damage,) = library.load(LIST)["damaged"]
    assert damage["where"] == "trajectories.jsonl:2"
    (told,) = library.load("runs")["runs"]
    assert (told["num_trajectories"], told["damaged"]) == (1, [damage])


def test_a_config_that_is_no_toml_is_told_and_the_run_shown(run):
    (run / "config.toml").write_text("[engine\n")
    (told,) = Library([run]).load("runs")["runs"]
    assert (told["config"], told["damaged"][0]["where"]) == ({}, "config.toml")
    assert told["num_trajectories"] == 1


def test_settings_that_differ_are_named(run):
    twin = shutil.copytree(run, run.parent / "twin")
    (twin / "config.toml").write_text('[engine]\nmodel = "b"\n[run]\nsamples = 1\n')
    answer = Library([run.parent]).load("runs")
    assert [told["name"] for told in answer["runs"]] == ["demo", "twin"]
    assert answer["differing"] == ["engine.model"]


def test_names_are_as_long_as_it_takes_to_tell_runs_apart(run):
    twin = shutil.copytree(run, run.parent.parent / "more/demo")
    names = [told["name"] for told in Library([run, twin]).load("runs")["runs"]]
    assert names == ["runs/demo", "more/demo"]


def test_runs_that_begin_later_come_last(run):
    library = Library([run.parent])
    store(run.parent / "another/trajectories.jsonl", FOUND)
    names = [told["name"] for told in library.load("runs")["runs"]]
    assert names == ["demo", "another"]


def test_cells_are_those_of_the_report(run):
    computed = Library([run]).load("runs/0/cells")["cells"]
    write_report(build_report([FOUND], command="", config={}), run)
    assert Library([run]).load("runs/0/cells")["cells"] == computed
    assert computed[0]["estimates"]["em"]["mean"] == 1.0


def test_cells_follow_the_trajectories_once_the_report_is_old(run):
    write_report(build_report([FOUND], command="", config={}), run)
    store(run / "trajectories.jsonl", FAILED, replace(FOUND, sample=1, answer="Rome"))
    (cell,) = Library([run]).load("runs/0/cells")["cells"]
    assert (cell["num_trajectories"], cell["num_failures"]) == (2, 1)
    assert cell["estimates"]["em"]["mean"] == 0.0


@pytest.fixture
def training(tmp_path):
    """A run of two steps with two rollouts each, of which one was learned from."""
    for step in (1, 2):
        pair = (FOUND, replace(FOUND, sample=1))
        path = store(tmp_path / f"rollouts/step-{step:06d}.jsonl", *pair)
        sizes = [turn.completion.num_tokens for turn in FOUND.turns]
        write_advantages(advantages_file(path), [FOUND], advantages=[0.5] * sum(sizes))
    lines = '{"schema_version":1,"step":1,"reward":0.5}\n{"schema_version":1,"step":2,"kl":null}\n'
    (tmp_path / "metrics.jsonl").write_text(lines + "torn\nrest\n")
    return tmp_path


def test_curves_are_the_metrics_as_far_as_they_can_be_read(training):
    assert Library([training]).load("runs/0/curves") == {
        "steps": [1, 2],
        "curves": {"reward": [0.5, None], "kl": [None, None]},
    }


def test_rollouts_are_of_their_step_and_say_what_was_learned(training):
    library = Library([training])
    assert [row["step"] for row in rows(library.load(LIST))] == [1, 1, 2, 2]
    learned = [
        library.load(f"runs/0/trajectories/{number}/turns/1/tokens")["reply"] for number in (2, 3)
    ]
    assert [set(reply["trained"]) for reply in learned] == [{True}, {False}]
    assert [set(reply["advantages"] or ()) for reply in learned] == [{0.5}, set()]


def test_a_group_is_the_rollouts_of_a_task_in_its_step(training):
    library = Library([training])
    assert library.load("runs/0/trajectories/2/layout")["group"] == [2, 3]
    both = library.load("runs/0/trajectories/2/layout?group=1")["rows"][0]["parts"]
    assert {part["trajectory"] for part in both} == {2, 3}


@pytest.mark.parametrize(
    "path",
    [
        *("", "run", "runs/1", "runs/0", "runs/9/cells", "runs/0/trajectories/1"),
        *("runs/0/trajectories/0/turns/3/tokens", "runs/0/trajectories/0/turns/0/tokens"),
        *("runs/-1/cells", "runs/0/trajectories?from=x", "runs/0/cells/", "runs/٣/cells"),
    ],
)
def test_what_is_not_there_is_an_error(run, path):
    with pytest.raises(DataError):
        Library([run]).load(path)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        Library([tmp_path / "nowhere"])
