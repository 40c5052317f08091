"""TRAJECTORIES -> THE TRAINER'S LAYOUT OF THEM, named: which token range is what, and who sees it.

    [Record] -> layout_view -> rows of ranges of equal kind, turn, trajectory and visible_until

The rows are `mem1.packing.pack`'s own. A token that several turns saw has the name that the first
of them gives it; what was sampled is `sampled`.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from mem1.carry import Tape
from mem1.packing import PackedBatch, pack
from mem1.types import Context, SegmentKind, Trajectory
from mem1.viewer.records import Record

SAMPLED = "sampled"
KINDS = (*SegmentKind, SAMPLED)

Labels = np.ndarray
"""Kind (place in KINDS), turn and trajectory of each token; int64, shape (num_tokens, 3)."""


def layout_view(records: Sequence[Record]) -> dict[str, Any]:
    """How training lays these trajectories out together, in one row."""
    found = [record for record in records if record.trajectory.turns]
    trajectories = [record.trajectory for record in found]
    longest = sum(
        len(turn.prompt_ids) + turn.completion.num_tokens for t in trajectories for turn in t.turns
    )
    rows = pack(trajectories, row_tokens=longest)
    paths = list(_paths(found))
    return {"rows": [_row(row, paths) for row in rows], "group": [r.number for r in records]}


def _row(row: PackedBatch, paths: Sequence[tuple[int, Labels]]) -> dict[str, Any]:
    labels = _labelled(row, paths)
    whole = np.column_stack([labels, row.visible_until])
    changes = np.flatnonzero((whole[1:] != whole[:-1]).any(axis=1)) + 1
    starts = [0, *changes.tolist()]
    return {
        "num_tokens": row.num_tokens,
        "num_unpacked": row.num_unpacked,
        "parts": [
            {
                "start": start,
                "stop": stop,
                "until": int(whole[start, 3]),
                "kind": KINDS[whole[start, 0]],
                "turn": int(whole[start, 1]),
                "trajectory": int(whole[start, 2]),
            }
            for start, stop in zip(starts, [*starts[1:], row.num_tokens], strict=True)
        ],
    }


def _labelled(row: PackedBatch, paths: Sequence[tuple[int, Labels]]) -> Labels:
    """Walk from the last token of each path to its root, as far as nobody has walked."""
    labels = np.zeros((row.num_tokens, 3), np.int64)
    walked = np.zeros(row.num_tokens, bool)
    ends = dict(zip(row.index.tolist(), row.targets.tolist(), strict=True))
    parents = row.parent.tolist()
    for last, path in paths:
        place, depth = ends[last], len(path) - 1
        while place >= 0 and not walked[place]:
            labels[place], walked[place] = path[depth], True
            place, depth = parents[place], depth - 1
    return labels


def _paths(records: Sequence[Record]) -> Iterator[tuple[int, Labels]]:
    """From root to leaf: the index of its last token in `SampledTokens`, and its labels.

    A turn that sampled nothing ends no path.
    """
    first = 0
    for record in records:
        it = record.trajectory
        sizes = [turn.completion.num_tokens for turn in it.turns]
        ends = [first + size - 1 for size in accumulate(sizes)]
        if it.mode == "carry":
            yield ends[-1], _carried(it, number=record.number)
        else:
            for turn, (end, size) in enumerate(zip(ends, sizes, strict=True), start=1):
                if size:
                    context = _context(it.turns[turn - 1].context, number=record.number)
                    reply = _reply(size, turn=turn, number=record.number)
                    yield end, np.concatenate([context, reply])
        first += sum(sizes)


def _carried(it: Trajectory, *, number: int) -> Labels:
    """Of the tape, which holds each token once."""
    tape, parts = Tape(), []
    for turn, one in enumerate(it.turns, start=1):
        _, new = tape.show(one.context)
        labels = _context(one.context, number=number)
        size = one.completion.num_tokens
        tape.append(one.completion.token_ids)
        parts += [labels[len(labels) - len(new) :], _reply(size, turn=turn, number=number)]
    return np.concatenate(parts)


def _context(context: Context, *, number: int) -> Labels:
    rows = [[KINDS.index(segment.kind), segment.turn, number] for segment in context]
    sizes = [len(segment.token_ids) for segment in context]
    return np.repeat(np.array(rows, np.int64).reshape(-1, 3), sizes, axis=0)


def _reply(size: int, *, turn: int, number: int) -> Labels:
    return np.full((size, 3), [KINDS.index(SAMPLED), turn, number], np.int64)
