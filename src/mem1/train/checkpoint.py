"""Checkpoints that are whole or not there: what a run needs to go on bit for bit.

    Checkpoint(step, parts) -> save_checkpoint -> folder/00002-step-000006/ -> latest_checkpoint

    00002-step-000006/          the second save of the folder, made after step 6
      policy.safetensors        tensors of the part "policy"
      policy-1-of-2.safetensors, policy-2-of-2.safetensors
                                instead of it, if two processes hold parts of them
      info.json                 the step, and JSON values of all parts
      complete.json             written last: whether it was the best, SHA-256 of the other files

A checkpoint is written beside its place and renamed into it. It's never written again, so that
whatever happens in a save, those before it stay. What is read is whole, whoever wrote it: a run may
go on with another number of processes. No pickle.
"""

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from mem1.errors import ConfigError, DataError, StoreError
from mem1.files import atomic_write
from mem1.train.shards import local, placed
from mem1.train.team import Team

SCHEMA_VERSION = 1
"""Version of the stored form."""

_INFO, _COMPLETE, _UNFINISHED = "info.json", "complete.json", ".unfinished"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class State:
    """The state of one thing: a model, an optimizer, a scheduler, the place in the data."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """By name; tied ones are stored once. On the CPU when read."""
    info: Any = None
    """A JSON value. When read, tuples are lists and keys are strings."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """All of a run after a step.

    >>> Checkpoint(step=6, parts={"policy": State(tensors=policy.state_dict()),
    ...     "optimizer": optimizer_state(optimizer), "rng": rng_state(),
    ...     "data": State(info={"epoch": 0, "position": 96})})  # doctest: +SKIP
    """

    step: int
    """Optimizer steps made."""
    parts: Mapping[str, State]


def save_checkpoint(
    folder: Path,
    *,
    checkpoint: Checkpoint,
    keep_last: int,
    best: bool = False,
    team: Team | None = None,
) -> Path:
    """Write a checkpoint and delete the old ones; gives its own folder.

    Args: `keep_last`, how many to keep, at least 1; `best`, whether it's the best so far: it's
    kept beyond the last ones until a better one is saved; `team`, processes that each write their
    parts, all at once, into a folder they share.
    Raises: StoreError if it can't be written (disk full, say); those before it are untouched.
    """
    if keep_last < 1:
        raise ConfigError(f"keep_last is {keep_last}: set 1 or more")
    team, unfinished = team or Team(), folder / _UNFINISHED
    number = max((_number(save) for save in _saves(folder)), default=0) + 1
    target = folder / f"{number:05d}-step-{checkpoint.step:06d}"
    try:
        if team.is_first:
            # What a killed process left.
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        team.wait()
        sums = _write_parts(unfinished, checkpoint=checkpoint, team=team)
        if team.is_first:
            _complete(unfinished, checkpoint=checkpoint, best=best, sums=sums)
            unfinished.rename(target)
            _sync(folder)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"{folder}: the checkpoint of step {checkpoint.step} can't be written: {error}. Make "
            "room or lower keep_last, then start the run again: it goes on from the checkpoint "
            "before, which is untouched"
        ) from error
    finally:
        if team.is_first:
            shutil.rmtree(unfinished, ignore_errors=True)
    if team.is_first:
        _delete_old(folder, keep_last=keep_last)
    team.wait()
    return target


def latest_checkpoint(folder: Path, *, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; None if there never was one.

    Args: `warn`, told of each damaged one that is passed over.
    Raises: DataError if all are damaged, or if one was written by another version of mem1.
    """
    return _newest_whole(_saves(folder), warn=warn)


def best_checkpoint(folder: Path, *, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint that was the best when it was saved; else as the latest."""
    return _newest_whole([save for save in _saves(folder) if _was_best(save)], warn=warn)


def optimizer_state(optimizer: torch.optim.Optimizer) -> State:
    """The state of an optimizer: tensors as `{parameter}.{name}`, the rest as JSON."""
    whole = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    others: dict[str, dict[str, Any]] = {}
    for parameter, values in whole["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{parameter}.{name}"] = value
            else:
                others.setdefault(str(parameter), {})[name] = value
    return State(tensors=tensors, info={"groups": whole["param_groups"], "others": others})


def load_optimizer(
    optimizer: torch.optim.Optimizer, *, state: State, names: Sequence[str] | None = None
) -> None:
    """Put an optimizer over the same parameters into a state, settings and schedule included.

    Args: `names`, of the tensors that are its own; None: all.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    values: dict[int, dict[str, Any]] = {}
    for key in state.tensors if names is None else names:
        parameter, name = key.split(".", 1)
        like = parameters[int(parameter)]
        # A copy: the optimizer would write into the tensor it's given.
        values.setdefault(int(parameter), {})[name] = placed(state.tensors[key], like=like)
    for parameter, others in state.info["others"].items():
        values.setdefault(int(parameter), {}).update(others)
    optimizer.load_state_dict({"state": values, "param_groups": state.info["groups"]})


def rng_state() -> State:
    """State of all shared randomness: Python's, numpy's, torch's on the CPU and the current GPU."""
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    kind, keys, *rest = np.random.get_state(legacy=True)
    assert isinstance(keys, np.ndarray)
    return State(
        tensors=tensors,
        info={"python": random.getstate(), "numpy": [kind, keys.tolist(), *rest]},
    )


def set_rng_state(state: State) -> None:
    """Put all shared randomness into a state; a GPU's only where there is one."""
    torch.set_rng_state(state.tensors["cpu"])
    if "cuda" in state.tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(state.tensors["cuda"])
    version, internal, gauss_next = state.info["python"]
    random.setstate((version, tuple(internal), gauss_next))
    np.random.set_state(state.info["numpy"])


def _write_parts(folder: Path, *, checkpoint: Checkpoint, team: Team) -> dict[str, str]:
    """Write what this process holds; it's on disk when this returns. Gives SHA-256 by file name, of
    all processes' files.

    What no process has a part of is the same in all, and the first one writes it.
    """
    sums: dict[str, str] = {}
    for name, state in checkpoint.parts.items():
        tensors = {
            key: local(tensor)
            for key, tensor in state.tensors.items()
            if team.is_first or isinstance(tensor, DTensor)
        }
        # The format can't say "no tensors, no metadata".
        if tensors:
            part = f"-{team.rank + 1}-of-{team.size}" if team.size > 1 else ""
            path = folder / f"{name}{part}.safetensors"
            _write_tensors(path, tensors=tensors)
            sums[path.name] = _sha256(path)
    found: dict[str, str] = {}
    for told in team.gather(json.dumps(sums).encode()):
        found |= json.loads(told)
    return found


def _complete(folder: Path, *, checkpoint: Checkpoint, best: bool, sums: Mapping[str, str]) -> None:
    """Write all but the tensors; it's on disk when this returns."""
    info = {name: state.info for name, state in checkpoint.parts.items()}
    # The standard library's JSON: it keeps integers of 128 bits (numpy's generator) and infinity.
    atomic_write(folder / _INFO, json.dumps({"step": checkpoint.step, "parts": info}))
    sums = dict(sorted({**sums, _INFO: _sha256(folder / _INFO)}.items()))
    complete = {"schema_version": SCHEMA_VERSION, "best": best, "sha256": sums}
    atomic_write(folder / _COMPLETE, json.dumps(complete, indent=1))
    _sync(folder)


def _write_tensors(path: Path, *, tensors: Mapping[str, Tensor]) -> None:
    """One file; of tied tensors it holds one, and the other names in its metadata."""
    stored: dict[tuple[Any, ...], str] = {}
    ties: dict[str, str] = {}
    for name, tensor in tensors.items():
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        first = stored.setdefault(place, name)
        if first != name:
            ties[name] = first
    # Clones where memory is shared otherwise or strided: the format knows whole tensors only.
    save_file(
        {name: _own(tensor.detach().cpu()) for name, tensor in tensors.items() if name not in ties},
        path,
        metadata=ties or None,
    )
    _sync(path)


def _own(tensor: Tensor) -> Tensor:
    """A tensor that is all of its memory."""
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole and tensor.is_contiguous() else tensor.contiguous().clone()


def _read(save: Path) -> Checkpoint:
    """Raises: DataError if it's of another version; ValueError, LookupError, OSError or
    SafetensorError if it's damaged."""
    complete = json.loads((save / _COMPLETE).read_bytes())
    if complete["schema_version"] != SCHEMA_VERSION:
        raise DataError(
            f"{save} has schema_version {complete['schema_version']}, this mem1 reads "
            f"{SCHEMA_VERSION}: install the mem1 that wrote it"
        )
    sums = complete["sha256"]
    for name, expected in sums.items():
        if _sha256(save / name) != expected:
            raise LookupError(f"{name} is not what was written")
    info = json.loads((save / _INFO).read_bytes())
    parts = {
        name: State(
            tensors=_read_tensors([save / file for file in sums if _holds(file, name)]), info=value
        )
        for name, value in info["parts"].items()
    }
    return Checkpoint(step=info["step"], parts=parts)


def _holds(file: str, part: str, /) -> bool:
    """Whether a file holds tensors of a part of a checkpoint, or one process's parts of them."""
    return re.fullmatch(rf"{re.escape(part)}(-\d+-of-\d+)?\.safetensors", file) is not None


def _read_tensors(paths: Sequence[Path]) -> Mapping[str, Tensor]:
    if "-of-" in paths[0].stem if paths else False:
        return _Joined(paths)
    return _read_whole(paths[0]) if paths else {}


def _read_whole(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors | {name: tensors[first] for name, first in (file.metadata() or {}).items()}


class _Joined(Mapping[str, Tensor]):
    """Tensors whose parts are in several files, put together one by one as they are asked for: all
    at once may be more than the memory of one process."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._names: dict[str, list[tuple[Path, str]]] = {}
        for path in sorted(paths, key=lambda path: int(path.stem.split("-")[-3])):
            with safe_open(path, framework="pt") as file:
                ties = file.metadata() or {}
                for name in file.keys():  # noqa: SIM118
                    self._names.setdefault(name, []).append((path, name))
                for name, first in ties.items():
                    self._names.setdefault(name, []).append((path, first))

    def __getitem__(self, name: str) -> Tensor:
        parts: list[Tensor] = []
        for path, stored in self._names[name]:
            with safe_open(path, framework="pt") as file:
                parts.append(file.get_tensor(stored))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _newest_whole(saves: list[Path], *, warn: Callable[[str], None]) -> Checkpoint | None:
    for save in saves:
        try:
            return _read(save)
        except DataError:
            raise
        except (ValueError, LookupError, TypeError, OSError, SafetensorError) as error:
            warn(f"checkpoint {save} is damaged, taking the one before it: {error}")
    if saves:
        names = ", ".join(save.name for save in saves)
        raise DataError(
            f"{saves[0].parent}: can't read {names}: restore one from a copy, or delete them to "
            "start anew"
        )
    return None


def _saves(folder: Path) -> list[Path]:
    """Checkpoints of a folder, whole or damaged, newest first."""
    paths = folder.iterdir() if folder.is_dir() else ()
    named = [path for path in paths if re.fullmatch(r"\d{5,}-step-\d+", path.name)]
    return sorted(named, key=_number, reverse=True)


def _number(save: Path) -> int:
    return int(save.name.split("-")[0])


def _was_best(save: Path) -> bool:
    try:
        return bool(json.loads((save / _COMPLETE).read_bytes())["best"])
    except (ValueError, LookupError, TypeError, OSError):
        return False


def _delete_old(folder: Path, *, keep_last: int) -> None:
    saves = _saves(folder)
    best = next((save for save in saves if _was_best(save)), None)
    for save in saves[keep_last:]:
        if save != best:
            shutil.rmtree(save, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file's content or a folder's list of names is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
