"""[train]: what doesn't fit together is refused when the config is made, and says what to set."""

import pytest

from mem1.errors import ConfigError
from mem1.tasks.expert import Imperfections
from mem1.train.config import (
    CriticConfig,
    CurriculumConfig,
    DemonstrationsConfig,
    LossConfig,
    ShapingConfig,
    TrainConfig,
)

SOME = DemonstrationsConfig(trajectories=("runs/rollout",))
BOTH = DemonstrationsConfig(trajectories=("runs/rollout",), expert=Imperfections())

STEPS = CurriculumConfig(threshold=0.8)
SHORTER = ShapingConfig(length_penalty=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "grpo"}, "train.group_size = 1: grpo compares the rollouts of a task"),
        ({"algorithm": "rloo"}, "train.group_size = 1: rloo compares"),
        ({"algorithm": "ppo"}, r"train.critic is missing: ppo needs one, add  \[train.critic\]"),
        ({"algorithm": "grpo", "group_size": 2, "critic": CriticConfig()}, "grpo uses none"),
        (
            {"algorithm": "grpo", "group_size": 2, "loss": LossConfig(kl=0.1)},
            "set train.loss.kl_in = 'loss'",
        ),
        ({"algorithm": "sft"}, "train.data is empty"),
        ({"algorithm": "sft", "data": BOTH}, "train.data.expert: give files or the expert"),
        ({"algorithm": "sft", "data": SOME, "eval_every": 5}, "train.eval_every: sft"),
        ({"algorithm": "sft", "data": SOME, "loss": LossConfig(kl=0.1)}, "train.loss.kl: sft"),
        ({"algorithm": "sft", "data": SOME, "curriculum": STEPS}, "train.curriculum: sft earns"),
        ({"algorithm": "sft", "data": SOME, "shaping": SHORTER}, "train.shaping: sft learns"),
        ({"batch_size": 6, "mini_batch_size": 4}, "mini_batch_size = 4 does not divide"),
        ({"mini_batch_size": 0}, "train.mini_batch_size = 0: give at least 1"),
        ({"mini_batch_size": -2}, "train.mini_batch_size = -2: give at least 1"),
        ({"eval_every": 0}, "train.eval_every = 0: give at least 1"),
        ({"steps": 0}, "train.steps = 0: give at least 1"),
        ({"save_every": 0}, "train.save_every = 0: give at least 1"),
        ({"row_tokens": 0}, "train.row_tokens = 0: give at least 1"),
        ({"epochs": 0}, "train.epochs = 0: give at least 1"),
        ({"keep_last": 0}, "train.keep_last = 0: give at least 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**{"algorithm": "reinforce++", "steps": 1} | settings)


STEPS = CurriculumConfig(threshold=0.8)
SHORTER = ShapingConfig(length_penalty=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_layers": 0}, "train.critic.num_layers = 0: give at least 1"),
        ({"num_layers": 1, "kind": "head"}, "train.critic.num_layers: a head has the policy's"),
    ],
)
def test_a_critic_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        CriticConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"algorithm": "grpo", "group_size": 2, "loss": LossConfig(kl=0.1, kl_in="loss")},
        {"algorithm": "ppo", "critic": CriticConfig(kind="head")},
        {"algorithm": "reinforce++", "loss": LossConfig(kl=0.1)},
        {"algorithm": "sft", "data": SOME},
    ],
)
def test_what_fits_together_is_taken(settings):
    assert TrainConfig(steps=1, **settings).steps == 1
