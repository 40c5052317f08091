"""mem1's config and verl's overrides -> a training run on a Ray cluster.

    python -m mem1.adapters.verl configs/paper_qa.toml --data runs/verl/paper_qa \
        trainer.nnodes=2 trainer.n_gpus_per_node=8

With --dry-run it checks everything, as verl does, and starts nothing.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mem1.adapters.verl.data import TRAIN_FILE
from mem1.adapters.verl.options import (
    PLUGIN,
    check_reach,
    default_options,
    owned_options,
    write_config,
)
from mem1.adapters.verl.version import check_verl
from mem1.config import RunConfig, load_config
from mem1.errors import ConfigError, DataError, UserError


def compose_config(config: RunConfig, *, data: Path, overrides: Sequence[str]) -> Any:
    """verl's whole config, as its trainer wants it.

    Args: `overrides`, of verl's settings, `dotted.name=value`.
    Raises: ConfigError for an override of what follows from mem1's config, for other servers than
    vLLM, and for a retriever that other machines can't reach.
    """
    from hydra import compose, initialize_config_module  # pyright: ignore[reportMissingImports]
    from omegaconf import OmegaConf, open_dict  # pyright: ignore[reportMissingImports]

    owned = owned_options(config, data=data)
    for override in overrides:
        name = override.partition("=")[0].lstrip("+~")
        if name in owned:
            raise ConfigError(
                f"{override}: it follows from mem1's config, where it is {owned[name]!r}: change "
                "it there"
            )
    defaults = [f"{name}={value}" for name, value in default_options(config).items()]
    environment = f"++ray_kwargs.ray_init.runtime_env.env_vars.VERL_USE_EXTERNAL_MODULES={PLUGIN}"
    with initialize_config_module("verl.trainer.config", version_base=None):
        composed = compose("ppo_trainer", overrides=[*defaults, environment, *overrides])
    if (sampler := composed.actor_rollout_ref.rollout.name) != "vllm":
        raise ConfigError(
            f"actor_rollout_ref.rollout.name={sampler}: our requests are in vLLM's words, take vllm"
        )
    check_reach(config, num_machines=composed.trainer.nnodes)
    for name, value in owned.items():
        OmegaConf.update(composed, name, value)
    with open_dict(composed):
        composed.mem1 = {"config": write_config(config)}
    return composed


def check_config(composed: Any) -> None:
    """Check a config as verl's own launcher does."""
    from verl.trainer.ppo.utils import (  # pyright: ignore[reportMissingImports]
        need_critic,
        need_reference_policy,
    )
    from verl.utils.config import validate_config  # pyright: ignore[reportMissingImports]
    from verl.utils.device import auto_set_device  # pyright: ignore[reportMissingImports]

    auto_set_device(composed)
    validate_config(
        config=composed,
        use_reference_policy=need_reference_policy(composed),
        use_critic=need_critic(composed),
    )


def launch(composed: Any) -> None:
    """Train, on the Ray cluster that is running, or on this machine."""
    from verl.trainer.main_ppo import (  # pyright: ignore[reportMissingImports]
        TaskRunnerV1,
        run_ppo,
    )

    run_ppo(composed, task_runner_class=TaskRunnerV1)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m mem1.adapters.verl")
    parser.add_argument("config", help="mem1's config, a TOML file")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that `mem1 data export` wrote"
    )
    parser.add_argument(
        "--set", action="append", default=[], help="of mem1's settings: dotted.name=value"
    )
    parser.add_argument("--dry-run", action="store_true", help="check, and start nothing")
    parser.add_argument("overrides", nargs="*", help="of verl's settings: dotted.name=value")
    given = parser.parse_intermixed_args(arguments)
    check_verl()
    os.environ["VERL_USE_EXTERNAL_MODULES"] = PLUGIN
    config = load_config(given.config, overrides=given.set)
    composed = compose_config(config, data=given.data, overrides=given.overrides)
    if not (given.data / TRAIN_FILE).exists():
        raise DataError(
            f"{given.data / TRAIN_FILE}: no such file, write it with  mem1 data export "
            f"{given.config} --format verl -o {given.data}"
        )
    check_config(composed)
    if not given.dry_run:
        launch(composed)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"mem1: {error}")
