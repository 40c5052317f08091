"""TRAJECTORIES -> PARQUET, one row for each turn, in row groups that fit in memory.

    [Record] -> write_turns -> turns.parquet

What belongs to the whole trajectory (reward, answer, …) stands in each of its rows.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mem1.types import Turn, context_ids
from mem1.viewer.records import Record

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS = 1024
GROUP_TOKENS = 1 << 20
"""A row group ends where it has so many rows, or context tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the file; what it holds is also in the file's schema."""

    name: str
    type: str
    """A key of `_types`."""
    holds: str


def _columns(*rows: tuple[str, str, str]) -> tuple[Column, ...]:
    return tuple(Column(name=name, type=kind, holds=holds) for name, kind, holds in rows)


COLUMNS = _columns(
    ("run", "string", "name of the run's folder"),
    ("trajectory", "int64", "number of the trajectory in the run, from 0, as in the viewer"),
    ("step", "int64", "training step that sampled it; null: an evaluation"),
    ("task_id", "string", "the task"),
    ("sample", "int64", "which rollout of the task, from 0"),
    ("context_policy", "string", "what decided what the model saw, with its settings"),
    ("mode", "string", "reencode or carry: how a context reached the model"),
    ("questions", "strings", "of the task, one for each objective"),
    ("answers", "answers", "gold answers of each objective"),
    ("turn", "int64", "from 1"),
    ("num_turns", "int64", "of the trajectory"),
    ("context_text", "string", "what the model saw"),
    ("context_token_ids", "ids", "exactly the ids the engine received"),
    ("context_parts", "parts", "what the context is made of, in order, with token counts"),
    ("reply_text", "string", "what it sampled, decoded"),
    ("reply_token_ids", "ids", "exactly the ids it sampled, end of sequence included"),
    ("logprobs", "floats", "of each sampled id, at `temperature`; null if the engine told none"),
    ("advantages", "floats", "of each sampled id; null if it wasn't learned from"),
    ("temperature", "double", "of `logprobs`"),
    ("finish_reason", "string", "stop or length"),
    ("exact", "bool", "false: the ids were made from the text, not told by the engine"),
    ("action", "string", "name of the tool, or answer; null: none that is valid"),
    ("argument", "string", "of the action"),
    ("faults", "strings", "what was wrong with the reply's form"),
    ("observation", "string", "the world's reply; null after the last turn"),
    ("engine_s", "double", "seconds waited for the engine"),
    ("env_s", "double", "seconds in the environment"),
    ("reward", "double", "of the trajectory"),
    ("answer", "string", "of the trajectory; null if it gave none"),
    ("stop_reason", "string", "why the trajectory ended"),
    ("bound", "int64", "certified largest context + reply, in tokens; null: none"),
    ("error", "string", "what failed, if something did"),
)


def write_turns(path: Path, records: Iterable[Record], *, run: str) -> int:
    """Write the turns of some trajectories, holding one row group at a time. Gives their number.

    Args: `run`, its name; `path`, a new file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    layout, written = schema(), 0
    with pq.ParquetWriter(path, layout, compression="zstd") as writer:
        for rows in _groups(records, run=run):
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=layout))
            written += len(rows)
    return written


def schema() -> "pa.Schema":
    """The layout of the file: `COLUMNS`, each with what it holds."""
    import pyarrow as pa

    types = _types()
    described = [
        pa.field(column.name, types[column.type], metadata={"holds": column.holds})
        for column in COLUMNS
    ]
    return pa.schema(described, metadata={"mem1.schema_version": "1"})


def _types() -> "Mapping[str, pa.DataType]":
    import pyarrow as pa

    part = pa.struct([("kind", pa.string()), ("turn", pa.int64()), ("num_tokens", pa.int64())])
    return {
        "string": pa.string(),
        "strings": pa.list_(pa.string()),
        "answers": pa.list_(pa.list_(pa.string())),
        "int64": pa.int64(),
        "double": pa.float64(),
        "floats": pa.list_(pa.float64()),
        "bool": pa.bool_(),
        "ids": pa.list_(pa.int32()),
        "parts": pa.list_(part),
    }


def _groups(records: Iterable[Record], *, run: str) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    tokens = 0
    for record in records:
        shared = _shared(record, run=run)
        for place, turn in enumerate(record.trajectory.turns):
            advantages = record.advantages[place] if record.advantages else None
            rows.append(shared | {"turn": place + 1, "advantages": advantages} | _of_turn(turn))
            tokens += len(rows[-1]["context_token_ids"])
            if len(rows) >= GROUP_ROWS or tokens >= GROUP_TOKENS:
                yield rows
                rows, tokens = [], 0
    if rows:
        yield rows


def _shared(record: Record, *, run: str) -> dict[str, Any]:
    """What all turns of a trajectory have in common."""
    trajectory = record.trajectory
    task = trajectory.task
    return {
        "run": run,
        "trajectory": record.number,
        "step": record.step,
        "task_id": task.id,
        "sample": trajectory.sample,
        "context_policy": trajectory.context_policy,
        "mode": trajectory.mode,
        "questions": [objective.question for objective in task.objectives],
        "answers": [objective.answers for objective in task.objectives],
        "num_turns": trajectory.num_turns,
        "reward": trajectory.reward,
        "answer": trajectory.answer,
        "stop_reason": trajectory.stop_reason,
        "bound": trajectory.bound,
        "error": trajectory.error,
    }


def _of_turn(turn: Turn) -> dict[str, Any]:
    sampled, action = turn.completion, turn.action
    return {
        "context_text": "".join(segment.text for segment in turn.context),
        "context_token_ids": context_ids(turn.context),
        "context_parts": [
            {"kind": s.kind, "turn": s.turn, "num_tokens": len(s.token_ids)} for s in turn.context
        ],
        "reply_text": sampled.text,
        "reply_token_ids": sampled.token_ids,
        "logprobs": sampled.logprobs,
        "temperature": sampled.temperature,
        "finish_reason": sampled.finish_reason,
        "exact": sampled.exact,
        "action": action.name if action else None,
        "argument": action.argument if action else None,
        "faults": list(turn.faults),
        "observation": turn.observation,
        "engine_s": turn.engine_s,
        "env_s": turn.env_s,
    }
