"""The trials of benchmarks/experiments.py: ways to train the demo's policy, and what is asked of
them.

    TRIALS[name] -> config_of(trial, seed=0) -> RunConfig, trial.rewrite, trial.corrected
    EXPERIMENTS[name] -> its trials, and the figures that its tables and curves show
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rewrites import alone, plain, shuffled, stitched

import mem1
from mem1.config import RunConfig
from mem1.tasks.expert import Imperfections
from mem1.train.config import (
    CurriculumConfig,
    DemonstrationsConfig,
    OptimizerConfig,
    ShapingConfig,
)
from mem1.types import Trajectory

ROOT = Path(__file__).parent.parent
NUM_OBJECTIVES = (1, 2, 4, 8, 16)
"""What all policies are tested on."""

Change = Callable[[RunConfig], RunConfig]
Rewrite = Callable[[Sequence[Trajectory]], list[Trajectory]]
"""What becomes of a batch before it's learned from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A way to train, beside the others of its experiment."""

    changes: tuple[Change, ...] = ()
    """Of configs/learn.toml."""
    rewrite: Rewrite = list
    corrected: bool = True
    """Whether tokens are weighted by the trainer's probability over the sampler's, capped."""
    most_tokens: int | None = None
    """Training ends when about so many tokens were sampled; None: with its steps."""
    trains: bool = True
    """Whether it trains at all, or is only tested."""
    untrained: bool = False
    """Whether it begins with random weights, not with the demo's start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A question, and what is shown as its answer."""

    trials: tuple[str, ...]
    columns: tuple[str, ...] = ()
    """Of a table with a line for each trial."""
    sized: tuple[str, ...] = ()
    """Of a table with a line for each trial and N."""
    curves: tuple[str, ...] = ("em_per_objective",)
    """Metrics of steps, each against the tokens sampled so far."""


def config_of(trial: Trial, *, seed: int) -> RunConfig:
    overrides = [f"train.seed={seed}", f"sampling.seed={seed}"]
    config = mem1.load_config(ROOT / "configs/learn.toml", overrides=overrides)
    for change in trial.changes:
        config = change(config)
    return config


def settings(**changes: Any) -> Change:
    """Other settings of `[train]`."""

    def change(config: RunConfig) -> RunConfig:
        assert config.train is not None
        return replace(config, train=replace(config.train, **changes))

    return change


def asking(*num_objectives: int) -> Change:
    """Tasks of these N."""
    return lambda config: replace(
        config, tasks=replace(config.tasks, num_objectives=num_objectives)
    )


def carried(config: RunConfig) -> RunConfig:
    """Keys and values are kept from turn to turn, and evicted."""
    return replace(config, run=replace(config.run, mode="carry"))


def in_four_updates(config: RunConfig) -> RunConfig:
    """Four updates for each batch, so that probabilities move and ratios may be clipped."""
    return settings(mini_batch_size=32)(config)


def imitating(expert: Imperfections) -> Change:
    """As many episodes as PPO has, of an expert with these failings."""
    data = DemonstrationsConfig(expert=expert)
    return settings(algorithm="sft", critic=None, eval_every=None, data=data)


def imitating_on(config: RunConfig) -> RunConfig:
    """The same, with the failings that the demo's start learned from."""
    train = mem1.load_config(ROOT / "configs/learn_start.toml").train
    assert train is not None
    assert train.data.expert is not None
    return imitating(train.data.expert)(config)


MOST_TOKENS = 200_000
"""Sampled in a trial of the curriculum: more than half again what the demo samples."""


def until_spent(config: RunConfig) -> RunConfig:
    """More steps than the tokens pay for, of half the demo's batch: the longest tasks get some
    too. The learning rate rises over as many steps as in the demo."""
    train = config.train
    assert train is not None
    assert train.critic is not None
    steps = 160

    def stretched(optimizer: OptimizerConfig) -> OptimizerConfig:
        return replace(optimizer, warmup=optimizer.warmup * train.steps / steps)

    critic = replace(train.critic, optimizer=stretched(train.critic.optimizer))
    sizes = {"steps": steps, "batch_size": 64}
    return settings(optimizer=stretched(train.optimizer), critic=critic, **sizes)(config)


LEVELS = asking(2, 4, 8)
GROWING = settings(curriculum=CurriculumConfig(threshold=0.8, window=3))
SHRINKING = settings(
    curriculum=CurriculumConfig(threshold=0.8, window=3, internal_state=(40, 30, 20))
)
"""Two tokens an entry, the query and two tags: states of 2, 4, 8 and 16 objectives take 7, 11, 19
and 35 tokens. The last level leaves one to spare; every policy is tested under the whole 40."""
BRIEF = settings(shaping=ShapingConfig(length_penalty=5.0))
GROUPS = {"critic": None, "batch_size": 16, "group_size": 8}

TRIALS: dict[str, Trial] = {
    "untrained": Trial(trains=False, untrained=True),
    "the start": Trial(trains=False),
    "the start, carried": Trial(trains=False, changes=(carried,)),
    "PPO": Trial(),
    "GRPO": Trial(changes=(settings(algorithm="grpo", **GROUPS),)),
    "RLOO": Trial(changes=(settings(algorithm="rloo", **GROUPS),)),
    "REINFORCE++": Trial(changes=(settings(algorithm="reinforce++", critic=None),)),
    "GRPO, rewards shuffled": Trial(
        changes=(settings(algorithm="grpo", **GROUPS),), rewrite=shuffled
    ),
    "exact": Trial(changes=(in_four_updates,)),
    "stitched, the paper's mask": Trial(
        changes=(in_four_updates,), rewrite=stitched, corrected=False
    ),
    "stitched, plain causal": Trial(changes=(in_four_updates,), rewrite=plain, corrected=False),
    "exact, turns not chained": Trial(changes=(in_four_updates,), rewrite=alone),
    "more imitation, flawless": Trial(changes=(imitating(Imperfections()),)),
    "more imitation, as flawed": Trial(changes=(imitating_on,)),
    "encoded anew": Trial(),
    "carried": Trial(changes=(carried,)),
    "N = 2": Trial(changes=(until_spent,), most_tokens=MOST_TOKENS),
    "N = 2, 4, 8 mixed": Trial(changes=(until_spent, LEVELS), most_tokens=MOST_TOKENS),
    "N = 2, 4, 8 in turn": Trial(changes=(until_spent, LEVELS, GROWING), most_tokens=MOST_TOKENS),
    "in turn, caps 40, 30, 20": Trial(
        changes=(until_spent, LEVELS, SHRINKING), most_tokens=MOST_TOKENS
    ),
    "in turn, length penalty": Trial(
        changes=(until_spent, LEVELS, GROWING, BRIEF), most_tokens=MOST_TOKENS
    ),
}

EM = tuple(f"em_{size}" for size in NUM_OBJECTIVES)
GAP = ("logprob_gap", "logprob_gap_max", "clip_fraction")

EXPERIMENTS: dict[str, Experiment] = {
    "algorithms": Experiment(
        trials=(
            "untrained",
            "the start",
            "PPO",
            "GRPO",
            "RLOO",
            "REINFORCE++",
            "GRPO, rewards shuffled",
        ),
        columns=(*EM, "valid_turns_1", "survival_8", "reply_tokens", *GAP[:2]),
    ),
    "rows": Experiment(
        trials=(
            "the start",
            "exact",
            "stitched, the paper's mask",
            "stitched, plain causal",
            "exact, turns not chained",
        ),
        columns=(*EM, *GAP, "reply_tokens"),
        curves=("em_per_objective", "logprob_gap", "clip_fraction"),
    ),
    "imitation": Experiment(
        trials=("the start", "PPO", "more imitation, flawless", "more imitation, as flawed"),
        columns=(*EM, "turns_per_objective_8", "held_8", "survival_8", "reply_tokens"),
    ),
    "modes": Experiment(
        trials=("the start", "the start, carried", "encoded anew", "carried"),
        columns=(*EM, "reply_tokens", "row_tokens", "sampler_tokens", "collect_s", "learn_s"),
    ),
    "curriculum": Experiment(
        trials=(
            "the start",
            "N = 2",
            "N = 2, 4, 8 mixed",
            "N = 2, 4, 8 in turn",
            "in turn, caps 40, 30, 20",
            "in turn, length penalty",
        ),
        columns=(*EM, "reply_tokens", "num_steps", "last_level"),
        sized=("em", "turns_per_objective", "answer_rate", "state_tokens", "held", "survival"),
        curves=("em_per_objective", "num_objectives"),
    ),
    "memory": Experiment(
        trials=("the start", "PPO"),
        sized=(
            "em",
            "turns_per_objective",
            "held",
            "survival",
            "half_life",
            "corruption",
            "invention",
            "redundancy",
            "bits_held",
            "bits_needed",
        ),
        curves=(),
    ),
}
