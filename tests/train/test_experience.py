"""What is learned from: whole groups, weights that sum to one, chained estimates."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from ledger_runs import groups, tiny_policy, train_config, valued  # noqa: E402

from mem1.context import Full  # noqa: E402
from mem1.errors import BudgetError, ConfigError  # noqa: E402
from mem1.packing import sampled_tokens  # noqa: E402
from mem1.train.config import CriticConfig, LossConfig  # noqa: E402
from mem1.train.experience import gather, split  # noqa: E402


def halves(trajectories, **settings):
    tokens = sampled_tokens(trajectories)
    config = train_config(**{"mini_batch_size": 2} | settings)
    return tokens, split(trajectories, tokens=tokens, config=config)


def test_a_mini_batch_holds_whole_groups():
    trajectories = groups(4, size=3)
    tokens, parts = halves(trajectories)
    assert [part.task_ids for part in parts] == [("t0", "t1"), ("t2", "t3")]
    for number, part in enumerate(parts):
        owners = {int(owner) for row in part.rows for owner in tokens.trajectory[row.index]}
        assert owners == set(range(6 * number, 6 * number + 6))


@pytest.mark.parametrize("row_tokens", [70, 200, 5000])
def test_every_token_is_in_one_row_of_one_mini_batch_and_stands_for_itself(row_tokens):
    tokens, parts = halves(groups(4), row_tokens=row_tokens)
    rows = [row for part in parts for row in part.rows]
    index = np.concatenate([row.index for row in rows])
    assert sorted(index.tolist()) == list(range(tokens.num_tokens))
    for row in rows:
        assert (row.token_ids[row.targets] == tokens.token_ids[row.index]).all()


@pytest.mark.parametrize("by", ["token", "trajectory", "group"])
def test_the_weights_of_a_mini_batch_sum_to_one_and_are_zero_outside(by):
    _, parts = halves(groups(4), loss=LossConfig(weigh_by=by))
    for part in parts:
        inside = np.concatenate([row.index for row in part.rows])
        assert part.weights_T.sum() == pytest.approx(1.0)
        assert part.weights_T[inside].sum() == pytest.approx(1.0)
        assert (part.weights_T[inside] > 0).all()


@pytest.mark.parametrize("max_turns", [1, 6])
@pytest.mark.parametrize("row_tokens", [70, 5000])
def test_the_number_of_mini_batches_counts_tasks_not_turns_or_rows(max_turns, row_tokens):
    _, parts = halves(groups(4, size=3, max_turns=max_turns), row_tokens=row_tokens)
    assert len(parts) == 2


def test_trajectories_of_a_task_may_lie_apart():
    mixed = [t for pair in zip(groups(4)[::2], groups(4)[1::2], strict=True) for t in pair[::-1]]
    shuffled = mixed[::3] + mixed[1::3] + mixed[2::3]
    tokens, parts = halves(shuffled)
    for part in parts:
        owners = np.concatenate([tokens.trajectory[row.index] for row in part.rows])
        assert {shuffled[owner].task.id for owner in owners} == set(part.task_ids)


def test_a_turn_longer_than_a_row_is_named():
    with pytest.raises(BudgetError, match=r"turn 1 of task t0, sample 0, has .* a row takes 10"):
        halves(groups(1, policy=Full()), row_tokens=10)


def test_group_advantages_are_per_trajectory(tiny):
    config = train_config("grpo", group_size=4)
    trajectories = [
        replace(t, reward=reward) for t, reward in zip(groups(1, size=4), (0, 0, 3, 1), strict=True)
    ]
    found = gather(trajectories, policy=tiny_policy(tiny, config), config=config)
    rewards = np.array([0.0, 0.0, 3.0, 1.0])
    expected = (rewards - 1.0) / (rewards.std(ddof=1) + 1e-6)
    assert found.advantages_T == pytest.approx(expected[found.tokens.trajectory])
    assert (found.returns_T, found.values_T, found.ref_logprobs_T) == (None, None, None)


@pytest.mark.parametrize("kind", ["separate", "head"])
def test_chained_advantages_are_those_of_a_few_lines(tiny, kind):
    loss = LossConfig(gamma=0.9, lam=0.8, kl=0.1)
    config = train_config("ppo", critic=CriticConfig(kind=kind), loss=loss)
    policy = valued(tiny_policy(tiny, config))
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.mul_(1.2)  # away from the reference
    found = gather(groups(3), policy=policy, config=config)
    advantages, returns = [], []
    for owner, trajectory in enumerate(groups(3)):
        mine = found.tokens.trajectory == owner
        values = found.values_T[mine]
        rewards = -0.1 * (found.old_logprobs_T[mine] - found.ref_logprobs_T[mine])
        rewards[-1] += trajectory.reward
        later, chain = 0.0, []
        for place in reversed(range(len(values))):
            ahead = values[place + 1] if place + 1 < len(values) else 0.0
            later = rewards[place] + 0.9 * ahead - values[place] + 0.9 * 0.8 * later
            chain.append(later)
        advantages += chain[::-1]
        returns += [gain + value for gain, value in zip(chain[::-1], values, strict=True)]
    assert np.abs(found.values_T).max() > 0.1
    assert found.returns_T == pytest.approx(np.array(returns), abs=1e-6)
    spread = np.std(advantages, ddof=1) + 1e-6
    whitened = (np.array(advantages) - np.mean(advantages)) / spread
    assert found.advantages_T == pytest.approx(whitened, abs=1e-6)


def test_before_the_first_update_the_policy_is_its_reference(tiny):
    config = train_config("ppo")
    found = gather(groups(2), policy=tiny_policy(tiny, config), config=config)
    assert np.array_equal(found.old_logprobs_T, found.ref_logprobs_T)


@pytest.mark.parametrize(
    ("settings", "scored"),
    [
        ({}, False),
        ({"loss": LossConfig(kl=0.1, kl_in="loss")}, False),
        ({"mini_batch_size": 2}, True),
        ({"epochs": 2}, True),
    ],
)
def test_old_probabilities_are_computed_only_if_the_weights_move_before_they_are_used(
    tiny, settings, scored
):
    config = train_config("grpo", **settings)
    found = gather(groups(4), policy=tiny_policy(tiny, config), config=config)
    assert (found.old_logprobs_T is not None) == scored


@pytest.mark.parametrize("kind", ["separate", "head"])
def test_one_update_needs_values_alone_and_they_are_those_of_scores(tiny, kind):
    found = []
    for epochs in (1, 2):
        config = train_config(
            "ppo", critic=CriticConfig(kind=kind), loss=LossConfig(), epochs=epochs
        )
        policy = valued(tiny_policy(tiny, config))
        found.append(gather(groups(3), policy=policy, config=config))
    once, twice = found
    assert once.old_logprobs_T is None
    assert twice.old_logprobs_T is not None
    assert np.array_equal(once.values_T, twice.values_T)
    assert np.abs(once.values_T).max() > 0.1


def test_scores_do_not_depend_on_the_rows(tiny):
    found = []
    for row_tokens in (80, 5000):
        config = train_config("ppo", row_tokens=row_tokens)
        policy = valued(tiny_policy(tiny, config))
        found.append(gather(groups(3), policy=policy, config=config))
    assert len(found[0].mini_batches[0].rows) > len(found[1].mini_batches[0].rows) == 1
    for name in ("old_logprobs_T", "values_T", "returns_T", "advantages_T"):
        assert getattr(found[0], name) == pytest.approx(getattr(found[1], name), abs=1e-5)


def test_a_group_of_one_is_named(tiny):
    config = train_config("grpo")
    with pytest.raises(ConfigError, match="group t1 has one trajectory, and GRPO compares"):
        gather(groups(2)[:3], policy=tiny_policy(tiny, config), config=config)
