"""Demonstrations: what an expert says, recorded as if a model had said it."""

import asyncio

import pytest

from mem1.chat import ByteRenderer
from mem1.context import Budget, InternalState
from mem1.engines import ScriptedEngine
from mem1.envs.ledger import LedgerEnv
from mem1.errors import DataError
from mem1.rewards import ExactMatchReward
from mem1.rollout import Agent, Job
from mem1.tasks.expert import PERFECT, Imperfections
from mem1.tasks.ledger import LedgerConfig, ledger_tasks
from mem1.train.demonstrations import demonstrations
from mem1.types import Fault, Objective, Task

BUDGET = Budget(prompt=200, internal_state=100, action=100, observation=300)
TASKS = ledger_tasks(LedgerConfig(), num_objectives=2, count=30)


AGENT = Agent(
    engine=ScriptedEngine((), codec=ByteRenderer()),
    renderer=ByteRenderer(),
    context=InternalState(),
    budget=BUDGET,
    max_turns=4,
)


def play(tasks=TASKS, *, faults=PERFECT, seed=0):
    reward = ExactMatchReward()
    jobs = [Job(task=task, agent=AGENT, make_env=LedgerEnv, reward=reward) for task in tasks]
    return asyncio.run(demonstrations(jobs, faults=faults, seed=seed))


def ids(trajectories):
    return [[turn.completion.token_ids for turn in played.turns] for played in trajectories]


def test_a_perfect_expert_earns_every_objective():
    played = play()
    assert [trajectory.reward for trajectory in played] == [2.0] * 30
    assert {trajectory.num_turns for trajectory in played} == {3}


def test_the_expert_tells_no_probabilities():
    assert {turn.completion.logprobs for played in play() for turn in played.turns} == {None}


def test_failings_are_in_the_record():
    played = play(faults=Imperfections(format_slip=1.0))
    assert {turn.faults for trajectory in played for turn in trajectory.turns[:-1]} == {
        (Fault.STATE_UNCLOSED,)
    }


def test_a_seed_and_a_task_give_the_same_demonstration_in_any_company():
    faults = Imperfections(forget=0.3, early_answer=0.2)
    assert ids(play(faults=faults))[10:] == ids(play(TASKS[10:], faults=faults))
    assert ids(play(faults=faults)) != ids(play(faults=faults, seed=1))


def test_a_task_of_another_world_is_refused():
    with pytest.raises(DataError, match="not of the ledger"):
        play([Task(id="t", objectives=(Objective(question="q", answers=("a",)),))])
