"""Runs of several processes on this machine, as torchrun would start them.

python team_runs.py FOLDER MODEL SETTINGS     one process of such a run
"""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ledger_runs import Parity, run_config

from mem1.config import RunConfig
from mem1.rewards import RewardOutput
from mem1.train.config import CriticConfig, DistributedConfig, LoraConfig, LossConfig
from mem1.training import train_policy
from mem1.types import Task, Turn

TIMEOUT_S = 110


def team_config(model: Path, kind: str, *, dtype: str = "float64", **settings: Any) -> RunConfig:
    """A run of two steps, in float64 so that only a wrong sum makes a difference."""
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "grpo": ("grpo", {"loss": LossConfig(kl=0.1, kl_in="loss"), "row_tokens": 120}),
        "ppo": ("ppo", {"mini_batch_size": 2, "row_tokens": 120, "eval_every": 2}),
        "head": ("ppo", {"critic": CriticConfig(kind="head"), "gradient_checkpointing": True}),
        "lora": ("rloo", {"lora": LoraConfig(rank=2)}),
        "offload": (
            "reinforce++",
            {"distributed": DistributedConfig(cpu_offload=True, timeout_s=TIMEOUT_S)},
        ),
    }
    algorithm, own = kinds[kind]
    distributed = DistributedConfig(timeout_s=TIMEOUT_S)
    all_settings = {"steps": 2, "save_every": 1, "distributed": distributed, **own, **settings}
    config = run_config(model, algorithm, **all_settings)
    engine = replace(config.engine, dtype=dtype)
    return replace(config, engine=engine, run=replace(config.run, reward="team_runs:Deadly"))


class Deadly(Parity):
    """Kills the second process at the episode that `MEM1_DIES_AT` numbers, if it does."""

    episodes = itertools.count(1)

    def __call__(self, task: Task, *, answer: str | None, turns: Sequence[Turn]) -> RewardOutput:
        dies_at = os.environ.get("MEM1_DIES_AT")
        if dies_at and os.environ.get("RANK") == "1" and next(self.episodes) == int(dies_at):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(task, answer=answer, turns=turns)


def start_team(
    model: Path, runs: Mapping[Path, tuple[str, dict[str, Any]]]
) -> list[subprocess.Popen[str]]:
    """Start two processes that make some runs, one after the other.

    Args: `runs`, folder -> arguments of `team_config`, and `dies_at`, the episode of the run at
    which the second process is killed.
    """
    told = {
        "MASTER_ADDR": "127.0.0.1",
        "WORLD_SIZE": "2",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    # Each run has a port of its own: on the one before, the first process may still listen.
    listed = json.dumps([[_free_port(), str(at), *arguments] for at, arguments in runs.items()])
    return [
        subprocess.Popen(
            [sys.executable, __file__, str(model), listed],
            env=os.environ | told | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]


def outputs(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit status and output of each, once all are over."""
    try:
        told = [process.communicate(timeout=TIMEOUT_S)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, told, strict=True)]


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _main(model: str, runs: str) -> None:
    for port, folder, kind, settings in json.loads(runs):
        os.environ["MASTER_PORT"] = port
        os.environ["MEM1_DIES_AT"] = str(settings.pop("dies_at", ""))
        train_policy(team_config(Path(model), kind, **settings), folder=folder)


if __name__ == "__main__":
    _main(*sys.argv[1:])
