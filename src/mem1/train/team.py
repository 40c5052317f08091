"""SEVERAL PROCESSES AS ONE: who they are, and what they tell each other.

    torchrun --nproc-per-node 2 -m mem1 train CONFIG -> open_team -> Team; without torchrun, Team()

Every process holds all trajectories of a batch and lays out the same rows, so that statistics of
groups, weights of tokens and whatever else is a sum over the batch are those of one process by
construction. What is divided is the work: each samples the episodes of its own tasks, and takes its
share of the rows through the model. They go through in rounds, a row for each process, for sharded
weights are gathered by all at once.
"""

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate, pairwise
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist

from mem1.errors import ConfigError, TrainingError
from mem1.packing import PackedBatch
from mem1.train.launch import team_size

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """This process among all. Every method but `part` and `rounds` is called by all of them, in the
    same order; with one process each gives back what it's given."""

    rank: int = 0
    size: int = 1
    device: torch.device | None = None
    """Where this process computes; None: wherever its model is."""

    @property
    def is_first(self) -> bool:
        """Whether it's the one that writes."""
        return self.rank == 0

    def part(self, items: Sequence[_T]) -> Sequence[_T]:
        """Every `size`-th item: those of this process."""
        return items[self.rank :: self.size]

    def gather(self, mine: bytes) -> list[bytes]:
        """What each process gives, by rank."""
        if self.size == 1:
            return [mine]
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(mine)]))
        room = max(int(size) for size in sizes)
        padded = torch.frombuffer(bytearray(mine.ljust(max(room, 1), b"\0")), dtype=torch.uint8)
        found = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(found, padded)
        return [
            data.numpy().tobytes()[: int(size)] for data, size in zip(found, sizes, strict=True)
        ]

    def gather_lists(self, mine: Sequence[bytes]) -> list[list[bytes]]:
        """What each process gives, by rank."""
        head = struct.pack(f"<{len(mine) + 1}Q", len(mine), *map(len, mine))
        return [_unpacked(data) for data in self.gather(head + b"".join(mine))]

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Over all processes, element by element; float64."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Over all processes, name by name."""
        found = self.sum(np.array(list(values.values()), np.float64))
        return dict(zip(values, found.tolist(), strict=True))

    def most(self, values: Mapping[str, float]) -> dict[str, float]:
        """The largest of all processes, name by name."""
        found = self._reduced(np.array(list(values.values()), np.float64), dist.ReduceOp.MAX)
        return dict(zip(values, found.tolist(), strict=True))

    def wait(self) -> None:
        """Until all are here."""
        self.gather(b"")

    @contextmanager
    def first_in_turn(self) -> Iterator[None]:
        """The first process runs the block before the others: it may write what they read."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def rounds(self, rows: Sequence[PackedBatch]) -> list[tuple[PackedBatch, bool]]:
        """The rows of this process, one for each round, and whether each counts: a process that has
        none left goes along with one that doesn't. Rows of about the same size share a round."""
        if self.size == 1:
            return [(row, True) for row in rows]
        ordered = sorted(rows, key=lambda row: -row.num_tokens)
        missing = -len(ordered) % self.size
        filled = [(row, True) for row in ordered] + [(ordered[-1], False)] * missing
        return filled[self.rank :: self.size]

    def _reduced(self, values: np.ndarray, operation: dist.ReduceOp.RedOpType) -> np.ndarray:
        if self.size == 1:
            return values
        found = torch.from_numpy(np.array(values, np.float64))
        dist.all_reduce(found, operation)
        return found.numpy()


def _unpacked(data: bytes) -> list[bytes]:
    (count,) = struct.unpack_from("<Q", data)
    ends = accumulate(struct.unpack_from(f"<{count}Q", data, 8), initial=8 * (count + 1))
    return [data[begin:end] for begin, end in pairwise(ends)]


@contextmanager
def open_team(*, device: str | None, timeout_s: float) -> Iterator[Team]:
    """The processes that torchrun has started; without it, or with one, `Team()`.

    Args: `device`, that of the config, default a GPU for each process if there are any;
    `timeout_s`, how long one waits for another that is alive. One that died is noticed at once.
    Raises: ConfigError for more processes than GPUs; TrainingError if a process is lost.
    """
    if team_size() == 1:
        yield Team()
        return
    place = _own_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo",
        timeout=timedelta(seconds=timeout_s),
    )
    team = Team(rank=dist.get_rank(), size=dist.get_world_size(), device=place)
    try:
        yield team
    except RuntimeError as error:
        if not _says_lost(error):
            raise
        raise TrainingError(
            f"process {team.rank} of {team.size} can't reach another one, which has failed or "
            f"hangs: look for its own error. Start the same command again: the run goes on from "
            f"its newest checkpoint. ({str(error).splitlines()[0]})"
        ) from error
    # A group that has lost a member can't be closed; the process ends with it.
    dist.destroy_process_group()


def _own_device(device: str | None) -> torch.device:
    if device == "cpu" or (device is None and not torch.cuda.is_available()):
        return torch.device("cpu")
    if device not in (None, "cuda"):
        raise ConfigError(
            f"engine.device = {device!r} with {team_size()} processes: each takes a GPU of its "
            "own, remove it or set 'cpu'"
        )
    number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= count:
        raise ConfigError(
            f"process {number + 1} on this machine has no GPU, there are {count}: start torchrun "
            f"with --nproc-per-node {count}"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _says_lost(error: RuntimeError) -> bool:
    """Whether a collective failed: gloo has no exception of its own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)
