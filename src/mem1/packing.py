"""TRAJECTORIES -> ONE TREE: what sees what, and at which position. numpy only.

    [Trajectory] -> sampled_tokens -> SampledTokens   what is trained, flat
    [Trajectory] -> pack           -> [PackedBatch]   rows that hold each causal prefix once

All turns are laid out as prefix trees in depth-first order, so that one integer per token is the
whole attention mask: query q sees key k iff k <= q < visible_until[k]. Two turns of a MEM1 agent
(prompt 7 8, sampled 1 and 2; then the rewritten context 7 8 1 5, sampled 3):

    place           0  1  2  3  4  5
    token_ids       7  8  1  2  5  3
    positions       0  1  2  3  3  4       depths in the tree: positions at sampling time
    visible_until   6  6  6  4  6  6       2 was dropped: the second turn does not see it
    parent         -1  0  1  2  2  4       where the logits that predict a token are read
    targets               2  3     5       what was sampled

A context that only grew is a chain; rollouts of a task share its prompt; no policy is special.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mem1.carry import Tape, common_prefix
from mem1.errors import BudgetError, DataError
from mem1.types import Trajectory


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampledTokens:
    """Every sampled token of some trajectories, by trajectory, turn, place in the reply.

    All that is known or computed per token (advantages, log-probabilities, weights) is an array of
    shape (T,) in this order, however the tokens are laid out in rows.
    """

    token_ids: np.ndarray
    """int64, shape (T,)."""
    trajectory: np.ndarray
    """Index into the trajectories given; int64, shape (T,)."""
    turn: np.ndarray
    """Counted from 0; int64, shape (T,)."""
    sampled_logprobs: np.ndarray
    """float32, shape (T,); NaN where the engine did not tell."""
    temperature: np.ndarray
    """Of `sampled_logprobs`; float32, shape (T,)."""

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedBatch:
    """One row: prefix trees in depth-first order, each token once per distinct causal prefix."""

    token_ids: np.ndarray
    """int64, shape (S,)."""
    positions: np.ndarray
    """Position at sampling time; int64, shape (S,)."""
    visible_until: np.ndarray
    """Query q sees key k iff k <= q < visible_until[k]; int64, shape (S,)."""
    parent: np.ndarray
    """Place of the token before it, where the logits that predict it are read; -1 at a root.
    int64, shape (S,)."""
    targets: np.ndarray
    """Places of the sampled tokens, the ones to train; int64, shape (T_row,)."""
    index: np.ndarray
    """Where each target stands in SampledTokens; int64, shape (T_row,)."""
    num_unpacked: int
    """Tokens that one sequence per turn would take."""

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def loss_mask(self) -> np.ndarray:
        """Which tokens train; bool, shape (S,)."""
        mask = np.zeros(self.num_tokens, dtype=bool)
        mask[self.targets] = True
        return mask


def sampled_tokens(trajectories: Sequence[Trajectory]) -> SampledTokens:
    """What was sampled, flat."""
    turns = [
        (row, number, turn.completion)
        for row, trajectory in enumerate(trajectories)
        for number, turn in enumerate(trajectory.turns)
    ]
    sizes = [completion.num_tokens for _, _, completion in turns]
    token_ids = [token for _, _, completion in turns for token in completion.token_ids]
    logprobs = [
        logprob
        for _, _, completion in turns
        for logprob in completion.logprobs or [float("nan")] * completion.num_tokens
    ]
    temperatures = [completion.temperature for _, _, completion in turns]
    return SampledTokens(
        token_ids=np.array(token_ids, np.int64),
        trajectory=np.repeat(np.array([row for row, _, _ in turns], np.int64), sizes),
        turn=np.repeat(np.array([number for _, number, _ in turns], np.int64), sizes),
        sampled_logprobs=np.array(logprobs, np.float32),
        temperature=np.repeat(np.array(temperatures, np.float32), sizes),
    )


def pack(
    trajectories: Sequence[Trajectory],
    *,
    row_tokens: int,
    least_shared: int = 32,
    one_branch: bool = False,
) -> list[PackedBatch]:
    """Lay trajectories out in rows of at most `row_tokens`.

    Context tokens are shared wherever two turns have seen the same prefix, whatever trajectory and
    task they are of. Sampled tokens are shared within their trajectory only. A row that is full
    ends between two turns; the next one begins with a copy of what its first turn has seen.

    Args: `least_shared`, a branch is shared if that saves so many tokens: below, the copy is
    cheaper than one more branch; `one_branch`, a row ends where it would branch: more tokens in
    all, fewest at once.
    Raises: BudgetError for a turn that is longer than a row.
    """
    paths = list(_paths(trajectories))
    for path in paths:
        if len(path.token_ids) > row_tokens:
            raise BudgetError(
                f"{path.name} has {len(path.token_ids)} tokens, a row takes {row_tokens}: raise "
                "row_tokens or lower the budget"
            )
    rows: list[PackedBatch] = []
    new_row = partial(_Row, least_shared=least_shared, one_branch=one_branch)
    row = new_row()
    for path in _depth_first(paths):
        if not row.add(path, room=row_tokens):
            rows.append(row.done())
            row = new_row()
            row.add(path, room=row_tokens)
    return [*rows, row.done()] if paths else []


@dataclass(slots=True, kw_only=True, eq=False)
class _Path:
    """From a root to a leaf: all that one turn saw and sampled, or a whole carried trajectory."""

    name: str
    token_ids: np.ndarray
    sampled: np.ndarray
    """Depths of the tokens to train."""
    index: np.ndarray
    """Where those stand in SampledTokens."""
    private: int
    """Depth from which on no other trajectory may share its tokens."""
    evicted_at: np.ndarray
    """Depth of the first token that does not see this one; one for each token."""
    keys: np.ndarray
    """Equal where two paths may share a token: its id, and its trajectory if it is private."""


def _paths(trajectories: Sequence[Trajectory]) -> Iterator[_Path]:
    first = 0
    for owner, trajectory in enumerate(trajectories):
        make = _carried if trajectory.mode == "carry" else _reencoded
        paths = list(make(trajectory, first=first))
        for path in paths:
            path.keys = path.token_ids.copy()
            path.keys[path.private :] += (owner + 1) << 32
        yield from paths
        first += sum(turn.completion.num_tokens for turn in trajectory.turns)


def _reencoded(trajectory: Trajectory, *, first: int) -> list[_Path]:
    """One path for each turn."""
    paths: list[_Path] = []
    for number, turn in enumerate(trajectory.turns, start=1):
        prompt_ids, sampled_ids = turn.prompt_ids, turn.completion.token_ids
        name = f"turn {number} of task {trajectory.task.id}, sample {trajectory.sample},"
        if not prompt_ids:
            raise DataError(f"{name} has no prompt: its first token was predicted by nothing")
        ids, start = np.array(prompt_ids + sampled_ids, np.int64), len(prompt_ids)
        paths.append(
            _Path(
                name=name,
                token_ids=ids,
                sampled=np.arange(start, len(ids)),
                index=np.arange(first, first + len(sampled_ids)),
                private=start,
                evicted_at=np.full(len(ids), len(ids)),
                keys=ids,
            )
        )
        first += len(sampled_ids)
    # What this turn has only seen, another one of the same prefix may have sampled.
    starts = [path.private for path in paths]
    for path in paths:
        for other, start in zip(paths, starts, strict=True):
            if start < path.private and common_prefix(path.token_ids, other.token_ids) > start:
                path.private = start
    return paths


def _carried(trajectory: Trajectory, *, first: int) -> list[_Path]:
    """One path for all turns: no token was computed twice."""
    tape = Tape()
    sampled: list[int] = []
    for turn in trajectory.turns:
        tape.show(turn.context)
        sampled.extend(tape.append(turn.completion.token_ids))
    ids, size = np.array(tape.token_ids, np.int64), len(tape.token_ids)
    evicted_at = np.array([size if at is None else at for at in tape.evicted_at], np.int64)
    never_shared = [sampled[:1], np.flatnonzero(evicted_at < size)[:1], [size]]
    return [
        _Path(
            name=f"task {trajectory.task.id}, sample {trajectory.sample}, carried as one,",
            token_ids=ids,
            sampled=np.array(sampled, np.int64),
            index=np.arange(first, first + len(sampled)),
            private=min(int(at) for places in never_shared for at in places),
            evicted_at=evicted_at,
            keys=ids,
        )
    ]


def _depth_first(paths: list[_Path]) -> Iterator[_Path]:
    """The paths in an order in which every shared prefix is one stretch: first come, first laid."""
    todo: list[tuple[list[_Path], int]] = [(paths, 0)]
    while todo:
        members, depth = todo.pop()
        branches: dict[int, list[_Path]] = {}
        for path in members:
            if len(members) == 1 or len(path.keys) == depth:
                yield path
            else:
                branches.setdefault(int(path.keys[depth]), []).append(path)
        for branch in reversed(branches.values()):
            one = branch[0].keys[depth:]
            shared = min(common_prefix(one, path.keys[depth:]) for path in branch)
            todo.append((branch, depth + shared))


class _Row:
    """A row under construction: paths are added in depth-first order."""

    def __init__(self, *, least_shared: int, one_branch: bool) -> None:
        self._least_shared = least_shared
        self._one_branch = one_branch
        self._laid: list[tuple[_Path, np.ndarray, int]] = []
        """Each path, where its tokens lie, and how large the row was before."""
        self._forks: list[int] = []
        """Depths at which the last path may be left without a further branch; ascending."""
        self._size = 0

    def add(self, path: _Path, *, room: int) -> bool:
        """Add a path, or give False if the row would hold more than `room` tokens or a second
        branch, and may not."""
        forks = self._forks_with(path)
        shared, begin = forks[-1], self._size
        if self._laid:
            branches = shared < len(self._laid[-1][0].token_ids)
            if begin + len(path.token_ids) - shared > room or (self._one_branch and branches):
                return False
        old = self._laid[-1][1][:shared] if self._laid else np.empty(0, np.int64)
        places = np.concatenate([old, begin + np.arange(len(path.token_ids) - shared)])
        self._laid.append((path, places, begin))
        self._size = begin + len(path.token_ids) - shared
        self._forks = forks
        return True

    def _forks_with(self, path: _Path) -> list[int]:
        """Where this path may leave the last one; at the last of these it does."""
        if not self._laid:
            return [0]
        last = self._laid[-1][0]
        common = common_prefix(last.keys, path.keys)
        forks = [fork for fork in self._forks if fork <= common]
        is_end = common in (len(last.keys), len(path.keys))
        if is_end or common - forks[-1] >= self._least_shared:
            forks.append(common)
        return forks

    def done(self) -> PackedBatch:
        token_ids, positions, parent = (np.empty(self._size, np.int64) for _ in range(3))
        visible_until = np.full(self._size, self._size)
        last = np.empty(0, np.int64)
        for path, places, begin in self._laid:
            token_ids[places] = path.token_ids
            positions[places] = np.arange(len(places))
            parent[places[0]], parent[places[1:]] = -1, places[:-1]
            left = last[common_prefix(last, places) :]
            visible_until[left] = np.minimum(visible_until[left], begin)
            evicted = np.flatnonzero(path.evicted_at < len(places))
            visible_until[places[evicted]] = places[path.evicted_at[evicted]]
            last = places
        return PackedBatch(
            token_ids=token_ids,
            positions=positions,
            visible_until=visible_until,
            parent=parent,
            targets=np.concatenate([places[path.sampled] for path, places, _ in self._laid]),
            index=np.concatenate([path.index for path, _, _ in self._laid]),
            num_unpacked=sum(len(path.token_ids) for path, _, _ in self._laid),
        )
