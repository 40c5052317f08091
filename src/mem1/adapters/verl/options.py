"""RunConfig -> VERL'S SETTINGS: one config for both trainers.

RunConfig -> check_for_verl -> owned_options    what follows from it, and only from it
                            -> default_options  where and how fast it runs: yours to change
RunConfig -> write_config -> `mem1.config` in verl's config -> read_config, in every worker
"""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mem1.adapters.verl.data import TRAIN_FILE, VALIDATION_FILE
from mem1.config import BM25Config, HTTPConfig, RunConfig
from mem1.errors import ConfigError
from mem1.serving import is_loopback
from mem1.settings import build, dump_toml, to_table
from mem1.tools.indexes import DenseConfig, HybridConfig
from mem1.train.config import OptimizerConfig, TrainConfig
from mem1.training import check_trainable
from mem1.wiring import model_path, model_window

AGENT = "mem1"
"""Name of our agent loop in verl."""
TRAINER = "mem1"
"""Name of our trainer mode in verl."""
PLUGIN = "mem1.adapters.verl.plugin"
"""What verl's processes import."""

_ESTIMATORS = {
    "ppo": "gae",
    "grpo": "grpo",
    "rloo": "rloo",
    "reinforce++": "reinforce_plus_plus",
}
_KL = {"k1": "kl", "k3": "low_var_kl"}

Options = dict[str, Any]
"""Dotted names of verl's settings, and their values."""


def write_config(config: RunConfig) -> str:
    """The whole config as text, for verl's processes on other machines: the folder of the model and
    a corpus are absolute, since they work elsewhere."""
    _, engine = check_trainable(config)
    config = replace(config, engine=replace(engine, model=str(_model_folder(config))))
    if isinstance(config.retriever, BM25Config | DenseConfig | HybridConfig):
        corpus = str(Path(config.retriever.corpus).absolute())
        config = replace(config, retriever=replace(config.retriever, corpus=corpus))
    return dump_toml(to_table(config))


def check_reach(config: RunConfig, *, num_machines: int) -> None:
    """Raises: ConfigError for a retriever's address that is another one on each machine."""
    if num_machines == 1 or not isinstance(config.retriever, HTTPConfig):
        return
    host = urlsplit(config.retriever.url).hostname or ""
    if is_loopback(host) or host == "0.0.0.0":
        raise ConfigError(
            f"retriever.url = {config.retriever.url!r} with trainer.nnodes = {num_machines}: on "
            "each machine that is the machine itself, name an address that all can reach: "
            "--set retriever.url=http://FIRST:8000/retrieve"
        )


def read_config(text: str) -> RunConfig:
    return build(RunConfig, tomllib.loads(text))


def check_for_verl(config: RunConfig) -> TrainConfig:
    """What verl can do of a config. Raises: ConfigError for what it can't."""
    settings, engine = check_trainable(config)
    critic = settings.critic
    asked = {
        "train.algorithm = 'sft'": settings.algorithm == "sft",
        "run.mode = 'carry'": config.run.mode == "carry",
        "train.critic.kind = 'head'": critic is not None and critic.kind == "head",
        "train.critic.num_layers": critic is not None and critic.num_layers is not None,
        "train.curriculum": settings.curriculum is not None,
        "train.lora": settings.lora is not None,
        "train.optimizer.cooldown": settings.optimizer.cooldown > 0,
        "train.critic.optimizer.cooldown": critic is not None and critic.optimizer.cooldown > 0,
        "a .gguf file as engine.model": engine.model.endswith(".gguf"),
    }
    for name in (name for name, is_asked in asked.items() if is_asked):
        raise ConfigError(f"{name}: not with verl; use  mem1 train,  or take it out")
    if config.sampling.top_p < 1 and config.sampling.temperature != 1:
        raise ConfigError(
            f"sampling.temperature = {config.sampling.temperature} with sampling.top_p = "
            f"{config.sampling.top_p}: verl's servers tell log-probabilities before both or after "
            "both; set one of them to 1"
        )
    return settings


def window_of(config: RunConfig) -> int:
    """Tokens that a server must have room for: the policy's bound, or else the model's window."""
    _, engine = check_trainable(config)
    (policy,) = config.policies()
    window = policy.bound(config.budget) or model_window(engine)
    if window is None:
        raise ConfigError(
            f"{policy} has no bound and {engine.model} tells no window: name a context "
            "policy that has one"
        )
    return window


def owned_options(config: RunConfig, *, data: Path) -> Options:
    """What follows from the config. Args: `data`, the folder with the parquet files.

    Raises: ConfigError for what verl can't do.
    """
    settings = check_for_verl(config)
    return {
        **_data(config, settings, folder=data),
        **_rollout(config, settings),
        **_update(config, settings),
        **_critic(config, settings),
        "trainer.use_v1": True,
        "trainer.v1.trainer_mode": TRAINER,
        "trainer.total_training_steps": settings.steps,
        "trainer.total_epochs": settings.steps,
        "trainer.test_freq": settings.eval_every or -1,
        "trainer.val_before_train": settings.eval_every is not None,
        "trainer.save_freq": settings.save_every,
        "trainer.max_actor_ckpt_to_keep": settings.keep_last,
        "trainer.max_critic_ckpt_to_keep": settings.keep_last,
        "trainer.logger": ["console", *settings.loggers],
    }


def default_options(config: RunConfig) -> Options:
    """Where and how fast it runs."""
    settings = check_for_verl(config)
    return {
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
        "actor_rollout_ref.rollout.gpu_memory_utilization": 0.6,
        "actor_rollout_ref.actor.strategy": "fsdp2",
        "actor_rollout_ref.actor.use_dynamic_bsz": True,
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": settings.row_tokens,
        "critic.strategy": "fsdp2",
        "critic.ppo_max_token_len_per_gpu": settings.row_tokens,
        "reward.num_workers": 1,
        "trainer.project_name": "mem1",
        "trainer.experiment_name": "mem1",
    }


def _model_folder(config: RunConfig) -> Path:
    _, engine = check_trainable(config)
    return model_path(engine.model).absolute()


def _data(config: RunConfig, settings: TrainConfig, *, folder: Path) -> Options:
    validation = VALIDATION_FILE if config.validation else TRAIN_FILE
    return {
        "data.train_files": [str((folder / TRAIN_FILE).absolute())],
        "data.val_files": [str((folder / validation).absolute())],
        "data.train_batch_size": settings.batch_size,
        "data.max_prompt_length": window_of(config) - config.budget.reply,
        "data.max_response_length": config.budget.reply,
        # The episode writes the prompt itself, and minds its cap.
        "data.filter_overlong_prompts": False,
        "data.shuffle": True,
        "data.seed": settings.seed,
    }


def _rollout(config: RunConfig, settings: TrainConfig) -> Options:
    at = "actor_rollout_ref.rollout"
    is_whole = config.sampling.top_p == 1
    return {
        f"{at}.n": settings.group_size,
        f"{at}.temperature": config.sampling.temperature,
        f"{at}.top_p": config.sampling.top_p,
        f"{at}.calculate_log_probs": True,
        # Under the full softmax: after top-p they'd be of another distribution than the trainer's.
        f"{at}.logprobs_mode": "processed_logprobs" if is_whole else "raw_logprobs",
        f"{at}.max_model_len": window_of(config),
        f"{at}.agent.default_agent_loop": AGENT,
        f"{at}.val_kwargs.temperature": 0.0,
        f"{at}.val_kwargs.top_p": 1.0,
        f"{at}.val_kwargs.n": 1,
    }


def _update(config: RunConfig, settings: TrainConfig) -> Options:
    at, loss = "actor_rollout_ref.actor", settings.loss
    return {
        "actor_rollout_ref.model.path": str(_model_folder(config)),
        "actor_rollout_ref.model.enable_gradient_checkpointing": settings.gradient_checkpointing,
        "actor_rollout_ref.model.use_remove_padding": True,
        **_optimizer(f"{at}.optim", settings.optimizer),
        f"{at}.ppo_mini_batch_size": settings.mini_batch_size or settings.batch_size,
        f"{at}.ppo_epochs": settings.epochs,
        f"{at}.shuffle": False,
        f"{at}.calculate_entropy": True,
        f"{at}.entropy_coeff": loss.entropy,
        f"{at}.clip_ratio_low": loss.clip_low,
        f"{at}.clip_ratio_high": loss.clip_high,
        f"{at}.use_kl_loss": loss.kl > 0 and loss.kl_in == "loss",
        f"{at}.kl_loss_coef": loss.kl,
        f"{at}.kl_loss_type": _KL[loss.kl_estimator],
        "algorithm.adv_estimator": _ESTIMATORS[settings.algorithm],
        "algorithm.gamma": loss.gamma,
        "algorithm.lam": loss.lam,
        "algorithm.use_kl_in_reward": loss.kl > 0 and loss.kl_in == "reward",
        "algorithm.kl_ctrl.kl_coef": loss.kl,
    }


def _critic(config: RunConfig, settings: TrainConfig) -> Options:
    critic = settings.critic
    if critic is None:
        return {"critic.enable": False}
    return {
        "critic.enable": True,
        "critic.model.path": str(_model_folder(config)),
        "critic.model.enable_gradient_checkpointing": settings.gradient_checkpointing,
        "critic.model.use_remove_padding": True,
        **_optimizer("critic.optim", critic.optimizer),
        "critic.ppo_mini_batch_size": settings.mini_batch_size or settings.batch_size,
        "critic.ppo_epochs": settings.epochs,
        "critic.shuffle": False,
        "critic.cliprange_value": critic.value_clip,
    }


def _optimizer(at: str, config: OptimizerConfig) -> Options:
    return {
        f"{at}.lr": config.lr,
        f"{at}.lr_warmup_steps_ratio": config.warmup,
        f"{at}.betas": list(config.betas),
        f"{at}.weight_decay": config.weight_decay,
        f"{at}.clip_grad": config.grad_clip,
    }
