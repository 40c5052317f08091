"""Updates: the rows of a mini-batch change nothing, and what isn't finite isn't applied."""

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from ledger_runs import (  # noqa: E402
    groups,
    tiny_policy,
    train_config,
    unchanged,
    valued,
    weights,
)

from mem1.errors import TrainingError  # noqa: E402
from mem1.train.config import (  # noqa: E402
    CriticConfig,
    DemonstrationsConfig,
    LoraConfig,
    LossConfig,
    OptimizerConfig,
)
from mem1.train.experience import gather  # noqa: E402
from mem1.train.update import Learner, imitate, learn  # noqa: E402

STILL = OptimizerConfig(lr=0.0, grad_clip=math.inf)
"""Shows gradients without moving anything."""
FULL_LOSS = LossConfig(kl=0.1, kl_in="loss", kl_estimator="k3", entropy=0.01)


def learner(tiny, config) -> Learner:
    return Learner.create(tiny_policy(tiny, config), config=config)


def updated(learner: Learner, trajectories) -> dict[str, float]:
    experience = gather(trajectories, policy=learner.policy, config=learner.config)
    return learn(learner, experience, name="step 7")


def gradients(tiny, config, trajectories, monkeypatch) -> dict[str, np.ndarray]:
    """Those of the one mini-batch, as the optimizer gets them."""
    made, found = learner(tiny, config), {}
    if config.critic:
        valued(made.policy)
    parts = {"policy": made.policy.model, "critic": made.policy.critic}
    for optimizer in made.optimizers.values():
        monkeypatch.setattr(optimizer, "step", lambda: found.update(_read(parts)))
    found["metrics"] = updated(made, trajectories)
    return found


def _read(parts) -> dict[str, np.ndarray]:
    return {
        f"{part}.{name}": parameter.grad.numpy().copy()
        for part, module in parts.items()
        if module is not None
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("by", ["token", "trajectory", "group"])
@pytest.mark.parametrize("kind", [None, "separate", "head"])
def test_one_branch_a_row_gives_the_gradient_of_one_big_row(tiny, monkeypatch, kind, by):
    found = []
    for few in ({"row_tokens": 80}, {"microbatch": "branch"}, {}):
        config = train_config(
            "ppo" if kind else "grpo",
            critic=CriticConfig(kind=kind, optimizer=STILL) if kind else None,
            optimizer=STILL,
            **({"row_tokens": 5000} | few),
            loss=replace(FULL_LOSS, weigh_by=by),
        )
        found.append(gradients(tiny, config, groups(3), monkeypatch))
    *several, big = found
    assert big["metrics"]["num_rows"] == 1
    for small in several:
        assert small["metrics"]["num_rows"] > 3
        assert set(small) == set(big)
        for name in set(big) - {"metrics"}:
            assert np.abs(small[name] - big[name]).max() < 1e-6, name
            assert np.linalg.norm(small[name] - big[name]) < 1e-4 * np.linalg.norm(big[name]), name
        for name in ("loss", "entropy", "grad_norm", "ratio", "kl"):
            assert small["metrics"][name] == pytest.approx(big["metrics"][name], abs=1e-5), name


@pytest.mark.parametrize(("max_turns", "row_tokens"), [(1, 5000), (6, 5000), (6, 80)])
def test_the_number_of_optimizer_steps_counts_tasks_and_epochs(tiny, max_turns, row_tokens):
    config = train_config("grpo", mini_batch_size=2, epochs=3, row_tokens=row_tokens)
    made = learner(tiny, config)
    updated(made, groups(4, max_turns=max_turns))
    assert made.optimizer.state().info["steps"] == 6


def test_the_first_update_has_a_ratio_of_one_and_no_divergence(tiny):
    config = train_config("ppo", loss=FULL_LOSS)
    metrics = updated(learner(tiny, config), groups(3))
    assert (metrics["ratio"], metrics["ratio_max"]) == pytest.approx((1.0, 1.0), abs=1e-4)
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["clip_fraction"] == 0.0


def test_later_updates_are_compared_with_the_weights_before_the_first(tiny):
    big = OptimizerConfig(lr=0.03)
    config = train_config("grpo", mini_batch_size=2, optimizer=big)
    metrics = updated(learner(tiny, config), groups(4))
    assert metrics["ratio_max"] > 1.2
    assert metrics["clip_fraction"] > 0


def test_an_advantage_raises_the_probability_of_what_earned_it(tiny):
    config = train_config("grpo", optimizer=OptimizerConfig(lr=1e-3))
    made, trajectories = learner(tiny, config), groups(2)
    experience = gather(trajectories, policy=made.policy, config=config)
    found = []
    for _ in range(2):
        # Two epochs make it score them.
        scored = gather(trajectories, policy=made.policy, config=replace(config, epochs=2))
        found.append(scored.old_logprobs_T)
        learn(made, experience, name="step 1")
    assert ((found[1] - found[0]) * experience.advantages_T).mean() > 1e-3


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_equal_rewards_move_weights_by_their_decay_alone(tiny, algorithm):
    equal = [replace(t, reward=0.7) for t in groups(3)]
    made = learner(tiny, train_config(algorithm, optimizer=OptimizerConfig(weight_decay=0.0)))
    before = weights(made.policy)
    metrics = updated(made, equal)
    assert (metrics["loss"], metrics["grad_norm"]) == (0.0, 0.0)
    assert unchanged(made.policy, before)
    decay = OptimizerConfig(lr=0.1, weight_decay=0.5)
    made = learner(tiny, train_config(algorithm, optimizer=decay))
    updated(made, equal)
    for name, tensor in weights(made.policy).items():
        assert torch.allclose(tensor, before[name] * (1 - 0.1 * 0.5)), name


def pulled(tiny, name: str, **loss) -> list[float]:
    """A metric over updates that rewards say nothing about, away from the reference."""
    config = train_config(
        "grpo", loss=LossConfig(kl_in="loss", **loss), optimizer=OptimizerConfig(lr=3e-3)
    )
    made = learner(tiny, config)
    with torch.no_grad():
        made.policy.model.get_input_embeddings().weight[:500] *= 3
    equal = [replace(t, reward=0.7) for t in groups(3)]
    return [updated(made, equal)[name] for _ in range(4)]


def test_the_entropy_bonus_raises_entropy(tiny):
    found = pulled(tiny, "entropy", entropy=1.0)
    assert found == sorted(found)
    assert found[-1] > found[0]


def test_the_divergence_in_the_loss_pulls_towards_the_reference(tiny):
    found = pulled(tiny, "kl", kl=1.0, kl_estimator="k3")
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.9 * found[0]


def test_equal_rewards_are_no_trouble_for_whitening(tiny):
    equal = [replace(t, reward=0.7) for t in groups(3, max_turns=1)]
    metrics = updated(learner(tiny, train_config("reinforce++")), equal)
    assert metrics["grad_norm"] == 0.0


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_a_loss_that_is_no_number_updates_nothing_and_names_step_and_tasks(tiny, algorithm):
    made = learner(tiny, train_config(algorithm))
    broken = [replace(t, reward=math.nan) if t.task.id == "t2" else t for t in groups(3)]
    before = weights(made.policy)
    with pytest.raises(TrainingError, match="step 7, tasks t0 and 2 more: the loss is nan"):
        updated(made, broken)
    assert unchanged(made.policy, before)
    assert all(p.grad is None for p in made.policy.policy_parameters())
    assert updated(made, groups(3))["grad_norm"] > 0


@pytest.mark.parametrize("part", ["model", "critic"])
def test_a_gradient_that_is_no_number_updates_neither_policy_nor_critic(tiny, part):
    made = learner(tiny, train_config("ppo"))
    before = weights(made.policy)
    weight = next(iter(getattr(made.policy, part).model.layers.parameters()))
    weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(TrainingError, match="step 7, tasks t0 and 2 more: the gradient is nan"):
        updated(made, groups(3))
    assert unchanged(made.policy, before)
    assert made.optimizer.state().info["steps"] == 0


@pytest.mark.parametrize("kind", ["separate", "head"])
def test_a_critic_learns_a_return_that_never_changes(tiny, kind):
    fast = OptimizerConfig(lr=0.03, weight_decay=0.0)
    critic = CriticConfig(kind=kind, optimizer=fast, value_clip=math.inf, coef=1.0)
    slow = replace(fast, lr=fast.lr if kind == "head" else 0.0)
    made = learner(tiny, train_config("ppo", critic=critic, optimizer=slow, loss=LossConfig()))
    trajectories = [replace(t, reward=1.3) for t in groups(3)]
    for _ in range(40):
        metrics = updated(made, trajectories)
    assert metrics["value"] == pytest.approx(1.3, abs=0.1)
    assert metrics["value_loss"] < 0.02


def test_only_adapters_move_with_lora(tiny):
    config = train_config("grpo", lora=LoraConfig(rank=4), optimizer=OptimizerConfig(lr=0.01))
    made = learner(tiny, config)
    before = {name: p.detach().clone() for name, p in made.policy.model.named_parameters()}
    for _ in range(2):
        updated(made, groups(2))
    moved = {
        name for name, p in made.policy.model.named_parameters() if not torch.equal(p, before[name])
    }
    assert moved == {name for name in before if "lora_" in name}


def test_imitation_lowers_the_loss_without_recorded_probabilities(tiny):
    fast = OptimizerConfig(lr=0.01)
    config = train_config("sft", data=DemonstrationsConfig(transcripts=("x",)), optimizer=fast)
    made = learner(tiny, config)
    shown = groups(3)
    losses = [imitate(made, shown, name="step 1")["loss"] for _ in range(10)]
    assert losses[-1] < 0.8 * losses[0]
    twice = learner(tiny, replace(config, epochs=2))
    assert imitate(twice, shown, name="step 1")["loss"] == pytest.approx(np.mean(losses[:2]))


def test_the_loss_of_imitation_is_the_mean_negative_log_probability(tiny):
    config = train_config("ppo")
    made = learner(tiny, config)
    found = gather(groups(3), policy=made.policy, config=config)
    assert imitate(made, groups(3), name="step 1")["loss"] == pytest.approx(
        -found.old_logprobs_T.mean(), rel=1e-5
    )


def test_sizes_before_and_after_packing_are_told(tiny):
    trajectories = groups(3)
    metrics = updated(learner(tiny, train_config("grpo", row_tokens=5000)), trajectories)
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    whole = sum(len(turn.prompt_ids) + turn.completion.num_tokens for turn in turns)
    assert metrics["unpacked_tokens"] == whole > metrics["packed_tokens"]
