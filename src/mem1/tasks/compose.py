"""SINGLE QUESTIONS -> TASKS OF N OBJECTIVES, as the paper composes them (arXiv 2506.15841)."""

import random
from collections import Counter
from collections.abc import Sequence

from mem1.errors import DataError
from mem1.types import Task


def compose(
    tasks: Sequence[Task], *, num_objectives: int, seed: int, limit: int | None = None
) -> list[Task]:
    """Shuffle the questions and put `num_objectives` of them into each task.

    Sources take turns, as long as they last, so that a `limit` leaves them mixed. Every question
    is used: the last task is filled up with questions of earlier ones. No task asks a question
    twice. The same seed gives the same tasks, and a smaller `limit` gives the first of them.

    Args: `tasks`, of one objective each; `limit`, most tasks to make.
    Raises: DataError if there are fewer questions than objectives, a task has several, or two
    tasks are one.
    """
    for task in tasks:
        if len(task.objectives) != 1:
            raise DataError(
                f"task {task.id!r} has {len(task.objectives)} objectives already: compose single "
                "questions, or leave num_objectives empty to use tasks as they are"
            )
    if len({task.id for task in tasks}) < len(tasks):
        seen = [task.id for task in tasks]
        double = next(task_id for task_id in seen if seen.count(task_id) > 1)
        raise DataError(f"question {double!r} is given twice: name each file once, make ids unique")
    if not 1 <= num_objectives <= len(tasks):
        raise DataError(
            f"can't compose tasks of {num_objectives} objectives from {len(tasks)} questions"
        )
    rng = random.Random(f"compose/{seed}")
    order = _interleaved(rng.sample(tasks, len(tasks)))
    groups = [order[i : i + num_objectives] for i in range(0, len(order), num_objectives)]
    missing = num_objectives - len(groups[-1])
    groups[-1] = groups[-1] + rng.sample(order[: len(order) - len(groups[-1])], missing)
    return [_join(group, number) for number, group in enumerate(groups[:limit])]


def _interleaved(tasks: Sequence[Task]) -> list[Task]:
    """The first of each source, then the second of each, and so on."""
    seen: Counter[str] = Counter()
    ranks: list[tuple[int, str, Task]] = []
    for task in tasks:
        seen[task.source] += 1
        ranks.append((seen[task.source], task.source, task))
    return [task for _, _, task in sorted(ranks, key=lambda rank: rank[:2])]


def _join(group: Sequence[Task], number: int) -> Task:
    sources = sorted({task.source for task in group})
    return Task(
        id=f"n{len(group)}-{number:05d}-{group[0].id}",
        objectives=tuple(task.objectives[0] for task in group),
        source="+".join(sources),
        metadata={"question_ids": [task.id for task in group]},
    )
