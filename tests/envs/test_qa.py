"""The QA world: what is asked, what an action brings, which tools may be there."""

import asyncio
from dataclasses import dataclass

import pytest

from mem1.envs import QAEnv
from mem1.envs.base import Observation
from mem1.envs.prompts import QA_BUDGET_PROMPT, QA_PROMPT
from mem1.errors import ConfigError, ToolError
from mem1.text import neutralise
from mem1.types import Action, Objective, Task


def task(*questions):
    return Task(id="t", objectives=tuple(Objective(question=q, answers=("x",)) for q in questions))


@dataclass(frozen=True)
class Echo:
    name: str = "search"

    async def call(self, argument: str) -> str:
        if argument == "boom":
            raise ToolError("no connection")
        return f"{self.name}: {argument}"


def start(env):
    return asyncio.run(env.start(max_turns=6, state_tokens=40))


def step(env, action):
    return asyncio.run(env.step(action, faults=()))


def test_the_questions_stand_in_the_prompt_and_braces_are_theirs():
    asked = task("Is {question} {max_turns} {state_tokens}", "B?")
    env = QAEnv(asked, tools=[], prompt="{max_turns}, {state_tokens}: {question}")
    assert start(env) == "6, 40: Is {question} {max_turns} {state_tokens}?; B?"


def test_a_prompt_may_state_the_cap_on_the_notes():
    plain, stated = (
        start(QAEnv(task("A?"), tools=[], prompt=prompt))
        for prompt in (QA_PROMPT, QA_BUDGET_PROMPT)
    )
    rule = "Notes of more than 40 tokens, tags included, are not kept.\n"
    assert stated.replace(rule, "") == plain != stated


def test_prompts_of_two_tasks_are_equal_up_to_the_question():
    one, two = (start(QAEnv(task(q), tools=[Echo()])) for q in ("Alpha?", "Beta?"))
    assert one.partition("Alpha?")[0] == two.partition("Beta?")[0] != ""


def test_an_answer_ends_the_episode_even_before_any_search():
    env = QAEnv(task("A?"), tools=[Echo()])
    assert step(env, Action(name="answer", argument="y")) == Observation(text="", done=True)


def test_a_tool_is_called_by_its_name():
    env = QAEnv(task("A?"), tools=[Echo(), Echo(name="lookup")])
    assert env.actions == ("search", "lookup", "answer")
    assert step(env, Action(name="lookup", argument="y")) == Observation(text="lookup: y")


def test_no_action_brings_guidance_that_survives_neutralising():
    env = QAEnv(task("A?"), tools=[Echo()])
    observation = step(env, None)
    assert observation.text.startswith("Your last reply had no valid action.")
    assert neutralise(observation.text) == observation.text
    assert not observation.done


def test_a_tool_error_goes_to_the_episode():
    env = QAEnv(task("A?"), tools=[Echo()])
    with pytest.raises(ToolError, match="no connection"):
        step(env, Action(name="search", argument="boom"))


@pytest.mark.parametrize(
    "name", ["think", "answer", "information", "hint", "Search", "a b", "", "9x", "x>"]
)
def test_a_tool_cannot_have_a_name_that_is_taken_or_no_tag(name):
    with pytest.raises(ConfigError, match="tool name"):
        QAEnv(task("A?"), tools=[Echo(name=name)])


def test_two_tools_cannot_share_a_name():
    with pytest.raises(ConfigError, match="two tools"):
        QAEnv(task("A?"), tools=[Echo(), Echo()])


def test_a_prompt_without_a_place_for_the_question_is_refused():
    with pytest.raises(ConfigError, match=r"no \{question\}"):
        QAEnv(task("A?"), tools=[], prompt="Answer!")
