"""Advantages on disk: how good training found each sampled token, beside the rollouts of a step.

    trajectories, advantages_T -> write_advantages -> advantages/step-000007.jsonl
    rollouts/step-000007.jsonl, trajectory -> advantages_of -> a number for each sampled token

    {"schema_version": 1, "task_id": "t", "sample": 0, "context_policy": "full",
     "turns": [0.5, [1, -0.2]]}                                                     (on one line)

One line for each trajectory that was learned from, one entry for each of its turns: the numbers of
its tokens, or one number if all have the same. The file of a step is written at once, so it's whole
or not there. Three significant digits are kept, so that no sign is lost.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from mem1.errors import DataError
from mem1.files import atomic_write, read_lines
from mem1.rollout.store import Key, key_of
from mem1.types import FAILURES, Trajectory

ADVANTAGES = "advantages"
SCHEMA_VERSION = 1
"""Version of a line."""

Stored = Sequence[float | Sequence[float]]
"""Of a trajectory, as a line has it."""


def write_advantages(
    path: Path, trajectories: Sequence[Trajectory], *, advantages: Sequence[float]
) -> None:
    """Write the file of a step.

    Args: `advantages`, of every sampled token by trajectory, turn and place in the reply (the order
    of `mem1.packing.SampledTokens`), shape (T,).
    """
    rounded = [float(f"{value:.3g}") for value in advantages]
    lines: list[bytes] = []
    begin = 0
    for trajectory in trajectories:
        turns: list[float | list[float]] = []
        for turn in trajectory.turns:
            values = rounded[begin : begin + turn.completion.num_tokens]
            begin += len(values)
            turns.append(values[0] if len(set(values)) == 1 else values)
        task_id, sample, context_policy = key_of(trajectory)
        record = {
            "schema_version": SCHEMA_VERSION,
            "task_id": task_id,
            "sample": sample,
            "context_policy": context_policy,
            "turns": turns,
        }
        lines.append(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    assert begin == len(rounded), "one advantage for each sampled token"
    atomic_write(path, b"".join(lines))


def advantages_file(rollouts: Path) -> Path:
    """Where the advantages of a file of rollouts are: in the folder beside its own, same name."""
    return rollouts.parent.parent / ADVANTAGES / rollouts.name


def read_advantages(rollouts: Path) -> dict[Key, Stored]:
    """The advantages of a file of rollouts, by trajectory; empty if the run kept none.

    A torn last line is passed over. Raises: DataError naming another line that is damaged.
    """
    path = advantages_file(rollouts)
    found: dict[Key, Stored] = {}
    if not path.exists():
        return found
    for number, line in read_lines(path):
        try:
            record: dict[str, Any] = orjson.loads(line)
            version = record["schema_version"]
            key = (record["task_id"], record["sample"], record["context_policy"])
            found[key] = record["turns"]
        except (ValueError, LookupError, TypeError) as error:
            if not line.endswith(b"\n"):
                break
            raise DataError(f"{path}:{number}: not advantages, delete the line: {error}") from error
        if version != SCHEMA_VERSION:
            raise DataError(
                f"{path}:{number}: schema_version {version}, this mem1 reads {SCHEMA_VERSION}: "
                "move the file away"
            )
    return found


def advantages_of(
    trajectory: Trajectory, *, stored: Mapping[Key, Stored]
) -> tuple[tuple[float, ...], ...] | None:
    """A number for each sampled token, turn by turn; None if it wasn't learned from.

    Args: `stored`, what `read_advantages` gave for its file.
    """
    turns = stored.get(key_of(trajectory))
    if turns is None or trajectory.stop_reason in FAILURES:
        return None
    sizes = [turn.completion.num_tokens for turn in trajectory.turns]
    if len(turns) != len(sizes):
        return None
    found = tuple(
        tuple(values) if isinstance(values, Sequence) else (values,) * size
        for values, size in zip(turns, sizes, strict=True)
    )
    return found if [len(values) for values in found] == sizes else None
