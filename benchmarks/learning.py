"""Does it learn, and from the rewards? The tiny policy on two ledger lookups, by every algorithm.

    OMP_NUM_THREADS=1 python benchmarks/learning.py        (about ten minutes on one core)
      -> runs/tiny, runs/learning/*     as  mem1 train  leaves them
      -> docs/results/learning/         learning.json, the curves, a table

Supervised training on an imperfect expert (configs/tiny_sft.toml), then PPO, GRPO, RLOO and
REINFORCE++ from there (configs/tiny_ppo.toml, tiny_grpo.toml), and GRPO once more with the rewards
of each batch shuffled among its trajectories: nothing to learn then. It goes on where it was
stopped.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import orjson

from mem1 import load_config
from mem1.files import atomic_write
from mem1.train.curriculum import Level
from mem1.train.logbook import METRICS_FILE, read_metrics
from mem1.train.sources import Source
from mem1.train.trainer import train
from mem1.training import TrainWatcher, open_run
from mem1.types import Trajectory

mpl.use("svg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs/results/learning"
ONE_EACH = ["train.batch_size=128", "train.group_size=1"]
RUNS: dict[str, tuple[str, list[str]]] = {
    "PPO": ("tiny_ppo.toml", []),
    "GRPO": ("tiny_grpo.toml", []),
    "RLOO": ("tiny_grpo.toml", ["train.algorithm=rloo"]),
    "REINFORCE++": ("tiny_grpo.toml", ["train.algorithm=reinforce++", *ONE_EACH]),
    "GRPO, rewards shuffled": ("tiny_grpo.toml", []),
}
"""Config and overrides of each run."""


@dataclass(frozen=True, slots=True)
class Shuffled:
    """A source whose rewards have nothing to do with what was done."""

    source: Source

    def batch(self, step: int, *, level: Level) -> list[Trajectory]:
        trajectories = self.source.batch(step, level=level)
        rewards = [trajectory.reward for trajectory in trajectories]
        order = np.random.default_rng(step).permutation(len(rewards))
        return [replace(t, reward=rewards[i]) for t, i in zip(trajectories, order, strict=True)]

    def validate(self, step: int, *, level: Level) -> list[Trajectory]:
        return self.source.validate(step, level=level)

    def forget_after(self, step: int) -> None:
        self.source.forget_after(step)


def supervised() -> dict[str, Any]:
    """The start: what demonstrations alone teach."""
    if not Path("runs/tiny/start.json").exists():
        subprocess.run([sys.executable, "benchmarks/tiny_policy.py", "runs/tiny"], check=True)
    config = load_config("configs/tiny_sft.toml")
    with open_run(config, folder=Path("runs/tiny_sft"), watcher=TrainWatcher()) as run:
        train(run)
    return {"metrics": list(read_metrics(Path("runs/tiny_sft") / METRICS_FILE))}


def reinforced(name: str) -> list[dict[str, Any]]:
    """One run from there. Gives its metrics, step by step."""
    file, overrides = RUNS[name]
    folder = Path("runs/learning") / name.lower().replace(", ", "-").replace(" ", "-")
    config = load_config(Path("configs") / file, overrides=overrides)
    with open_run(config, folder=folder, watcher=TrainWatcher(on_step=tell)) as run:
        source = Shuffled(run.source) if "shuffled" in name else run.source
        train(replace(run, source=source))
    return list(read_metrics(folder / METRICS_FILE))


def tell(step: int, metrics: Any) -> None:
    if step % 20 == 0 and "reward" in metrics:
        print(f"  step {step}: reward {metrics['reward']:.3f}", flush=True)


def summarised(metrics: Sequence[dict[str, Any]]) -> dict[str, float]:
    """First and last of a run: training reward at temperature 1, means over five steps, and the
    greedy reward on held-out tasks."""
    steps = [record for record in metrics if "reward" in record]
    held_out = [r["validation/reward"] for r in metrics if "validation/reward" in r]
    return {
        "reward_first_5": float(np.mean([record["reward"] for record in steps[:5]])),
        "reward_last_5": float(np.mean([record["reward"] for record in steps[-5:]])),
        "held_out_before": held_out[0],
        "held_out_after": held_out[-1],
        "valid_turns_last_5": float(np.mean([record["valid_turns"] for record in steps[-5:]])),
        "turns_last_5": float(np.mean([record["num_turns"] for record in steps[-5:]])),
        "peak_tokens_last": steps[-1]["peak_tokens"],
        "logprob_gap_max": max(record["logprob_gap_max"] for record in steps),
        "seconds": sum(record["collect_s"] + record["learn_s"] for record in steps),
    }


def plot(curves: dict[str, list[dict[str, Any]]]) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    for name, metrics in curves.items():
        steps = [record for record in metrics if "reward" in record]
        style = "--" if "shuffled" in name else "-"
        axes.plot([r["step"] for r in steps], [r["reward"] for r in steps], style, label=name)
    axes.set(xlabel="step", ylabel="mean reward of a batch (most: 2)", ylim=(0, 2))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(RESULTS / "curves.svg", metadata={"Date": None})


def table(found: dict[str, Any]) -> str:
    rows = [
        "| run | reward, first 5 steps | last 5 | held out, greedy: before | after | valid turns |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures in found["runs"].items():
        cells = [figures["reward_first_5"], figures["reward_last_5"]]
        cells += [figures["held_out_before"], figures["held_out_after"]]
        numbers = " | ".join(f"{cell:.2f}" for cell in cells)
        rows.append(f"| {name} | {numbers} | {figures['valid_turns_last_5']:.3f} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    start = supervised()["metrics"]
    curves: dict[str, list[dict[str, Any]]] = {}
    for name in RUNS:
        print(name, flush=True)
        curves[name] = reinforced(name)
    found = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/learning.py",
        "supervised": {
            "loss_first": start[0]["loss"],
            "loss_last": start[-1]["loss"],
            "valid_turns_at_temperature_1": curves["GRPO"][1]["valid_turns"],
            "seconds": sum(record["learn_s"] for record in start),
        },
        "runs": {name: summarised(metrics) for name, metrics in curves.items()},
    }
    atomic_write(RESULTS / "learning.json", orjson.dumps(found, option=orjson.OPT_INDENT_2))
    atomic_write(RESULTS / "table.md", table(found))
    plot(curves)
    print(table(found))


if __name__ == "__main__":
    main()
