"""The training file: verl's columns, and every task of the config as it is."""

import pyarrow.parquet
import pytest

from mem1.adapters.verl.data import export_tasks, row_of, task_of, write_rows
from mem1.cli import run_command
from mem1.config import load_config
from mem1.errors import DataError
from mem1.tasks import load_tasks
from mem1.types import Objective, Task
from mem1.worlds import compose_tasks

TASK = Task(
    id="t",
    objectives=(
        Objective(question="Who?", answers=("A", "a b")),
        Objective(question="Where?", answers=("B",)),
    ),
    source="nq",
    metadata={"pages": {"x": [1, 2]}},
)


def test_a_row_has_the_columns_of_mem1_and_search_r1():
    assert row_of(TASK, index=7, split="train") | {"extra_info": None} == {
        "data_source": "nq",
        "prompt": [{"role": "user", "content": "Questions: Who?; Where?"}],
        "ability": "memory",
        "reward_model": {"style": "rule", "ground_truth": {"target": [["A", "a b"], ["B"]]}},
        "extra_info": None,
    }


def test_a_row_gives_its_task_back(tmp_path):
    write_rows([TASK], tmp_path / "train.parquet", split="train")
    (row,) = pyarrow.parquet.read_table(tmp_path / "train.parquet").to_pylist()
    assert task_of(row["extra_info"]) == TASK
    assert (row["extra_info"]["index"], row["extra_info"]["split"]) == (0, "train")


def test_our_own_loader_reads_the_same_questions_and_answers(tmp_path):
    write_rows([TASK], tmp_path / "train.parquet", split="train")
    (task,) = load_tasks(tmp_path / "train.parquet")
    assert task.objectives == TASK.objectives


def test_tasks_and_held_out_tasks_of_a_config_are_written(tmp_path):
    config = load_config("configs/learn.toml")
    done = export_tasks(config, folder=tmp_path, limit=3)
    assert {path.name: n for path, n in done.items()} == {
        "train.parquet": 3,
        "validation.parquet": 3,
    }
    rows = pyarrow.parquet.read_table(tmp_path / "validation.parquet").to_pylist()
    assert config.validation is not None
    assert [task_of(row["extra_info"]) for row in rows] == compose_tasks(config.validation, limit=3)


def test_the_command_says_what_it_wrote(tmp_path, capsys):
    arguments = ["data", "export", "configs/learn.toml", "--format", "verl", "--limit", "2"]
    assert run_command([*arguments, "-o", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"2 tasks in {tmp_path / 'train.parquet'}",
        f"2 tasks in {tmp_path / 'validation.parquet'}",
    ]


def test_a_file_of_somebody_else_is_refused_with_the_command_that_writes_ours():
    with pytest.raises(DataError, match="mem1 data export CONFIG --format verl"):
        task_of({"index": 3})
