"""How fast the tiny policy's whole loop is, rollout and update, and where the time goes.

    OMP_NUM_THREADS=1 python benchmarks/loop_profile.py
      -> docs/results/loop_profile.json
    ... --against ../older/src      the same loop with the mem1 of another checkout, side by side

Tokens are those sampled plus those of the packed rows trained on. Each config runs twice: as it is,
and with the next step's episodes sampled during the update (`train.staleness = 1`). Seconds are of
processor time and of the clock. Every measurement is a process of its own, whose first step isn't
counted; those of two checkouts take turns. Shares are taken in one more process, since taking them
costs time.
"""

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any

import orjson

from mem1 import load_config
from mem1.files import atomic_write
from mem1.train.sources import Rollouts
from mem1.training import TrainWatcher, train_policy
from mem1.types import Trajectory

ROOT = Path(__file__).parent.parent
AHEAD = "rollouts ahead"
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "learn": ("learn", ()),
    "learn_grpo": ("learn_grpo", ()),
    f"learn, {AHEAD}": ("learn", ("train.staleness=1",)),
    f"learn_grpo, {AHEAD}": ("learn_grpo", ("train.staleness=1",)),
}
"""Configs, and what is set otherwise."""

ROLLOUT, UPDATE = "rollout", "update"
PARTS: dict[str, tuple[str, ...]] = {
    "rollout: one token of each row, new rows among them": ("engines.batch:Batch._forward",),
    "rollout: attention": ("engines.slots:Slots.attend",),
    "rollout: keys and values written": ("engines.slots:Slots.write",),
    "rollout: tokens drawn": ("engines.batch:Batch._sample",),
    "rollout: stop strings": ("engines.sequence:TokenSequence.check_end",),
    "rollout: rows come and go": ("engines.batch:Batch._admit", "engines.batch:Batch._leave"),
    "rollout: prompts rendered": ("rollout.episode:_prompt",),
    "rollout: replies taken apart": ("rollout.episode:split_reply",),
    "rollout: observations and hints": ("rollout.episode:_parts",),
    "rollout: requests": ("rollout.episode:_request",),
    "rollout: rewards": ("rollout.episode:_score",),
    "rollout: store": (
        "rollout.store:TrajectoryStore.append",
        "rollout.store:TrajectoryStore.close",
    ),
    "update: metrics of episodes": ("train.trainer:summary",),
    "update: rows packed": ("train.experience:split", "train.experience:sampled_tokens"),
    "update: values before": ("train.experience:_values", "train.experience:_score"),
    "update: forward": ("train.update:_row_loss",),
    "update: backward": ("torch:Tensor.backward",),
    "update: AdamW": ("train.optimizer:Optimizer.clip", "train.optimizer:Optimizer.step"),
    "update: log": ("train.logbook:Logbook.write",),
}
"""What belongs to a part; what a part calls of another part counts for that one."""


@dataclass(slots=True)
class Seconds:
    """Seconds of the processor and of the clock."""

    cpu: float = 0.0
    wall: float = 0.0

    @classmethod
    def now(cls, *, thread: bool = False) -> "Seconds":
        return cls(time.thread_time() if thread else time.process_time(), time.perf_counter())

    def __sub__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.cpu - other.cpu, self.wall - other.wall)

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.cpu + other.cpu, self.wall + other.wall)


@dataclass(slots=True)
class Shares:
    """Seconds of each part, without those of the parts it calls."""

    parts: dict[str, Seconds] = field(default_factory=lambda: defaultdict(Seconds))
    _inner: threading.local = field(default_factory=threading.local)

    def watch(self, named: Mapping[str, Sequence[str]]) -> None:
        """Put a clock around functions. Args: `named`, their places by the name of the part."""
        for part, places in named.items():
            for place in places:
                module, _, path = place.partition(":")
                owner: Any = importlib.import_module(
                    module if module == "torch" else f"mem1.{module}"
                )
                *owners, name = path.split(".")
                for step in owners:
                    owner = getattr(owner, step)
                setattr(owner, name, self._timed(getattr(owner, name), part))

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            outer = getattr(self._inner, "spent", Seconds())
            self._inner.spent, began = Seconds(), Seconds.now(thread=True)
            try:
                return function(*args, **kwargs)
            finally:
                whole = Seconds.now(thread=True) - began
                self.parts[part] += whole - self._inner.spent
                self._inner.spent = outer + whole

        return timed


def measure(name: str, *, policy: Path, steps: int, shares: bool) -> dict[str, Any]:
    """Run `steps` steps of one of RUNS and one before them. Gives tokens, seconds and shares."""
    file, overrides = RUNS[name]
    config = load_config(ROOT / f"configs/{file}.toml", overrides=overrides)
    assert config.train is not None
    settings = replace(config.train, steps=steps + 1, eval_every=None, save_every=steps + 1)
    engine = replace(config.engine, model=str(policy))
    config = replace(config, engine=engine, train=settings, validation=None)
    watched, counted, spent = Shares(), Counter[str](), {ROLLOUT: Seconds()}
    if shares:
        watched.watch(PARTS)
    batch, began = Rollouts.batch, Seconds.now()

    def timed_batch(*args: Any, **kwargs: Any) -> list[Trajectory]:
        asked = Seconds.now()
        found = batch(*args, **kwargs)
        spent[ROLLOUT] += Seconds.now() - asked
        return found

    def on_step(step: int, metrics: Mapping[str, float]) -> None:
        nonlocal began
        if step == 1:
            began, spent[ROLLOUT] = Seconds.now(), Seconds()
            watched.parts.clear()
            return
        counted["sampled"] += int(metrics["generated_tokens"])
        counted["trained"] += int(metrics["packed_tokens"])
        spent[UPDATE] = Seconds.now() - began - spent[ROLLOUT]

    Rollouts.batch = timed_batch
    with tempfile.TemporaryDirectory() as folder:
        train_policy(config, folder=folder, watcher=TrainWatcher(on_step=on_step))
    parts = dict(watched.parts)
    for whole, seconds in spent.items() if shares else ():
        own = [found for part, found in parts.items() if part.startswith(whole)]
        parts[f"{whole}: all else"] = seconds - sum(own, Seconds())
    return {
        **counted,
        "seconds": spent,
        "parts": parts,
    }


def apart(name: str, args: argparse.Namespace, *, source: Path, shares: bool) -> dict[str, Any]:
    """`measure` in a process of its own, with the mem1 of a source folder."""
    command = [sys.executable, __file__, "--policy", str(args.policy), "--steps", str(args.steps)]
    command += ["--measure", name, *(["--shares"] if shares else [])]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    return orjson.loads(done.stdout.splitlines()[-1])


def speeds(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Tokens a second, by processor and clock: medians over processes. Of rollouts ahead, which
    overlap the update, the whole alone."""

    def median(tokens: Callable[[dict[str, Any]], float], *parts: str) -> dict[str, int]:
        return {
            kind: round(
                statistics.median(
                    tokens(one) / sum(one["seconds"][part][kind] for part in parts) for one in found
                )
            )
            for kind in ("cpu", "wall")
        }

    whole = {"whole": median(lambda one: one["sampled"] + one["trained"], ROLLOUT, UPDATE)}
    if not found[0]["seconds"][ROLLOUT]["wall"]:
        return whole
    return whole | {
        "rollout, sampled tokens": median(lambda one: one["sampled"], ROLLOUT),
        "update, tokens of rows": median(lambda one: one["trained"], UPDATE),
        "rollout seconds over update seconds": {
            kind: round(
                statistics.median(
                    one["seconds"][ROLLOUT][kind] / one["seconds"][UPDATE][kind] for one in found
                ),
                2,
            )
            for kind in ("cpu", "wall")
        },
    }


def compared(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Speed of this checkout and the other one, taking turns; shares of this one."""
    sources = {"here": ROOT / "src"} | ({"against": args.against} if args.against else {})
    found: dict[str, list[dict[str, Any]]] = {key: [] for key in sources}
    for _ in range(args.rounds):
        for key, source in sources.items():
            found[key].append(apart(name, args, source=source, shares=False))
    result: dict[str, Any] = {key: speeds(several) for key, several in found.items()}
    if args.against:
        result["here over against"] = {
            kind: round(result["here"]["whole"][kind] / result["against"]["whole"][kind], 2)
            for kind in ("cpu", "wall")
        }
    if AHEAD in name:
        return result
    watched = apart(name, args, source=ROOT / "src", shares=True)
    whole = {
        kind: sum(seconds[kind] for seconds in watched["seconds"].values())
        for kind in ("cpu", "wall")
    }
    result["shares in %"] = {
        part: {kind: round(100 * seconds[kind] / whole[kind], 1) for kind in whole}
        for part, seconds in sorted(watched["parts"].items(), key=lambda item: -item[1]["cpu"])
    }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", type=Path, default=ROOT / "data/ledger/internal_state")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="the src folder of another checkout")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/loop_profile.json")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--shares", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        found = measure(args.measure, policy=args.policy, steps=args.steps, shares=args.shares)
        print(orjson.dumps(found).decode())
        return
    result = {
        "command": " ".join(["python", *sys.argv]),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load": [round(load, 1) for load in os.getloadavg()],
        **{name: compared(name, args) for name in RUNS},
    }
    atomic_write(args.out, orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
    print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
