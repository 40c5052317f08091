"""Checkpoints: resume is bit-identical, and no crash, damage or full disk loses an older one."""

import errno
import json
import os
import random
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mem1.errors import ConfigError, DataError, StoreError
from mem1.train.checkpoint import (
    Checkpoint,
    State,
    best_checkpoint,
    latest_checkpoint,
    load_optimizer,
    optimizer_state,
    rng_state,
    save_checkpoint,
    set_rng_state,
)


class Run:
    """A tiny training run whose every step draws from all sources of randomness."""

    def __init__(self, *, optimizer: str, seed: int) -> None:
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        self.model = nn.Sequential(nn.Linear(5, 7), nn.Dropout(0.3), nn.ReLU(), nn.Linear(7, 2))
        make = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[optimizer]
        options = {"momentum": 0.9} if optimizer == "sgd" else {"betas": (0.8, 0.99)}
        first, *others = self.model.parameters()
        groups = [{"params": [first], "weight_decay": 0.1}, {"params": others, "lr": 0.05}]
        self.optimizer = make(groups, lr=0.1, **options)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=10)

    def step(self) -> None:
        inputs = torch.tensor(np.random.normal(size=(4, 5)), dtype=torch.float32)
        loss = self.model(inputs).square().sum() * random.random()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()

    def checkpoint(self, step: int) -> Checkpoint:
        parts = {
            "policy": State(tensors=self.model.state_dict()),
            "optimizer": optimizer_state(self.optimizer),
            "scheduler": State(info=self.scheduler.state_dict()),
            "rng": rng_state(),
        }
        return Checkpoint(step=step, parts=parts)

    def load(self, checkpoint: Checkpoint) -> None:
        self.model.load_state_dict(checkpoint.parts["policy"].tensors)
        load_optimizer(self.optimizer, state=checkpoint.parts["optimizer"])
        self.scheduler.load_state_dict(checkpoint.parts["scheduler"].info)
        set_rng_state(checkpoint.parts["rng"])


def same(one: Checkpoint, other: Checkpoint) -> bool:
    """Equal bit for bit, tensors and JSON."""

    def bits(checkpoint: Checkpoint):
        return checkpoint.step, {
            name: (
                json.dumps(state.info),
                {
                    key: (tensor.dtype, tensor.shape, tensor.numpy().tobytes())
                    for key, tensor in state.tensors.items()
                },
            )
            for name, state in checkpoint.parts.items()
        }

    return bits(one) == bits(other)


def simple(step: int) -> Checkpoint:
    tensors = {"w": torch.arange(1000.0) + step}
    return Checkpoint(
        step=step, parts={"policy": State(tensors=tensors), "data": State(info={"at": step})}
    )


def save(folder: Path, *steps: int, keep_last: int = 9) -> list[Path]:
    return [save_checkpoint(folder, checkpoint=simple(s), keep_last=keep_last) for s in steps]


def latest(folder: Path) -> tuple[int | None, list[str]]:
    """Step of the latest checkpoint, and what was said about others."""
    notes: list[str] = []
    found = latest_checkpoint(folder, warn=notes.append)
    assert found is None or same(found, simple(found.step))
    return found.step if found else None, notes


def never(note: str) -> None:
    raise AssertionError(note)


def test_the_newest_checkpoint_is_of_the_most_steps_whatever_clocks_say(tmp_path):
    for age, path in enumerate(save(tmp_path, 9, 10, 11)):
        for file in (path, *path.iterdir()):
            os.utime(file, (2e9 - 9e8 * age, 2e9 - 9e8 * age))
    assert latest(tmp_path) == (11, [])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_resumed_run_is_bit_identical(tmp_path, optimizer):
    whole = Run(optimizer=optimizer, seed=1)
    for _ in range(6):
        whole.step()
    expected = whole.checkpoint(6)
    cut = Run(optimizer=optimizer, seed=1)
    for _ in range(3):
        cut.step()
    save_checkpoint(tmp_path, checkpoint=cut.checkpoint(3), keep_last=1)
    resumed = Run(optimizer=optimizer, seed=2)
    found = latest_checkpoint(tmp_path, warn=never)
    assert found is not None
    resumed.load(found)
    for _ in range(3):
        resumed.step()
    assert same(resumed.checkpoint(6), expected)


def test_a_checkpoint_is_not_written_into_by_the_run_that_goes_on_from_it(tmp_path):
    run = Run(optimizer="adamw", seed=1)
    run.step()
    save_checkpoint(tmp_path, checkpoint=run.checkpoint(1), keep_last=1)
    found, again = (latest_checkpoint(tmp_path, warn=never) for _ in range(2))
    assert found is not None
    assert again is not None
    run.load(found)
    run.step()
    assert same(found, again)


def test_forgetting_any_part_would_show():
    """The run of the test above does depend on each part."""
    for forgotten in ("policy", "optimizer", "scheduler", "rng"):
        run, other = Run(optimizer="adamw", seed=1), Run(optimizer="adamw", seed=2)
        run.step()
        kept = run.checkpoint(1).parts
        run.step()
        expected = run.checkpoint(2)
        other.step()
        other.load(
            Checkpoint(step=1, parts=kept | {forgotten: other.checkpoint(1).parts[forgotten]})
        )
        other.step()
        assert not same(other.checkpoint(2), expected), forgotten


def test_every_kind_of_tensor_and_number_comes_back(tmp_path):
    tensors = {
        "half": torch.tensor([1.5, -0.0, float("nan")], dtype=torch.bfloat16),
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 4),
        "also empty": torch.empty(0, 4),
        "flags": torch.tensor([True, False]),
        "strided": torch.arange(6.0).reshape(2, 3).T,
        "whole": (whole := torch.arange(100.0)),
        "beginning": whole[:5],
        "part": whole[3:5],
    }
    info = {"best": -float("inf"), "state": 2**127, "rate": 0.1, "none": None, "text": "ü"}
    checkpoint = Checkpoint(step=1, parts={"all": State(tensors=tensors, info=info)})
    save_checkpoint(tmp_path, checkpoint=checkpoint, keep_last=1)
    found = latest_checkpoint(tmp_path, warn=never)
    assert found is not None
    read = found.parts["all"]
    assert read.info == info
    assert {name: (t.dtype, t.tolist()) for name, t in read.tensors.items() if name != "half"} == {
        name: (t.dtype, t.tolist()) for name, t in tensors.items() if name != "half"
    }
    assert torch.equal(read.tensors["half"].view(torch.int16), tensors["half"].view(torch.int16))


def test_tied_tensors_are_stored_once_and_read_under_both_names(tmp_path):
    weight = torch.arange(1000.0)
    parts = {"policy": State(tensors={"embed": weight, "head": weight})}
    folder = save_checkpoint(tmp_path, checkpoint=Checkpoint(step=1, parts=parts), keep_last=1)
    found = latest_checkpoint(tmp_path, warn=never)
    assert found is not None
    assert torch.equal(found.parts["policy"].tensors["head"], weight)
    assert torch.equal(found.parts["policy"].tensors["embed"], weight)
    assert (folder / "policy.safetensors").stat().st_size < 4400


def test_a_folder_without_checkpoints_gives_none(tmp_path):
    (tmp_path / "notes").mkdir()
    assert latest(tmp_path) == (None, [])
    assert latest(tmp_path / "missing") == (None, [])


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    for step in range(1, 6):
        checkpoint = simple(step)
        save_checkpoint(tmp_path, checkpoint=checkpoint, keep_last=2, best=step in (1, 2))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "00002-step-000002",
        "00004-step-000004",
        "00005-step-000005",
    ]
    best = best_checkpoint(tmp_path, warn=never)
    assert best is not None
    assert best.step == 2
    assert latest(tmp_path) == (5, [])


def test_the_newest_is_the_one_saved_last_even_at_an_earlier_step(tmp_path):
    """A run set back from step 6 to 3 goes on from what it saves then."""
    save(tmp_path, 3, 6, 4, keep_last=2)
    assert latest(tmp_path) == (4, [])
    save(tmp_path, 4, keep_last=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00004-step-000004"]


def test_keeping_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="keep_last is 0: set 1 or more"):
        save(tmp_path, 1, keep_last=0)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "truncated tensors": lambda f: os.truncate(f / "policy.safetensors", 2000),
    "one wrong bit": lambda f: flip(f / "policy.safetensors"),
    "missing tensors": lambda f: (f / "policy.safetensors").unlink(),
    "missing marker": lambda f: (f / "complete.json").unlink(),
    "empty marker": lambda f: (f / "complete.json").write_bytes(b""),
    "marker of another kind": lambda f: (f / "complete.json").write_text("[1]"),
    "torn info": lambda f: os.truncate(f / "info.json", 10),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_gives_way_to_the_one_before_and_is_named(tmp_path, damage):
    newest = save(tmp_path, 3, 6)[-1]
    DAMAGES[damage](newest)
    step, notes = latest(tmp_path)
    assert step == 3
    assert len(notes) == 1
    assert f"{newest} is damaged" in notes[0]


def test_when_all_are_damaged_the_run_does_not_start_anew(tmp_path):
    for folder in save(tmp_path, 3, 6):
        (folder / "complete.json").unlink()
    with pytest.raises(DataError, match="can't read 00002-step-000006, 00001-step-000003"):
        latest(tmp_path)


def test_a_checkpoint_of_another_version_is_refused_not_passed_over(tmp_path):
    marker = save(tmp_path, 3, 6)[-1] / "complete.json"
    marker.write_text(marker.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(DataError, match="schema_version 2, this mem1 reads 1"):
        latest(tmp_path)


def test_a_full_disk_leaves_the_earlier_ones_and_nothing_else(tmp_path, monkeypatch):
    save(tmp_path, 3)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"step 6 can't be written.*No space left.*Make room"):
        save(tmp_path, 6, keep_last=1)
    assert [path.name for path in tmp_path.iterdir()] == ["00001-step-000003"]
    assert latest(tmp_path) == (3, [])


def test_a_write_that_fails_in_the_middle_of_the_tensors_is_told_too(tmp_path):
    save(tmp_path, 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(StoreError, match="step 6 can't be written"):
            save(tmp_path, 6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["00001-step-000003"]


def save_and_die(folder: Path, *steps: int, at_sync: int) -> bool:
    """Save in a child that is gone without warning at a certain sync; False if it got through."""
    child = os.fork()
    if child == 0:
        real, calls = os.fsync, iter(range(1000))
        os.fsync = lambda handle: os._exit(9) if next(calls) == at_sync else real(handle)
        try:
            save(folder, *steps, keep_last=1)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_kill_anywhere_in_a_save_loses_at_most_that_save(tmp_path):
    found, at_sync = [], 0
    while save_and_die(folder := tmp_path / str(at_sync), 3, 6, at_sync=at_sync):
        found.append(latest(folder))
        save(folder, 9, keep_last=1)
        assert latest(folder) == (9, [])
        assert len(list(folder.iterdir())) == 1
        at_sync += 1
    # Five syncs in a save; at the last of them it's in its place.
    assert found == [(None, [])] * 4 + [(3, [])] * 5 + [(6, [])]
