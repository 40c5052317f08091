"""A run is read line by line: what is damaged is told, the rest is there."""

import pytest
from worlds import answer, play, scripted, search

from mem1.errors import DataError
from mem1.rollout import TrajectoryStore
from mem1.rollout.advantages import advantages_file, write_advantages
from mem1.viewer.records import Damage, Record, read_records

FOUND = play(scripted(search("nothing yet"), answer("Paris")))


def store(path, *trajectories):
    with TrajectoryStore(path) as file:
        for trajectory in trajectories:
            file.append(trajectory)


def told(folder):
    """The numbers of the records, and the lines of what is damaged."""
    found = list(read_records(folder))
    numbers = [record.number for record in found if isinstance(record, Record)]
    return numbers, [(d.path.name, d.line) for d in found if isinstance(d, Damage)]


def test_damaged_lines_are_told_and_not_counted(tmp_path):
    path = tmp_path / "trajectories.jsonl"
    store(path, FOUND, FOUND)
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"{}\n" + b"\xff\n" + second + second[:99])
    assert told(tmp_path) == ([0, 1], [(path.name, 2), (path.name, 3), (path.name, 5)])


def test_a_line_that_is_being_written_is_no_mystery(tmp_path):
    (tmp_path / "trajectories.jsonl").write_bytes(b'{"schema_ver')
    (damage,) = read_records(tmp_path)
    assert str(damage).endswith(
        ":1: the last line isn't whole: the run is writing it, or was stopped"
    )


def test_the_steps_of_training_are_one_after_the_other(tmp_path):
    for step in (2, 10):
        store(tmp_path / f"rollouts/step-{step:06d}.jsonl", FOUND)
    found = [(record.number, record.step) for record in read_records(tmp_path)]
    assert found == [(0, 2), (1, 10)]


def test_what_was_learned_from_has_its_advantages(tmp_path):
    path = tmp_path / "rollouts/step-000001.jsonl"
    store(path, FOUND)
    sizes = [turn.completion.num_tokens for turn in FOUND.turns]
    write_advantages(advantages_file(path), [FOUND], advantages=[0.5] * sum(sizes))
    (record,) = read_records(tmp_path)
    assert record.advantages == tuple((0.5,) * size for size in sizes)


def test_damaged_advantages_leave_the_trajectories(tmp_path):
    path = tmp_path / "rollouts/step-000001.jsonl"
    store(path, FOUND)
    advantages_file(path).parent.mkdir()
    advantages_file(path).write_bytes(b"{}\n")
    damage, record = read_records(tmp_path)
    assert "without advantages" in damage.why
    assert (record.number, record.advantages) == (0, None)


def test_a_folder_without_trajectories_is_named(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}: neither trajectories\.jsonl nor rollouts/"):
        list(read_records(tmp_path))
