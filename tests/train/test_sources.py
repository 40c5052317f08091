"""Batches: each a function of seed and step, and of whole, sound groups only."""

import asyncio
from dataclasses import replace

import pytest
from ledger_runs import Parity, groups, train_config

from mem1.chat import ByteRenderer
from mem1.context import Budget, InternalState
from mem1.engines import ScriptedEngine
from mem1.envs.ledger import LedgerEnv
from mem1.errors import ConfigError, DataError, EngineError
from mem1.rollout import Agent, Job
from mem1.tasks.ledger import LedgerConfig, ledger_tasks
from mem1.train.config import DemonstrationsConfig
from mem1.train.curriculum import Level
from mem1.train.sources import Demonstrations, Rollouts, drawn, worth_imitating
from mem1.types import Objective, Sampling, StopReason

TASKS = ledger_tasks(LedgerConfig(), num_objectives=1, count=6)
ALL = Level()
REPLY = "<think> kami</think><answer> 142</answer>"


class Plan:
    """Jobs over a script; `calls` are what was asked for."""

    def __init__(self, script) -> None:
        self.calls = []
        self.engine = ScriptedEngine(script, codec=ByteRenderer())

    def __call__(self, tasks, *, samples, seed, greedy, internal_state):
        self.calls.append(([task.id for task in tasks], samples, seed, greedy, internal_state))
        agent = Agent(
            engine=self.engine,
            renderer=ByteRenderer(),
            context=InternalState(),
            budget=Budget(
                prompt=100, internal_state=internal_state or 40, action=40, observation=200
            ),
            sampling=Sampling(temperature=0.0 if greedy else 1.0, seed=seed),
            max_turns=2,
        )
        return [
            Job(task=task, sample=sample, agent=agent, make_env=LedgerEnv, reward=Parity())
            for task in tasks
            for sample in range(samples)
        ]


@pytest.fixture
def rollouts(tmp_path):
    """Makes sources whose engine says what a script says."""
    with asyncio.Runner() as runner:

        def make(script=lambda _: REPLY, algorithm="grpo", **changes) -> Rollouts:
            config = train_config(algorithm, batch_size=2, **changes.pop("config", {}))
            settings = {
                "folder": tmp_path,
                "tasks": TASKS,
                "validation_tasks": TASKS[:2],
                "plan": Plan(script),
                "mode": "reencode",
                "temperature": 1.0,
                "config": config,
                "concurrency": 1,
                "runner": runner,
            }
            return Rollouts(**(settings | changes))

        yield make


def named(trajectories):
    return [(trajectory.task.id, trajectory.sample) for trajectory in trajectories]


def failing(*numbers):
    """A script in which these calls fail."""
    count = iter(range(1000))
    return lambda _: EngineError("server down") if next(count) in numbers else REPLY


def drawn_six(step, *, seed=0):
    return drawn("abcdef", step=step, size=2, seed=seed, name="tasks")


def test_every_item_is_drawn_once_an_epoch_and_each_epoch_is_shuffled_anew():
    epochs = [
        [item for step in range(first, first + 3) for item in drawn_six(step)] for first in (1, 4)
    ]
    assert [sorted(epoch) for epoch in epochs] == [list("abcdef")] * 2
    assert epochs[0] != epochs[1]


def test_a_step_draws_the_same_whatever_came_before_and_other_seeds_others():
    assert drawn_six(5) == drawn_six(5)
    assert [drawn_six(step) for step in range(1, 9)] != [
        drawn_six(step, seed=1) for step in range(1, 9)
    ]


def test_fewer_items_than_a_batch_takes_are_refused():
    with pytest.raises(ConfigError, match=r"train.batch_size = 7, but there are 6 tasks"):
        drawn("abcdef", step=1, size=7, seed=0, name="tasks")


def test_a_batch_has_the_rollouts_of_a_task_side_by_side(rollouts):
    source = rollouts(config={"group_size": 3})
    found = named(source.batch(1, level=ALL))
    ids, samples, _, greedy, _ = source.plan.calls[0]
    assert found == [(id_, sample) for id_ in ids for sample in range(3)]
    assert (len(ids), samples, greedy) == (2, 3, False)


def test_every_step_samples_with_a_seed_of_its_own(rollouts):
    source = rollouts()
    for step in (1, 2, 3):
        source.batch(step, level=ALL)
    seeds = [call[2] for call in source.plan.calls]
    assert len(set(seeds)) == 3
    other = rollouts(config={"seed": 1})
    other.batch(4, level=ALL)
    assert other.plan.calls[0][2] not in seeds


def test_what_is_stored_of_a_step_is_not_sampled_again(rollouts):
    first = rollouts()
    before = first.batch(1, level=ALL)
    again = rollouts(script=lambda _: "<think>other</think><answer> 1</answer>")
    assert again.batch(1, level=ALL) == before
    assert again.plan.engine.requests == []


def test_a_failed_episode_is_left_out_and_owed_again(rollouts):
    source = rollouts(failing(1), algorithm="reinforce++", config={"group_size": 2})
    assert [sample for _, sample in named(source.batch(1, level=ALL))] == [0, 0, 1]
    assert len(rollouts(algorithm="reinforce++", config={"group_size": 2}).batch(1, level=ALL)) == 4


def test_a_group_of_which_one_is_left_goes_where_rollouts_are_compared(rollouts):
    source = rollouts(failing(1))
    found = source.batch(1, level=ALL)
    assert named(found) == [(source.plan.calls[0][0][1], sample) for sample in (0, 1)]


def test_a_group_of_which_two_are_left_stays(rollouts):
    assert len(rollouts(failing(1), config={"group_size": 3}).batch(1, level=ALL)) == 5


def test_a_batch_of_failures_stops_the_run_and_names_one(rollouts):
    source = rollouts(lambda _: EngineError("server down"))
    message = r"step 3: none of 4 episodes .*, task .*, sample 0 ended with engine_error: server"
    with pytest.raises(EngineError, match=message):
        source.batch(3, level=ALL)


def test_groups_with_one_left_each_name_the_failure_not_what_went_well(rollouts):
    with pytest.raises(EngineError, match=r"none of 4 .* sample 1 ended with engine_error: server"):
        rollouts(failing(1, 3)).batch(1, level=ALL)


def test_episodes_without_a_turn_teach_nothing(rollouts):
    source = rollouts()
    objective = Objective(question="very " * 40, answers=("1",))
    long = [replace(TASKS[0], id=str(number), objectives=(objective,)) for number in range(2)]
    with pytest.raises(EngineError, match="ended with prompt_too_long"):
        replace(source, tasks=long).batch(1, level=ALL)


def test_other_temperatures_and_modes_than_the_runs_are_refused(rollouts):
    with pytest.raises(DataError, match=r"at temperature 1.0, this run has .* 0.5"):
        rollouts(temperature=0.5).batch(1, level=ALL)
    with pytest.raises(DataError, match=r"mode = 'reencode', this run has run.mode = 'carry'"):
        rollouts(mode="carry").batch(1, level=ALL)


def test_a_level_says_which_tasks_and_under_which_cap(rollouts):
    two = ledger_tasks(LedgerConfig(), num_objectives=2, count=2)
    source = rollouts(tasks=[*TASKS, *two])
    source.batch(1, level=Level(num_objectives=2, internal_state=30))
    source.validate(1, level=Level(num_objectives=2, internal_state=20))
    (batch, *_, cap), (held_out, *_, last_cap) = source.plan.calls
    assert (sorted(batch), cap) == ([task.id for task in two], 30)
    assert (held_out, last_cap) == ([task.id for task in TASKS[:2]], 20)


def test_held_out_tasks_are_played_once_and_greedily(rollouts):
    source = rollouts()
    assert named(source.validate(0, level=ALL)) == [(task.id, 0) for task in TASKS[:2]]
    assert source.plan.calls[0][1:] == (1, 0, True, None)
    assert rollouts(validation_tasks=()).validate(0, level=ALL) == []


def test_what_came_after_a_step_is_forgotten(rollouts, tmp_path):
    source = rollouts()
    for step in range(1, 5):
        source.batch(step, level=ALL)
        source.validate(step, level=ALL)
    source.forget_after(2)
    left = {
        name: sorted(path.stem[-1] for path in (tmp_path / name).iterdir())
        for name in ("rollouts", "validation")
    }
    assert left == {"rollouts": ["1", "2"], "validation": ["1", "2"]}


def test_demonstrations_are_drawn_by_step():
    config = train_config("sft", data=DemonstrationsConfig(transcripts=("x",)), batch_size=3)
    shown = groups(3)
    source = Demonstrations(trajectories=shown, config=config)
    seen = named([*source.batch(1, level=ALL), *source.batch(2, level=ALL)])
    assert sorted(seen) == sorted(named(shown))
    assert source.validate(1, level=ALL) == []


def test_only_sound_exact_trajectories_of_enough_reward_are_imitated():
    first, second, third, fourth = groups(2)
    turn = second.turns[0]
    inexact = replace(turn, completion=replace(turn.completion, exact=False))
    shown = [
        replace(first, stop_reason=StopReason.TOOL_ERROR),
        replace(second, turns=(inexact, *second.turns[1:])),
        replace(third, turns=()),
        replace(fourth, reward=0.5),
    ]
    assert worth_imitating(shown, least_reward=None) == [shown[3]]
    assert worth_imitating(shown, least_reward=0.5) == [shown[3]]
    with pytest.raises(DataError, match=r"none of 4 trajectories .* a reward of at least 0.6: low"):
        worth_imitating(shown, least_reward=0.6)
