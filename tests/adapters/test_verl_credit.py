"""What each token is worth: the numbers of our own trainer, whatever the order of the rows."""

import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from verl_runs import own_numbers, rows_of, scored, tasks_of, told_of  # noqa: E402

from mem1.adapters.verl.credit import credit  # noqa: E402
from mem1.errors import ConfigError  # noqa: E402

ALGORITHMS = ["ppo", "grpo", "rloo", "reinforce++"]


@pytest.mark.parametrize("weigh_by", ["token", "trajectory", "group"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_advantages_returns_and_weights_are_those_of_our_trainer(algorithm, weigh_by):
    trajectories, config = tasks_of(algorithm, weigh_by=weigh_by)
    told = scored(trajectories)
    rows = rows_of(trajectories, told=told, config=config)
    found = credit(rows, config=config)
    own = own_numbers(trajectories, told=told, config=config)
    for name, expected in own.items():
        assert np.allclose(told_of(found, name), expected, rtol=0, atol=1e-12), name


def test_the_order_of_the_rows_changes_nothing():
    trajectories, config = tasks_of("ppo")
    rows = rows_of(trajectories, told=scored(trajectories), config=config)
    mixed = random.Random(0).sample(range(len(rows)), len(rows))
    found = credit([rows[n] for n in mixed], config=config)
    expected = credit(rows, config=config)
    for place, n in enumerate(mixed):
        assert found[place].advantages.tolist() == expected[n].advantages.tolist()
        assert found[place].weights.tolist() == expected[n].weights.tolist()


def test_advantages_are_chained_over_the_contexts_of_a_trajectory():
    trajectories, config = tasks_of("ppo")
    told = scored(trajectories)
    found = credit(rows_of(trajectories, told=told, config=config), config=config)
    # gamma = lambda = 1 without divergence: every token's return is its trajectory's reward.
    rewards = [t.reward for t in trajectories for _ in t.turns]
    for reward, row in zip(rewards, found, strict=True):
        assert row.returns is not None
        assert np.allclose(row.returns, reward)


def test_rollouts_cannot_be_compared_with_nobody():
    trajectories, config = tasks_of("grpo")
    alone = [t for t in trajectories if t.task.id != "t0" or t.sample == 0]
    with pytest.raises(ConfigError, match="group t0 has one trajectory"):
        credit(rows_of(alone, told=scored(alone), config=config), config=config)
