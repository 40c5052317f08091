"""`[train]`: how a policy is trained. Standard library only; the values are the paper's where it
gives them (MEM1, arXiv 2506.15841), else PPO's usual ones."""

from dataclasses import dataclass, field
from typing import Literal

from mem1.errors import ConfigError
from mem1.tasks.expert import Imperfections

Algorithm = Literal["sft", "ppo", "grpo", "rloo", "reinforce++"]
GROUPED = frozenset({"grpo", "rloo"})
"""Algorithms that compare the rollouts of a task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW; the learning rate rises, stays and, if asked to, falls again, in straight lines."""

    lr: float = 1e-6
    warmup: float = 0.0
    """Share of all steps over which the learning rate rises from 0."""
    cooldown: float = 0.0
    """Share of all steps, the last ones, over which it falls to 0."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    """Largest norm of the gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticConfig:
    """`[train.critic]`: predicts the return at each sampled token; PPO needs one."""

    kind: Literal["separate", "head"] = "separate"
    """A model of its own, begun as a copy of the policy; or one layer on the policy's own."""
    num_layers: int | None = None
    """Of a separate critic: how many layers of the policy it begins with, the first ones; None: all
    of them."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-5))
    value_clip: float = 0.5
    """How far a value may move from the old one within an update."""
    coef: float = 0.5
    """Weight of its loss where the policy shares its layers (`kind = "head"`)."""

    def __post_init__(self) -> None:
        if self.num_layers is not None and self.num_layers < 1:
            raise ConfigError(f"train.critic.num_layers = {self.num_layers}: give at least 1")
        if self.num_layers is not None and self.kind == "head":
            raise ConfigError(
                "train.critic.num_layers: a head has the policy's layers, remove it or set "
                "train.critic.kind = 'separate'"
            )

    def layers_of(self, num_layers: int, /) -> int:
        """How many layers of a policy that has `num_layers` the critic takes. Raises: ConfigError
        if it wants more."""
        if self.num_layers is not None and self.num_layers > num_layers:
            raise ConfigError(
                f"train.critic.num_layers = {self.num_layers}: the policy has {num_layers}"
            )
        return self.num_layers or num_layers


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """`[train.loss]`: what is minimised."""

    gamma: float = 1.0
    lam: float = 1.0
    clip_low: float = 0.2
    clip_high: float = 0.2
    """The probability ratio is kept within 1 - clip_low and 1 + clip_high."""
    entropy: float = 0.0
    """Weight of the entropy bonus."""
    kl: float = 0.0
    """Weight of the divergence from the model that training began with; 0: it isn't computed."""
    kl_in: Literal["reward", "loss"] = "reward"
    kl_estimator: Literal["k1", "k3"] = "k1"
    weigh_by: Literal["token", "trajectory", "group"] = "token"
    """What counts equally."""
    scale_by_deviation: bool = True
    """GRPO divides by the group's standard deviation; false: Dr. GRPO."""
    importance_cap: float = 2.0
    """Cap of the weights that correct for a sampler of other precision or kernels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """`[train.lora]`: train low-rank adapters only (peft); exported merged."""

    rank: int = 16
    alpha: int = 32
    targets: tuple[str, ...] = ()
    """Names of the layers; empty: all linear layers but the head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemonstrationsConfig:
    """`[train.data]`: what supervised training imitates."""

    trajectories: tuple[str, ...] = ()
    """Trajectory files or run folders: the sampled tokens themselves, of episodes under the run's
    context policy."""
    transcripts: tuple[str, ...] = ()
    """JSONL files of `{"messages": [{"role", "content"}, …]}`."""
    least_reward: float | None = None
    """Only trajectories with at least this reward; None: all."""
    expert: Imperfections | None = None
    """`[train.data.expert]`: instead of files, the ledger's own expert with these failings, on
    `[tasks]`, anew at each step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurriculumConfig:
    """`[train.curriculum]`: from what is easy to what is hard, level by level.

    A level is a number of objectives, of `tasks.num_objectives`, and a cap on the internal state;
    where only one of either is given, it's that of all levels.
    """

    threshold: float
    """Mean exact match per objective, over the training episodes of `window` steps, with which a
    run moves on; 0: after `window` steps, whatever they earned."""
    window: int = 5
    """Steps of a level that are looked at, the last ones."""
    internal_state: tuple[int, ...] = ()
    """Caps in tokens, in the order of the levels, at most `budget.internal_state`; empty: that."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"train.curriculum.threshold = {self.threshold}: give 0 to 1")
        if self.window < 1:
            raise ConfigError(f"train.curriculum.window = {self.window}: give at least 1")
        if min(self.internal_state, default=1) < 1:
            raise ConfigError(
                f"train.curriculum.internal_state = {list(self.internal_state)}: a cap is at "
                "least 1 token"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapingConfig:
    """`[train.shaping]`: what is learned from beside the task's own reward."""

    length_penalty: float = 0.0
    """Taken off for every 1,000 sampled tokens."""
    process_reward: float = 0.0
    """Given for a last internal state that holds every fact the answers hang on; else a share."""

    def __post_init__(self) -> None:
        for name in ("length_penalty", "process_reward"):
            if (value := getattr(self, name)) < 0:
                raise ConfigError(f"train.shaping.{name} = {value}: give 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedConfig:
    """`[train.distributed]`: of several processes (torchrun); one has no use for it."""

    cpu_offload: bool = False
    """Keep weights, gradients and optimizer in the machine's memory, and on a GPU only what is
    being computed with and what episodes are sampled from: slow, for what doesn't fit otherwise."""
    timeout_s: float = 3600.0
    """How long a process waits for another that is alive but doesn't come: longer than the episodes
    of a step may take. One that died is noticed at once."""

    def __post_init__(self) -> None:
        if self.timeout_s <= 0:
            raise ConfigError(f"train.distributed.timeout_s = {self.timeout_s}: give more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything about training but the agent and its world."""

    algorithm: Algorithm
    steps: int
    """Rounds of collecting a batch and learning from it."""
    batch_size: int = 16
    """Tasks in a batch; for sft, trajectories."""
    mini_batch_size: int | None = None
    """Tasks in one optimizer update; None: the whole batch."""
    epochs: int = 1
    """Times each batch is learned from."""
    group_size: int = 1
    """Rollouts of each task."""
    row_tokens: int = 16_384
    """Most tokens of a row; memory grows with it, results don't change."""
    microbatch: Literal["row", "branch"] = "row"
    """What goes through the model at once: a whole row; or, where memory is short, one branch, that
    is, one context with its reply. What branches share is then computed for each."""
    staleness: Literal[0, 1] = 0
    """Steps by which the weights that sample may be behind; 1: the next step's episodes are sampled
    during the update, from a copy of the weights before it. 0: one after the other, and a run that
    is stopped and goes on gives the same bits."""
    seed: int = 0
    gradient_checkpointing: bool = False
    eval_every: int | None = None
    """Steps between evaluations of the held-out tasks; None: none."""
    save_every: int = 50
    """Steps between checkpoints; the last step is always kept."""
    keep_last: int = 2
    """Checkpoints kept, besides the best one."""
    loggers: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()
    """Where metrics go besides metrics.jsonl."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    critic: CriticConfig | None = None
    loss: LossConfig = field(default_factory=LossConfig)
    shaping: ShapingConfig = field(default_factory=ShapingConfig)
    curriculum: CurriculumConfig | None = None
    """None: all tasks and the whole budget, from the first step on."""
    lora: LoraConfig | None = None
    data: DemonstrationsConfig = field(default_factory=DemonstrationsConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_algorithm()
        if self.algorithm == "sft":
            self._check_imitation()

    def _check_sizes(self) -> None:
        counts = {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "epochs": self.epochs,
            "group_size": self.group_size,
            "row_tokens": self.row_tokens,
            "save_every": self.save_every,
            "keep_last": self.keep_last,
            "mini_batch_size": self.mini_batch_size,
            "eval_every": self.eval_every,
        }
        for name, count in counts.items():
            if count is not None and count < 1:
                raise ConfigError(f"train.{name} = {count}: give at least 1")
        if self.batch_size % (self.mini_batch_size or self.batch_size):
            raise ConfigError(
                f"train.mini_batch_size = {self.mini_batch_size} does not divide "
                f"train.batch_size = {self.batch_size}"
            )

    def _check_algorithm(self) -> None:
        if self.algorithm in GROUPED and self.group_size < 2:
            raise ConfigError(
                f"train.group_size = {self.group_size}: {self.algorithm} compares the rollouts of "
                "a task, give at least 2"
            )
        if self.algorithm == "ppo" and self.critic is None:
            raise ConfigError("train.critic is missing: ppo needs one, add  [train.critic]")
        if self.algorithm != "ppo" and self.critic is not None:
            raise ConfigError(f"train.critic: {self.algorithm} uses none, remove [train.critic]")
        if self.algorithm in GROUPED and self.loss.kl and self.loss.kl_in == "reward":
            raise ConfigError(
                f"train.loss.kl_in = 'reward': {self.algorithm} has one advantage a trajectory, "
                "set train.loss.kl_in = 'loss'"
            )

    def _check_imitation(self) -> None:
        files = bool(self.data.trajectories or self.data.transcripts)
        if not files and self.data.expert is None:
            raise ConfigError(
                "train.data is empty: sft imitates train.data.trajectories, .transcripts or .expert"
            )
        if files and self.data.expert is not None:
            raise ConfigError("train.data.expert: give files or the expert, not both")
        if self.eval_every:
            raise ConfigError(
                "train.eval_every: sft runs no episodes, remove it and run  mem1 eval  on the "
                "policy it writes"
            )
        if self.loss.kl:
            raise ConfigError("train.loss.kl: sft has no reference, remove it")
        if self.staleness:
            raise ConfigError("train.staleness: sft runs no episodes, remove it")
        if self.shaping != ShapingConfig():
            raise ConfigError("train.shaping: sft learns from no reward, remove [train.shaping]")
        if self.curriculum:
            raise ConfigError(
                "train.curriculum: sft earns nothing to move on with, remove [train.curriculum]"
            )
