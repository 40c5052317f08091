"""What `mem1 data list` names can be loaded as it says."""

import json
import tomllib
from pathlib import Path

import pytest

from mem1.cli import run_command
from mem1.config import AnyTasks, RunConfig
from mem1.settings import build
from mem1.tasks.catalogue import SOURCES
from mem1.worlds import compose_tasks

HERE = [source for source in SOURCES if "hub:" not in source.load]


def tasks_of(load: str) -> AnyTasks:
    table = {"engine": {"kind": "local", "model": "none"}, "tasks": tomllib.loads(load)}
    return build(RunConfig, table).tasks


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_the_settings_are_settings(source):
    assert tasks_of(source.load).kind


@pytest.mark.parametrize("source", HERE, ids=lambda source: source.name)
def test_what_is_here_is_loaded(source, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    assert compose_tasks(tasks_of(source.load), limit=2) != []


def test_the_command_lists_them_all(capsys):
    assert run_command(["data", "list", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == [s.name for s in SOURCES]
    assert run_command(["data", "list"]) == 0
    printed = capsys.readouterr().out
    assert all(source.name in printed and source.licence in printed for source in SOURCES)
