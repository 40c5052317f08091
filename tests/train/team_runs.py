"""Runs of several processes on this machine, as torchrun would start them.

They are forked off a server that has loaded torch once: loading it takes longer than such runs.
"""

import itertools
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
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


@dataclass(frozen=True, kw_only=True)
class Team:
    """Processes that make runs together."""

    processes: Sequence[BaseProcess]
    told: Sequence[Path]
    """Where each writes its output."""

    def outputs(self) -> list[tuple[int | None, str]]:
        """Exit status and output of each, once all are over."""
        end = time.monotonic() + TIMEOUT_S
        try:
            for process in self.processes:
                process.join(max(0.0, end - time.monotonic()))
        finally:
            for process in self.processes:
                process.kill()
        return [
            (process.exitcode, told.read_text())
            for process, told in zip(self.processes, self.told, strict=True)
        ]


def start_team(model: Path, runs: Mapping[Path, tuple[str, dict[str, Any]]], *, told: Path) -> Team:
    """Start two processes that make some runs, one after the other.

    Args: `runs`, folder -> arguments of `team_config`, and `dies_at`, the episode of the run at
    which the second process is killed; `told`, a folder for what the processes write.
    """
    # Each run has a port of its own: on the one before, the first process may still listen.
    listed = [(_free_port(), str(at), kind, settings) for at, (kind, settings) in runs.items()]
    told.mkdir()
    files = [told / f"{rank}.txt" for rank in range(2)]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mem1.train.trainer", "mem1.train.distributed", "peft"])
    processes = [
        context.Process(target=_make_runs, args=(rank, str(model), listed, str(file)))
        for rank, file in enumerate(files)
    ]
    for process in processes:
        process.start()
    return Team(processes=processes, told=files)


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _make_runs(
    rank: int, model: str, runs: Sequence[tuple[str, str, str, dict[str, Any]]], told: str
) -> None:
    output = os.open(told, os.O_WRONLY | os.O_CREAT)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    for port, folder, kind, settings in runs:
        os.environ["MASTER_PORT"] = port
        os.environ["MEM1_DIES_AT"] = str(settings.pop("dies_at", ""))
        train_policy(team_config(Path(model), kind, **settings), folder=folder)
