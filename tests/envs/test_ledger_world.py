"""The ledger's world: a search shows a page, an answer ends it."""

import asyncio

import pytest

from mem1.envs.base import Observation
from mem1.envs.ledger import LEDGER_BUDGET_PROMPT, LedgerEnv
from mem1.errors import DataError
from mem1.tasks.ledger import LedgerConfig, ledger_of, ledger_task
from mem1.text import neutralise
from mem1.types import Action, Objective, Task

TASK = ledger_task(LedgerConfig(num_distractors=1), num_objectives=2, number=0)
LEDGER = ledger_of(TASK)


def start(env):
    return asyncio.run(env.start(max_turns=4, state_tokens=24))


def step(action):
    return asyncio.run(LedgerEnv(TASK).step(action, faults=()))


def test_the_prompt_names_what_is_asked_and_tells_no_value():
    prompt = start(LedgerEnv(TASK))
    assert prompt == f"Find the values of {' '.join(LEDGER.queries)}\n"


def test_another_prompt_may_tell_the_turns():
    env = LedgerEnv(TASK, prompt="{max_turns} turns: {question}")
    assert start(env) == f"4 turns: {' '.join(LEDGER.queries)}"


def test_another_prompt_states_the_cap_on_the_notes():
    prompt = start(LedgerEnv(TASK, prompt=LEDGER_BUDGET_PROMPT))
    names = " ".join(LEDGER.queries)
    assert prompt == f"Find the values of {names} with notes of 24 tokens\n"


@pytest.mark.parametrize("name", LEDGER.queries)
def test_a_search_shows_the_page_of_a_name_every_time(name):
    assert step(Action(name="search", argument=name)) == Observation(text=LEDGER.pages[name])


def test_a_search_for_anything_else_finds_nothing():
    assert step(Action(name="search", argument="Paris")) == Observation(text="found nothing")


def test_an_answer_ends_it():
    assert step(Action(name="answer", argument="1")) == Observation(text="", done=True)


def test_no_action_is_said_and_costs_a_turn():
    assert step(None) == Observation(text="no action")


def test_what_it_says_survives_neutralising():
    assert [p for p in LEDGER.pages.values() if neutralise(p) != p] == []


def test_a_task_of_another_world_is_refused():
    with pytest.raises(DataError, match="not of the ledger"):
        LedgerEnv(Task(id="t", objectives=(Objective(question="q", answers=("a",)),)))
