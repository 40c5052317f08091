"""From settings to worlds and tasks."""

import asyncio
from dataclasses import replace

import pytest

from mem1.config import (
    CustomTasks,
    HTTPConfig,
    LedgerTasks,
    LocalConfig,
    NeedleTasks,
    RunConfig,
    RunSettings,
    TasksConfig,
)
from mem1.envs.ledger import LedgerEnv
from mem1.errors import ConfigError
from mem1.tasks.ledger import LedgerConfig, ledger_task
from mem1.tools import FunctionTool, HTTPRetriever, Toolbox
from mem1.tools.web import WebConfig
from mem1.types import Task
from mem1.worlds import compose_tasks, open_retriever, open_world

TASK = ledger_task(LedgerConfig(), num_objectives=2, number=0)


def prompt(tasks, *, told: bool) -> str:
    config = RunConfig(
        engine=LocalConfig(model="none"),
        retriever=HTTPConfig(url="http://localhost"),
        tasks=tasks,
        run=RunSettings(state_budget=told),
    )
    return asyncio.run(open_world(config)(TASK).start(max_turns=4, state_tokens=2417))


@pytest.mark.parametrize("tasks", [LedgerTasks(), TasksConfig()], ids=["ledger", "questions"])
def test_the_cap_on_the_state_is_in_the_prompt_only_if_the_config_says_so(tasks):
    assert "2417" in prompt(tasks, told=True)
    assert "2417" not in prompt(tasks, told=False)


def test_a_number_of_objectives_that_two_levels_have_in_common_gives_its_tasks_once():
    twice = compose_tasks(LedgerTasks(num_objectives=(1, 2, 2), count=3))
    assert [len(task.objectives) for task in twice] == [1, 1, 1, 2, 2, 2]


def test_a_token_is_taken_from_the_environment(monkeypatch):
    config = HTTPConfig(url="http://localhost", token_env="RETRIEVER_TOKEN")
    monkeypatch.delenv("RETRIEVER_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="RETRIEVER_TOKEN"):
        open_retriever(config)
    monkeypatch.setenv("RETRIEVER_TOKEN", "s3cret")
    assert isinstance(open_retriever(config), HTTPRetriever)


def made_tasks(*, count: int) -> list[Task]:
    return [Task(id=f"t{number}", objectives=TASK.objectives) for number in range(count)]


def test_tasks_and_worlds_of_your_own_are_called_by_their_path():
    here = f"{__name__}:made_tasks"
    custom = CustomTasks(tasks=here, settings={"count": 3}, env="mem1.envs.ledger:LedgerEnv")
    assert [task.id for task in compose_tasks(custom, limit=2)] == ["t0", "t1"]
    config = RunConfig(engine=LocalConfig(model="none"), tasks=custom)
    assert isinstance(open_world(config)(TASK), LedgerEnv)


def none_at_all() -> list[str]:
    return ["a task"]


@pytest.mark.parametrize(
    ("tasks", "settings", "said"),
    [
        ("no.such:thing", {}, "tasks.tasks no.such:thing: No module named 'no'"),
        ("json:nothing", {}, "tasks.tasks json:nothing: module 'json' has no attribute"),
        ("nobodys", {}, "tasks.tasks nobodys: no installed package has an entry point"),
        (f"{__name__}:made_tasks", {"n": 1}, "with tasks.settings: missing a required argument"),
        (f"{__name__}:none_at_all", {}, "gives 'a task', which is no Task"),
    ],
)
def test_tasks_that_cannot_be_had_are_named(tasks, settings, said):
    with pytest.raises(ConfigError, match=said):
        compose_tasks(CustomTasks(tasks=tasks, settings=settings))


def test_a_world_that_is_none_is_named():
    custom = CustomTasks(tasks=f"{__name__}:made_tasks", env="mem1.types:Task.__repr__")
    with pytest.raises(ConfigError, match=r"tasks\.env .* has no attribute"):
        open_world(RunConfig(engine=LocalConfig(model="none"), tasks=custom))
    plain = replace(custom, env="builtins:id")
    make_env = open_world(RunConfig(engine=LocalConfig(model="none"), tasks=plain))
    with pytest.raises(ConfigError, match=r"tasks\.env builtins:id: gives \d+, which is no Env"):
        make_env(TASK)


def test_tools_are_refused_where_none_is_called():
    config = RunConfig(engine=LocalConfig(model="none"), tasks=LedgerTasks())
    with pytest.raises(ConfigError, match="tasks of kind 'ledger' have actions of their own"):
        open_world(config, toolbox=Toolbox([FunctionTool(made_tasks)]))


def test_needles_are_read_in_a_world_of_documents():
    tasks = NeedleTasks(num_objectives=(1, 2), count=2, num_chars=500, chunk_chars=100)
    found = compose_tasks(tasks)
    assert [len(task.objectives) for task in found] == [1, 1, 2, 2]
    world = open_world(RunConfig(engine=LocalConfig(model="none"), tasks=tasks))(found[0])
    told = asyncio.run(world.start(max_turns=20, state_tokens=1))
    assert found[0].objectives[0].question in told


@pytest.mark.parametrize("tools", [False, True])
def test_the_open_web_is_searched_and_read(tmp_path, tools):
    web = WebConfig(provider="serper", mode="replay", recording=str(tmp_path))
    config = RunConfig(engine=LocalConfig(model="none"), retriever=web)
    toolbox = Toolbox([FunctionTool(made_tasks)]) if tools else None
    world = open_world(config, toolbox=toolbox)(TASK)
    told = asyncio.run(world.start(max_turns=4, state_tokens=9))
    assert world.actions == ("search", "fetch", *(["tool"] if tools else []), "answer")
    assert "<fetch>address words" in told
    assert ("made_tasks: " in told) is tools
