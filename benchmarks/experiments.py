"""What a tiny policy teaches about training a memory: trials that begin as the demo does.

    OMP_NUM_THREADS=1 python benchmarks/experiments.py algorithms     (one name, or several)
      -> runs/experiments/algorithms/TRIAL-SEED/   as  mem1 train  and  mem1 eval  leave them
      -> docs/results/algorithms/                  results.json, table.md, curves.svg

    algorithms   PPO, GRPO, RLOO and REINFORCE++ on as many episodes each; GRPO with the rewards of
                 each batch shuffled among its episodes
    rows         PPO on exact rows; on the paper's stitched rows and on plain stitched ones, which
                 both ask for other probabilities than were sampled with, uncorrected as in the
                 released code; on exact rows whose turns end alone
    imitation    PPO against more imitation, of flawless demonstrations, on as many episodes
    modes        contexts encoded anew each turn against keys and values that are kept and evicted

Trained on two objectives, tested on one to sixteen, at the temperature of training. Three seeds;
figures are means and 95 % intervals (Student's t) over seeds. A trial goes on where it was stopped.
"""

import argparse
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib as mpl
import orjson
import torch
from torch import Tensor
from warm_start import SIZE

import mem1
from mem1.config import LedgerTasks, RunConfig
from mem1.context import ContextPolicy, Full, Parts
from mem1.evals import EvalReport
from mem1.files import atomic_write
from mem1.tasks.ledger import Imperfections
from mem1.train import losses
from mem1.train.config import DemonstrationsConfig
from mem1.train.curriculum import Level
from mem1.train.logbook import METRICS_FILE, read_metrics
from mem1.train.sources import Source
from mem1.train.tiny import make_tiny
from mem1.train.trainer import train
from mem1.training import TrainWatcher, open_run
from mem1.types import Context, Segment, SegmentKind, Trajectory, Turn

mpl.use("svg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent.parent
NUM_OBJECTIVES = (1, 2, 4, 8, 16)
NUM_TASKS = 64
"""Of each N; no policy has seen them."""
STUDENT_T = {1: math.nan, 2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""97.5 % quantile, by number of seeds."""

COLUMNS = (
    *(f"em_{size}" for size in NUM_OBJECTIVES),
    "valid_turns",
    "survival_8",
    "gap_max",
    "gap",
    "clipped",
    "encoded_tokens",
)
"""Of the table: EM per objective by N; valid turns at N = 1; how far the trainer's probabilities
were from the sampler's, in nats; share of clipped ratios; tokens of rows."""

Rewrite = Callable[[Sequence[Trajectory]], list[Trajectory]]
"""What becomes of a batch before it's learned from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A way to train, beside the others of its experiment."""

    change: Callable[[RunConfig], RunConfig] = lambda config: config
    """Of configs/learn.toml."""
    rewrite: Rewrite = list
    corrected: bool = True
    """Whether tokens are weighted by the trainer's probability over the sampler's, capped."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A source whose batches are rewritten."""

    source: Source
    rewrite: Rewrite

    def batch(self, step: int, *, level: Level) -> list[Trajectory]:
        return self.rewrite(self.source.batch(step, level=level))

    def validate(self, step: int, *, level: Level) -> list[Trajectory]:
        return self.source.validate(step, level=level)

    def forget_after(self, step: int) -> None:
        self.source.forget_after(step)


def shuffled(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Rewards that have nothing to do with what was done."""
    order = list(range(len(trajectories)))
    random.Random(trajectories[0].task.id).shuffle(order)
    rewards = [trajectories[index].reward for index in order]
    return [replace(t, reward=r) for t, r in zip(trajectories, rewards, strict=True)]


def stitched(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The paper's rows: each token once, at the place where it was first written, and a mask that
    hides what each turn did not see. Exact for carried episodes, which these are not."""
    return [replace(trajectory, mode="carry") for trajectory in trajectories]


def plain(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """One causal row of everything that was said: each turn is asked about with all that came
    before it in view, evicted or not."""
    return [_with_contexts(trajectory, policy=Full()) for trajectory in trajectories]


def _with_contexts(trajectory: Trajectory, *, policy: ContextPolicy) -> Trajectory:
    context: Context = trajectory.turns[0].context[:1]
    turns: list[Turn] = []
    for turn, after in zip(trajectory.turns, [*trajectory.turns[1:], None], strict=True):
        turns.append(replace(turn, context=context))
        if after is not None:
            context = policy.update(context, _parts(turn, after, number=len(turns)))
    return replace(trajectory, turns=tuple(turns))


def _parts(turn: Turn, after: Turn, *, number: int) -> Parts:
    """What a turn added, read off the next one's context."""
    seen = {s.kind: s for s in after.context if s.turn == number}
    reply = Segment(
        kind=SegmentKind.REPLY,
        turn=number,
        token_ids=turn.completion.token_ids,
        text=turn.completion.text,
        start=0,
    )
    return Parts(
        reply=reply,
        internal_state=None,
        action=None,
        observation=seen[SegmentKind.OBSERVATION],
        hint=seen[SegmentKind.HINT],
    )


def alone(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Every turn an episode of its own that ends with the outcome: nothing is chained."""
    return [
        replace(trajectory, turns=(turn,), sample=100 * trajectory.sample + number)
        for trajectory in trajectories
        for number, turn in enumerate(trajectory.turns)
    ]


def learning(**settings: Any) -> Callable[[RunConfig], RunConfig]:
    """A config with other settings of `[train]`; only PPO keeps its critic."""

    def change(config: RunConfig) -> RunConfig:
        assert config.train is not None
        return replace(config, train=replace(config.train, critic=None, **settings))

    return change


def ones(old_logprobs: Tensor, **others: Any) -> Tensor:
    """Weights of a trainer that takes its own probabilities for the sampler's."""
    return torch.ones_like(old_logprobs)


def in_four_updates(config: RunConfig) -> RunConfig:
    """Four updates for each batch, so that probabilities move and ratios may be clipped."""
    assert config.train is not None
    return replace(config, train=replace(config.train, mini_batch_size=32))


def carried(config: RunConfig) -> RunConfig:
    return replace(config, run=replace(config.run, mode="carry"))


GROUPS = {"batch_size": 16, "group_size": 8}
FLAWLESS = DemonstrationsConfig(expert=Imperfections())
EXPERIMENTS: dict[str, dict[str, Trial]] = {
    "algorithms": {
        "PPO": Trial(),
        "GRPO": Trial(change=learning(algorithm="grpo", **GROUPS)),
        "RLOO": Trial(change=learning(algorithm="rloo", **GROUPS)),
        "REINFORCE++": Trial(change=learning(algorithm="reinforce++")),
        "GRPO, rewards shuffled": Trial(
            change=learning(algorithm="grpo", **GROUPS), rewrite=shuffled
        ),
    },
    "rows": {
        "exact": Trial(change=in_four_updates),
        "stitched, the paper's mask": Trial(
            change=in_four_updates, rewrite=stitched, corrected=False
        ),
        "stitched, plain causal": Trial(change=in_four_updates, rewrite=plain, corrected=False),
        "exact, turns not chained": Trial(change=in_four_updates, rewrite=alone),
    },
    "imitation": {
        "PPO": Trial(),
        "more imitation": Trial(change=learning(algorithm="sft", eval_every=None, data=FLAWLESS)),
    },
    "modes": {"reencode": Trial(), "carry": Trial(change=carried)},
}


def trained(trial: Trial, *, seed: int, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Train, or go on. Gives the policy's folder and the metrics of all steps."""
    config = config_of(trial, seed=seed)
    weights = ones if not trial.corrected else losses.importance_weights
    with (
        patch.object(losses, "importance_weights", weights),
        open_run(config, folder=folder, watcher=TrainWatcher()) as run,
    ):
        policy = train(replace(run, source=Rewritten(run.source, trial.rewrite)))
    metrics = [record for record in read_metrics(folder / METRICS_FILE) if "loss" in record]
    return policy, metrics


def config_of(trial: Trial, *, seed: int) -> RunConfig:
    overrides = [f"train.seed={seed}", f"sampling.seed={seed}"]
    return trial.change(mem1.load_config(ROOT / "configs/learn.toml", overrides=overrides))


def tested(trial: Trial, *, seed: int, policy: Path, folder: Path) -> EvalReport:
    """The policy on unseen tasks of each N."""
    config = config_of(trial, seed=seed)
    tasks = LedgerTasks(num_objectives=NUM_OBJECTIVES, count=NUM_TASKS, seed=11)
    engine = replace(config.engine, model=str(policy))
    config = replace(config, engine=engine, tasks=tasks, validation=None, train=None)
    return mem1.evaluate(config, folder=folder)


def figures(report: EvalReport, metrics: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What a trial found with one seed."""
    found: dict[str, float] = {}
    for cell in report.cells:
        size = cell.num_objectives
        found[f"em_{size}"] = cell.estimates["em"].mean / size
        found[f"turns_{size}"] = cell.estimates["num_turns"].mean
        if "survival" in cell.estimates:
            found[f"survival_{size}"] = cell.estimates["survival"].mean
    found["valid_turns"] = report.cells[0].estimates["valid_turns"].mean
    if metrics and "logprob_gap" in metrics[0]:
        found["gap_max"] = max(record["logprob_gap_max"] for record in metrics)
        found["gap"] = statistics.mean(record["logprob_gap"] for record in metrics)
        found["clipped"] = statistics.mean(record["clip_fraction"] for record in metrics)
    if not metrics:
        return found
    found["encoded_tokens"] = sum(record["packed_tokens"] for record in metrics)
    found["sampled_tokens"] = sum(record["generated_tokens"] for record in metrics)
    return found


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval."""
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return statistics.mean(values), STUDENT_T[len(values)] * spread / math.sqrt(len(values))


def experiment(name: str, *, seeds: Sequence[int]) -> None:
    found: dict[str, list[dict[str, float]]] = {}
    curves: dict[str, list[list[dict[str, Any]]]] = {}
    folder = ROOT / "runs/experiments" / name
    begun = {
        "untrained": folder / "untrained",
        "the start": ROOT / mem1.load_config(ROOT / "configs/learn.toml").engine.model,
    }
    make_tiny(begun["untrained"], seed=0, **SIZE)
    for seed in seeds:
        for label, policy in begun.items():
            place = folder / f"{policy.name}-{seed}"
            report = tested(Trial(), seed=seed, policy=policy, folder=place)
            found.setdefault(label, []).append(figures(report, []))
        for label, trial in EXPERIMENTS[name].items():
            print(f"{name}: {label}, seed {seed}", flush=True)
            place = folder / f"{label.replace(', ', '-').replace(' ', '-')}-{seed}"
            policy, metrics = trained(trial, seed=seed, folder=place)
            report = tested(trial, seed=seed, policy=policy, folder=place / "eval")
            found.setdefault(label, []).append(figures(report, metrics))
            curves.setdefault(label, []).append(metrics)
    results = ROOT / "docs/results" / name
    results.mkdir(parents=True, exist_ok=True)
    record = {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/experiments.py {name}",
        "seeds": list(seeds),
        "trials": found,
    }
    atomic_write(results / "results.json", orjson.dumps(record, option=orjson.OPT_INDENT_2))
    atomic_write(results / "table.md", table(found))
    plot(curves, results / "curves.svg")
    print(table(found))


def table(found: dict[str, list[dict[str, float]]]) -> str:
    known = max((trial[0] for trial in found.values()), key=len)
    names = [name for name in COLUMNS if name in known]
    lines = [f"| trial | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for label, seeds in found.items():
        cells = [cell([seed[name] for seed in seeds]) if name in seeds[0] else "" for name in names]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(values: Sequence[float]) -> str:
    mean, half = over_seeds(values)
    if 0 < mean < 1e-3:
        return f"{mean:.1e} ± {half:.1e}"
    return f"{mean:,.0f} ± {half:,.0f}" if mean > 100 else f"{mean:.3f} ± {half:.3f}"


def plot(curves: dict[str, list[list[dict[str, Any]]]], file: Path) -> None:
    """Rewards in training, a line for each trial and seed."""
    figure, axes = plt.subplots(figsize=(7, 4))
    for number, (label, seeds) in enumerate(curves.items()):
        for seed, metrics in enumerate(seeds):
            steps = [record["step"] for record in metrics]
            rewards = [record["reward"] for record in metrics]
            named = {"label": label} if seed == 0 else {}
            axes.plot(steps, rewards, color=f"C{number}", alpha=0.7, **named)
    axes.set(xlabel="step", ylabel="mean reward of a batch", ylim=(0, 2))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = parser.parse_args()
    for name in asked.names:
        experiment(name, seeds=asked.seeds)


if __name__ == "__main__":
    main()
