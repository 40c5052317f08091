"""QUESTION FILES -> TASKS of one objective each, and task files back.

    questions.jsonl(.gz) | .parquet | hub:NAME/CONFIG#SPLIT -> load_tasks -> [Task]
    [Task] -> write_tasks -> tasks.jsonl -> load_tasks -> the same [Task]

Question records have the FlashRAG / Search-R1 form `{"id", "question", "golden_answers": […]}`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from mem1.errors import DataError, MissingExtraError
from mem1.files import atomic_write, read_lines
from mem1.text import neutralise
from mem1.types import Objective, Task

HUB_PREFIX = "hub:"

_TASK = TypeAdapter(Task)


def load_tasks(source: str | Path) -> list[Task]:
    """Read questions, or tasks that `write_tasks` wrote.

    Args: `source`, a JSONL(.gz) or parquet file, or `hub:NAME/CONFIG#SPLIT` for a data set of the
    Hugging Face hub (extra `hub`).
    Raises: DataError naming file and line for a record that is malformed, without golden answer,
    or of an id seen before, and for a file without any record.
    """
    tasks: dict[str, Task] = {}
    for where, record in _records(source):
        task = _task(record, where=where, source=str(source))
        if task.id in tasks:
            raise DataError(f"{where}: id {task.id!r} stands here a second time: make ids unique")
        tasks[task.id] = task
    if not tasks:
        raise DataError(f"{source}: holds no question")
    return list(tasks.values())


def write_tasks(tasks: Iterable[Task], path: Path) -> None:
    """Write tasks as JSONL, whole or not at all."""
    atomic_write(path, b"".join(orjson.dumps(task) + b"\n" for task in tasks))


def question_text(task: Task) -> str:
    """All questions as the paper joins them: `q1?; q2?; …`.

    A semicolon inside a question becomes a comma, so that the parts can be told apart; questions
    are foreign text and are neutralised.
    """
    questions = (neutralise(o.question).replace(";", ",").split() for o in task.objectives)
    return "; ".join(f"{' '.join(words).rstrip('? ')}?" for words in questions)


def _records(source: str | Path) -> Iterator[tuple[str, Any]]:
    """Records with the place where each was found."""
    name = str(source)
    if name.startswith(HUB_PREFIX):
        yield from _hub_records(name.removeprefix(HUB_PREFIX))
    elif name.endswith(".parquet"):
        yield from _parquet_records(Path(source))
    else:
        for number, line in read_lines(Path(source)):
            where = f"{source}:{number}"
            try:
                yield where, orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise DataError(f"{where}: not JSON: {error}") from error


def _parquet_records(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not a readable parquet file: {error}") from error
    yield from ((f"{path}: row {number}", row) for number, row in enumerate(rows, start=1))


def _hub_records(name: str) -> Iterator[tuple[str, Any]]:
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError("datasets", extra="hub") from error
    path, _, split = name.partition("#")
    owner, _, rest = path.partition("/")
    repository, _, config = rest.partition("/")
    if not (repository and split):
        raise DataError(f"{HUB_PREFIX}{name}: write it as {HUB_PREFIX}OWNER/NAME[/CONFIG]#SPLIT")
    try:
        rows = datasets.load_dataset(f"{owner}/{repository}", config or None, split=split)
    except (OSError, ValueError) as error:
        raise DataError(f"{HUB_PREFIX}{name}: can't be loaded from the hub: {error}") from error
    yield from ((f"{name}: row {number}", row) for number, row in enumerate(rows, start=1))


def _task(record: object, *, where: str, source: str) -> Task:
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: not a record: {str(record)[:80]}")
    if "objectives" in record:
        try:
            return _TASK.validate_python(record)
        except ValidationError as error:
            raise DataError(f"{where}: not a task: {error}") from error
    if "reward_model" in record:
        return _training_task(record, where=where)
    question = record.get("question")
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"{where}: `question` is missing or empty: {str(record)[:80]}")
    given = record.get("id")
    task_id = where if given in (None, "") else str(given)
    answers = _answers(record.get("golden_answers"), where=f"{where} (id {task_id!r})")
    return Task(
        id=task_id,
        objectives=(Objective(question=question.strip(), answers=answers),),
        source=str(record.get("source") or Path(source).name.split(".")[0]),
    )


def _training_task(record: Mapping[str, Any], *, where: str) -> Task:
    """A row of the training parquet of MEM1 and Search-R1: the text behind the last `Question:` or
    `questions:` of the prompt, parted at `?;`, and `reward_model.ground_truth.target`, which is
    [alias, …] for one question or [[alias, …], …] for several."""
    try:
        target = record["reward_model"]["ground_truth"]["target"]
        prompt = record["prompt"][-1]["content"]
        parts = re.split(r"\bquestions?:", prompt, flags=re.IGNORECASE)
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(f"{where}: not a training row, {error} is missing") from error
    if len(parts) == 1:
        raise DataError(f"{where}: no `Question:` in the prompt: {prompt[-80:]!r}")
    groups = [[group] if isinstance(group, str) else group for group in target]
    questions = re.split(r"(?<=\?)\s*;\s*", parts[-1].strip("; \n"))
    if len(questions) == 1:
        groups = [[answer for group in groups for answer in group]]
    if len(questions) != len(groups):
        raise DataError(f"{where}: {len(questions)} questions but {len(groups)} golden answers")
    info = record.get("extra_info") or {}
    source = str(record.get("data_source") or "")
    return Task(
        id=f"{source}-{info['index']}" if "index" in info else where,
        objectives=tuple(
            Objective(question=question, answers=_answers(group, where=where))
            for question, group in zip(questions, groups, strict=True)
        ),
        source=source,
    )


def _answers(found: object, *, where: str) -> tuple[str, ...]:
    listed: Sequence[object] = [found] if isinstance(found, str) else _listed(found)
    answers = tuple(answer for answer in listed if isinstance(answer, str) and answer.strip())
    if not answers:
        raise DataError(f"{where}: no golden answer: give `golden_answers`, a list of strings")
    return answers


def _listed(found: object) -> Sequence[object]:
    return list(found) if isinstance(found, Iterable) else []
