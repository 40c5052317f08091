"""From settings to worlds and tasks."""

import asyncio

import pytest

from mem1.config import HTTPConfig, LedgerTasks, LocalConfig, RunConfig, RunSettings, TasksConfig
from mem1.tasks.ledger import LedgerConfig, ledger_task
from mem1.wiring import compose_tasks, open_world

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
