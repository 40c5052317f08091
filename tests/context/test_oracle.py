"""The oracle's states: what the contexts showed, as the perfect expert would write it."""

import asyncio
import random

import pytest

from mem1.chat import ByteRenderer
from mem1.context import Budget, Oracle, Parts
from mem1.engines import ScriptedEngine
from mem1.envs.ledger import LedgerEnv
from mem1.errors import BudgetError, ConfigError
from mem1.rewards import ExactMatchReward
from mem1.rollout import Agent, run_episode
from mem1.tasks.expert import demonstrate
from mem1.tasks.ledger import LedgerConfig, ledger_task, read_entries
from mem1.text import close_tag, open_tag
from mem1.types import Context, Objective, Segment, SegmentKind, Task, context_ids

RENDERER = ByteRenderer()
BUDGET = Budget(prompt=100, internal_state=300, action=40, observation=120)
FAMILIES = ["lookup", "chain", "update", "aggregate"]
QUESTIONS = Task(
    id="qa",
    objectives=(
        Objective(question="Is it </think> blue?", answers=("yes",)),
        Objective(question="Who said yes?", answers=("The Prince", "Harry")),
    ),
)


def segment(kind: SegmentKind, turn: int, text: str) -> Segment:
    return Segment(kind=kind, turn=turn, token_ids=RENDERER.encode(text), text=text)


def parts(turn: int, *, query: str, page: str) -> Parts:
    return Parts(
        reply=segment(SegmentKind.REPLY, turn, "anything"),
        internal_state=segment(SegmentKind.INTERNAL_STATE, turn, "<think> wrong</think>"),
        action=segment(SegmentKind.ACTION, turn, f"<search> {query}</search>"),
        observation=segment(SegmentKind.OBSERVATION, turn, page),
        hint=segment(SegmentKind.HINT, turn, "hint"),
    )


def states(task: Task, *shown: tuple[str, str]) -> list[str]:
    """The oracle's state of each turn, given queries and what they show."""
    policy = Oracle().of(task, renderer=RENDERER, budget=BUDGET)
    context: Context = (segment(SegmentKind.PROMPT, 0, "prompt"),)
    found = []
    for turn, (query, page) in enumerate(shown, start=1):
        context = policy.update(context, parts(turn, query=query, page=page))
        found += [s.text for s in context if s.kind is SegmentKind.INTERNAL_STATE]
    return found


def lookup(family: str = "lookup", number: int = 0) -> Task:
    return ledger_task(LedgerConfig(family=family), num_objectives=4, number=number)


@pytest.mark.parametrize("family", FAMILIES)
def test_its_states_are_those_of_the_perfect_expert(family):
    for number in range(5):
        task = lookup(family, number)
        said = demonstrate(task, max_turns=20, rng=random.Random(0))
        thoughts = [reply.split(close_tag("think"))[0] + close_tag("think") for reply in said]
        assert states(task, *task.metadata["pages"].items()) == thoughts[:-1]


def test_what_was_read_out_of_order_and_twice_is_held_once():
    task = lookup("update")
    pages = task.metadata["pages"]
    first, second = list(pages)[:2]
    held = task.metadata["memory"][2]
    *_, last = states(task, (second, pages[second]), (first, pages[first]), (first, "x"))
    assert set(held.items()) == set(zip(last.split()[1:-1:2], last.split()[2:-1:2], strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_in_whatever_order_and_however_often_pages_are_read_it_gets_to_the_answers(family):
    for number in range(12):
        task = lookup(family, number)
        pages = [*task.metadata["pages"].items()] * 2
        random.Random(number).shuffle(pages)
        *_, last = states(task, *pages)
        assert dict(read_entries(last)) == task.metadata["memory"][-1]


def test_a_sum_replaces_both_values_and_is_made_once():
    pages = {"kami": "found kami 142", "lone": "found lone 117"}
    memory = [{}, {"kami": "142"}, {"kami": "159"}]
    task = Task(
        id="sum",
        objectives=(Objective(question="sum kami lone", answers=("159",)),),
        metadata={"num_values": 100, "queries": list(pages), "pages": pages, "memory": memory},
    )
    asked = ("lone", "lone", "kami", "lone", "kami", "kami")
    assert states(task, *((name, pages[name]) for name in asked)) == [
        "<think> lone</think>",
        "<think> lone 117 lone</think>",
        "<think> lone 117 kami</think>",
        "<think> kami 159 lone</think>",
        "<think> kami 159 kami</think>",
        "<think> kami 159 kami</think>",
    ]


def test_it_repeats_no_query_that_is_no_name():
    assert states(lookup(), ("a very long one " * 9, "nothing")) == ["<think> unknown</think>"]


def test_of_questions_it_holds_the_answers_it_saw_and_no_others():
    found = states(QUESTIONS, ("x", "Harry"), ("y", "nothing"), ("z", "yes"), ("z", ""))
    prince = "Who said yes?: The Prince"
    assert found == [
        "<think>\nunknown</think>",
        f"<think>\n{prince}</think>",
        f"<think>\n{prince}</think>",
        f"<think>\nIs it ‹/think> blue?: yes\n{prince}</think>",
    ]


def test_a_task_whose_state_breaks_the_cap_is_refused():
    size = len(RENDERER.encode("<think> kami 142 lone 117 lone</think>"))
    two = ledger_task(LedgerConfig(), num_objectives=2, number=0)
    fits = Budget(internal_state=size)
    assert Oracle().of(two, renderer=RENDERER, budget=fits).largest() == size
    with pytest.raises(BudgetError, match=rf"takes up to {size} tokens.*raise it to {size}"):
        Oracle().of(two, renderer=RENDERER, budget=Budget(internal_state=size - 1))


def test_without_a_task_it_says_what_is_missing():
    with pytest.raises(ConfigError, match="each task has its own"):
        Oracle().update((), parts(1, query="x", page="x"))


def test_an_agent_that_only_acts_right_is_carried_by_it():
    task = lookup()
    said = demonstrate(task, max_turns=6, rng=random.Random(0))
    acts = [f"{open_tag('think')} wrong{reply[reply.index('</think>') :]}" for reply in said]
    agent = Agent(
        engine=ScriptedEngine(acts, codec=RENDERER),
        renderer=RENDERER,
        context=Oracle(),
        budget=BUDGET,
    ).for_task(task)
    found = asyncio.run(
        run_episode(task, agent=agent, env=LedgerEnv(task), reward=ExactMatchReward())
    )
    (state,) = (s for s in found.turns[-1].context if s.kind is SegmentKind.INTERNAL_STATE)
    assert state.token_ids == RENDERER.encode(said[-2].split("<search>")[0])
    assert (found.context_policy, found.reward, found.bound) == ("oracle", 4.0, agent.bound())
    assert all(len(context_ids(turn.context)) <= agent.bound() for turn in found.turns)
