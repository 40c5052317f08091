"""Machines, as they are described."""

import pytest

from mem1.engines import local
from mem1.errors import ConfigError
from mem1.plan import Machine, machine, parse_memory, this_machine


@pytest.mark.parametrize(
    ("text", "size"),
    [("80GB", 80 * 10**9), ("24GiB", 24 * 2**30), ("1.5 gib", 1_610_612_736), ("7", 7)],
)
def test_memory_is_read_with_its_unit(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0GB", "80XB", "1e3GB", "80 G B"])
def test_nonsense_is_no_memory(text):
    with pytest.raises(ConfigError, match="write it as  80GB  or  24GiB"):
        parse_memory(text)


def test_a_described_machine_has_gpus(monkeypatch):
    monkeypatch.setattr(machine, "_gpus", list)
    assert this_machine(on_cpu=False, devices=8, memory=5) == Machine(devices=8, memory=5)


def test_gpus_without_a_memory_are_refused_where_there_are_none(monkeypatch):
    monkeypatch.setattr(machine, "_gpus", list)
    with pytest.raises(ConfigError, match="--devices 8: no GPU here, add their  --memory 80GB"):
        this_machine(on_cpu=False, devices=8)


def test_this_machine_is_its_gpus_with_the_least_memory(monkeypatch):
    monkeypatch.setattr(machine, "_gpus", lambda: [9, 7])
    assert this_machine(on_cpu=False) == Machine(devices=2, memory=7)


def test_without_a_gpu_it_is_the_cpu_and_so_it_is_if_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(machine, "_ram", lambda: 12)
    monkeypatch.setattr(machine, "_gpus", lambda: [9])
    monkeypatch.setattr(machine, "_cpu_has_bfloat16", lambda: False)
    one, two = this_machine(on_cpu=True), this_machine(on_cpu=True, devices=2)
    assert one == Machine(memory=12, kind="cpu", bfloat16=False)
    assert two == Machine(devices=2, memory=6, kind="cpu", bfloat16=False)


def test_what_the_cpu_has_is_what_the_engine_goes_by():
    pytest.importorskip("torch")
    assert machine._cpu_has_bfloat16() == local._computes_in_bfloat16("cpu")


def test_there_is_at_least_one_device():
    with pytest.raises(ConfigError, match="--devices 0: give at least 1"):
        Machine(devices=0, memory=1)
