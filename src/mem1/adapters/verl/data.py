"""TASKS -> THE PARQUET FILE THAT VERL TRAINS ON, and a row of it back to its task.

    [tasks], [validation] -> export_tasks -> train.parquet, validation.parquet
    train.parquet -> verl's RLHFDataset -> task_of -> the same Task

The columns are those of MEM1 and Search-R1, so that other agent loops and `mem1.tasks.load_tasks`
read the file, too. Our own loop goes by `extra_info.task`, the task as JSON, and writes the prompt
itself: the column holds the questions alone.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from mem1.config import RunConfig
from mem1.errors import DataError
from mem1.files import atomic_write
from mem1.tasks.qa import question_text
from mem1.types import Task
from mem1.worlds import compose_tasks

TRAIN_FILE, VALIDATION_FILE = "train.parquet", "validation.parquet"
_TASK = TypeAdapter(Task)


def export_tasks(config: RunConfig, *, folder: Path, limit: int | None = None) -> dict[Path, int]:
    """Write the tasks of a config, and the held-out ones if it has any; gives their numbers.

    Args: `limit`, at most so many tasks for each number of objectives.
    """
    parts = {TRAIN_FILE: config.tasks, VALIDATION_FILE: config.validation}
    done: dict[Path, int] = {}
    for name, source in parts.items():
        if source is not None:
            tasks = compose_tasks(source, limit=limit)
            write_rows(tasks, folder / name, split=name.removesuffix(".parquet"))
            done[folder / name] = len(tasks)
    return done


def write_rows(tasks: Sequence[Task], path: Path, *, split: str) -> None:
    """Write the tasks of a split, whole or not at all. Raises: DataError if there are none."""
    import pyarrow
    import pyarrow.parquet

    if not tasks:
        raise DataError(f"{path}: there's no task to write, see [tasks] of the config")
    rows = [row_of(task, index=index, split=split) for index, task in enumerate(tasks)]
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, buffer.getvalue())


def row_of(task: Task, *, index: int, split: str) -> dict[str, Any]:
    """A row of the training file."""
    return {
        "data_source": task.source or "mem1",
        "prompt": [{"role": "user", "content": f"Questions: {question_text(task)}"}],
        "ability": "memory",
        "reward_model": {
            "style": "rule",
            "ground_truth": {"target": [list(o.answers) for o in task.objectives]},
        },
        "extra_info": {"index": index, "split": split, "task": orjson.dumps(task).decode()},
    }


def task_of(extra_info: Mapping[str, Any]) -> Task:
    """The task of a row. Raises: DataError if the file isn't of `write_rows`."""
    try:
        return _TASK.validate_json(extra_info["task"])
    except (KeyError, ValidationError) as error:
        raise DataError(
            f"a row of the training file holds no task of mem1 ({error}): write the file with  "
            "mem1 data export CONFIG --format verl"
        ) from error
