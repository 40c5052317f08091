"""A step of verl's own trainer in our mode, through Ray and its queue: the rows that its workers
store, the numbers they get, and the optimizer steps they are cut into."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("verl")
import torch
import transfer_queue as tq
import verl_cluster as vc
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.skip import SkipManager
from verl_runs import Told, own_numbers, scored, tasks_of

from mem1.adapters.verl.layout import RowKey
from mem1.adapters.verl.losses import WEIGHTS, actor_loss, critic_loss
from mem1.errors import TrainingError
from mem1.packing import SampledTokens, sampled_tokens
from mem1.train import losses

pytestmark = pytest.mark.timeout(400)
ALGORITHMS = ["ppo", "grpo", "rloo", "reinforce++"]
COLUMNS = {"advantages": "advantages", "returns": "returns", "weights": WEIGHTS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("verl")
    with vc.cluster(vc.verl_config(vc.learn(), found)):
        yield found


@pytest.fixture
def empty_queue(folder):
    yield folder
    keys = list(tq.kv_list("train").get("train", {}))
    if keys:
        tq.kv_clear(keys=keys, partition_id="train")


def nested(data, name: str) -> list[np.ndarray]:
    return [row.double().numpy() for row in data[name].unbind()]


def own(batch) -> list[int]:
    """Places of the rows that aren't padding."""
    return [n for n, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]


def pieces(trajectories, values: np.ndarray) -> dict[str, np.ndarray]:
    """An array over all sampled tokens, by the keys of verl's rows."""
    names = [
        (f"{t.task.id}_{t.sample}_{n}", turn.completion.num_tokens)
        for t in trajectories
        for n, turn in enumerate(t.turns)
    ]
    ends = np.cumsum([size for _, size in names])[:-1]
    return dict(zip([name for name, _ in names], np.split(values, ends), strict=True))


def scored_batch(trainer, batch, trajectories, told: Told):
    """The batch, balanced, with numbers in the place of those that the engines compute."""
    batch = trainer._balance_batch(batch, {})
    names = {"old_log_probs": "old", "ref_log_prob": "ref", "values": "values"}
    padding = {key: np.zeros(1) for key in batch.keys}
    columns = {
        column: [
            torch.from_numpy((padding | pieces(trajectories, told[name]))[key]).float()
            for key in batch.keys
        ]
        for column, name in names.items()
    }
    return vc.write(batch, **columns)


def learned(folder, algorithm: str, *, weigh_by: str = "trajectory"):
    """What the trainer makes of some trajectories: its batch, and our own numbers."""
    trajectories, config = tasks_of(algorithm, weigh_by=weigh_by, kl=0.01)
    told = scored(trajectories)
    trainer = vc.make_trainer(vc.verl_config(replace(vc.learn(), train=config), folder))
    batch = scored_batch(trainer, vc.batch_of(trajectories), trajectories, told)
    batch = trainer._compute_advantage(batch, {})
    return trainer, batch, trajectories, told, config


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_advantages_returns_and_weights_are_those_of_our_own_trainer(empty_queue, algorithm):
    _, batch, trajectories, told, config = learned(empty_queue, algorithm)
    # These are what verl's workers are given of each row.
    assert {*COLUMNS.values(), "input_ids", "rollout_log_probs"} <= set(batch.fields)
    data = vc.read(batch, *COLUMNS.values())
    for name, expected in own_numbers(trajectories, told=told, config=config).items():
        found = nested(data, COLUMNS[name])
        for key, values in pieces(trajectories, expected).items():
            place = batch.keys.index(key)
            assert np.allclose(found[place], values, rtol=0, atol=1e-6), (name, key)
    padding = set(range(len(batch.keys))) - set(own(batch))
    for place in padding:
        assert [float(data[column].unbind()[place].abs().sum()) for column in COLUMNS.values()] == [
            0.0
        ] * 3


def test_a_step_of_verls_workers_holds_whole_groups(empty_queue):
    trainer, batch, trajectories, _, _ = learned(empty_queue, "grpo")
    trainer._update_actor(batch, {})
    (update,) = trainer.actor_rollout_wg.updates
    steps = [{key for rank in step for key in rank if not key.startswith("pad")} for step in update]
    assert [len({RowKey.read(key).group for key in step}) for step in steps] == [2, 2]
    assert sorted(key for step in steps for key in step) == sorted(
        pieces(trajectories, np.zeros(sampled_tokens(trajectories).num_tokens))
    )
    assert not {RowKey.read(key).group for key in steps[0]} & {
        RowKey.read(key).group for key in steps[1]
    }


def micro_batches(trainer, batch):
    """The rows of each optimizer step as the engines get them: by rank, two at a time."""
    trainer._update_actor(batch, {})
    for step in trainer.actor_rollout_wg.updates[-1]:
        yield [
            (rank, keys[begin : begin + 2])
            for rank, keys in enumerate(step)
            for begin in range(0, len(keys), 2)
        ]


def handed(batch, keys: list[str], outputs: dict[str, dict[str, np.ndarray]]):
    """A micro-batch as verl's engine hands it to a loss, and the outputs of its model."""
    data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id)
    tu.assign_non_tensor(data, dp_size=2)
    lengths = [len(row) for row in data["prompts"].unbind()]
    told = {
        name: torch.nested.as_nested_tensor(
            [
                # The engine's output at a place is about the token after it.
                torch.cat([torch.zeros(length - 1), values_of(values, key), torch.zeros(1)])
                for key, length in zip(keys, lengths, strict=True)
            ],
            layout=torch.jagged,
        )
        for name, values in outputs.items()
    }
    return TensorDict(told, batch_size=len(keys)), data


def values_of(values: dict[str, np.ndarray], key: str) -> torch.Tensor:
    return torch.from_numpy(values.get(key, np.ones(1)))


def own_losses(tokens: SampledTokens, told: Told, now: Told, config, numbers) -> np.ndarray:
    """The loss of every token, by the formulas of our trainer."""
    old, new = torch.from_numpy(told["old"]), torch.from_numpy(now["old"])
    surrogate = losses.policy_loss(
        new,
        old_logprobs=old,
        advantages=torch.from_numpy(numbers["advantages"]),
        clip_low=config.loss.clip_low,
        clip_high=config.loss.clip_high,
    )
    sampled = torch.from_numpy(tokens.sampled_logprobs)
    cap = config.loss.importance_cap
    importance = losses.importance_weights(old, sampled_logprobs=sampled, cap=cap)
    total = surrogate.loss * importance - config.loss.entropy * torch.from_numpy(now["values"])
    if config.loss.kl_in == "loss":
        reference = torch.from_numpy(told["ref"])
        estimator = config.loss.kl_estimator
        total += config.loss.kl * losses.kl_divergence(
            new, ref_logprobs=reference, estimator=estimator
        )
    return total.numpy()


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_micro_batches_of_all_ranks_add_up_to_our_loss_of_the_step(empty_queue, algorithm):
    trainer, batch, trajectories, told, config = learned(empty_queue, algorithm)
    tokens, now = sampled_tokens(trajectories), scored(trajectories, seed=1)
    numbers = own_numbers(trajectories, told=told, config=config)
    expected = pieces(
        trajectories, numbers["weights"] * own_losses(tokens, told, now, config, numbers)
    )
    outputs = {
        "log_probs": pieces(trajectories, now["old"]),
        "entropy": pieces(trajectories, now["values"]),
    }
    for step in micro_batches(trainer, batch):
        found = [
            float(actor_loss(*handed(batch, keys, outputs), settings=config.loss)[0])
            for _, keys in step
        ]
        keys = [key for _, some in step for key in some if key in expected]
        # The gradient that verl applies is the mean over its two ranks.
        assert sum(found) / 2 == pytest.approx(sum(expected[k].sum() for k in keys), abs=1e-6)


def test_the_critic_learns_from_every_trajectory_as_much(empty_queue):
    trainer, batch, trajectories, told, config = learned(empty_queue, "ppo")
    now = scored(trajectories, seed=1)["values"]
    numbers = own_numbers(trajectories, told=told, config=config)
    missed = losses.value_loss(
        torch.from_numpy(now),
        old_values=torch.from_numpy(told["values"]),
        returns=torch.from_numpy(numbers["returns"]),
        clip=0.5,
    ).numpy()
    expected = pieces(trajectories, numbers["weights"] * missed)
    outputs = {"values": pieces(trajectories, now)}
    for step in micro_batches(trainer, batch):
        found = [float(critic_loss(*handed(batch, k, outputs), clip=0.5)[0]) for _, k in step]
        keys = [key for _, some in step for key in some if key in expected]
        assert sum(found) / 2 == pytest.approx(sum(expected[k].sum() for k in keys), abs=1e-6)


def test_a_rollout_left_alone_is_not_compared_and_leaves_the_queue(empty_queue):
    trajectories, config = tasks_of("grpo")
    trainer = vc.make_trainer(vc.verl_config(replace(vc.learn(), train=config), empty_queue))
    left = [t for t in trajectories if t.task.id != "t0" or t.sample == 0]
    batch = trainer._balance_batch(vc.batch_of(left), {})
    groups = {RowKey.read(batch.keys[n]).group for n in own(batch)}
    assert groups == {"t1", "t2", "t3"}
    assert not [key for key in tq.kv_list("train")["train"] if key.startswith("t0_")]


def test_a_batch_with_nothing_to_compare_is_said(empty_queue):
    trajectories, config = tasks_of("grpo")
    trainer = vc.make_trainer(vc.verl_config(replace(vc.learn(), train=config), empty_queue))
    with pytest.raises(TrainingError, match="step 1: no task has 2 rollouts"):
        trainer._balance_batch(vc.batch_of([t for t in trajectories if t.sample == 0]), {})


def test_a_step_from_tasks_to_updates_with_episodes_in_verls_workers(empty_queue):
    composed = vc.verl_config(vc.learn(), empty_queue)
    trainer = vc.make_trainer(composed)
    trainer.agent_loop_manager = vc.make_manager(composed)
    SkipManager.init(composed)
    trainer.prepare_step()
    metrics: dict[str, float] = {}
    timing = {"step": 1.0}
    batch = trainer._step_once(metrics, timing, 4)
    trainer._compute_metrics(batch, metrics, timing, global_steps=1, epoch=0)
    told = vc.read(batch, "old_log_probs", "rollout_log_probs", "response_mask", "returns")
    for n in own(batch):
        # Of one forward pass over the row alone, against what the server said as it sampled.
        gaps = (told["old_log_probs"].unbind()[n] - told["rollout_log_probs"].unbind()[n]).abs()
        assert float(gaps.max()) <= 5e-5
        assert told["response_mask"].unbind()[n].all()
    assert metrics["training/trajectories"] == 4
    assert metrics["training/optimizer_steps"] == 2
    assert metrics["training/rows"] == len(own(batch))
    assert metrics["critic/score/max"] <= 2.0
    assert len(trainer.actor_rollout_wg.updates) == 2  # the critic's and the policy's
    assert len(trainer.actor_rollout_wg.updates[1]) == 2
    found = trainer._validate()
    assert 0 <= found["val-core/ledger/lookup/reward/mean@1"] <= 2.0
    assert found["val-aux/num_turns/max"] <= 4
