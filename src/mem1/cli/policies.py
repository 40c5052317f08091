"""Commands that train a policy, and prove that what is trained is what was run."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mem1.cli.options import (
    AsJson,
    Configs,
    DryRun,
    Out,
    Sets,
    default_folder,
    load,
    note,
    plan,
    screen,
)
from mem1.errors import ConfigError


def train(*configs: Configs, overrides: Sets = (), dry_run: DryRun = False, out: Out = None) -> int:
    """Train a policy; continues a run that was stopped. On N GPUs of a machine:
    torchrun --nproc-per-node N -m mem1 train CONFIG."""
    settings = load(configs, overrides=overrides)
    if settings.train is None:
        raise ConfigError("train is missing: add  [train]  with an algorithm and steps")
    from mem1.api import report_html
    from mem1.console import TrainProgress
    from mem1.train.launch import is_first_process
    from mem1.training import TrainWatcher, check_trainable, train_policy

    if dry_run:
        check_trainable(settings)
        samples = settings.train.group_size if settings.train.algorithm != "sft" else 0
        return plan(settings, limit=None, as_json=False, samples=samples)

    folder = out or default_folder(configs)
    if not is_first_process():
        train_policy(settings, folder=folder)
        return 0
    with TrainProgress(num_steps=settings.train.steps) as progress:
        watcher = TrainWatcher(
            on_step=progress.step,
            on_done=progress.episode,
            on_index=progress.index,
            warn=progress.warn,
        )
        policy = train_policy(settings, folder=folder, watcher=watcher)
    print(f"policy: {policy}\nmetrics: {folder / 'metrics.jsonl'}")
    print(f"report: {report_html([folder])}")
    return 0


def verify(
    *,
    model: Annotated[str, Parameter(help="A folder, a .gguf file, or package:NAME/FILE.")],
    trajectories: Annotated[
        tuple[Path, ...],
        Parameter(help="Trajectory files; without any, episodes are sampled now."),
    ] = (),
    dtype: Annotated[str, Parameter(help="float32, float64 or bfloat16.")] = "float32",
    as_json: AsJson = False,
) -> int:
    """Measure whether what would be trained is what was run, in nats."""
    from mem1.config import LocalConfig
    from mem1.console import show_verified
    from mem1.settings import build
    from mem1.verification import verify_model

    config = build(LocalConfig, {"model": model, "dtype": dtype}, at="verify")
    found = []
    for verified in verify_model(config, trajectories=trajectories):
        note(f"verified {verified.context_policy}, {verified.mode}")
        found.append(verified)
    if as_json:
        print(json.dumps([asdict(verified) for verified in found]))
    else:
        show_verified(screen(), found)
    return int(not all(verified.report.exact for verified in found))
