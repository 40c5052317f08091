"""What the demo begins with: policies of random weights imitate an imperfect expert.

    OMP_NUM_THREADS=1 python benchmarks/warm_start.py [internal_state] [full]
      -> runs/warm_start/            as  mem1 train configs/learn_start.toml  leaves them
      -> data/ledger/internal_state  a third of a million parameters, 1.4 MB, an ordinary folder
      -> data/ledger/full            the same, of demonstrations under full context

Copying is learned late and suddenly, so what is short comes first: its steps cost a fifth. It goes
on where it was stopped. Two cores make the two at once: give each its own command.
"""

import argparse
import shutil
from pathlib import Path

import mem1
from mem1.console import TrainProgress
from mem1.train.tiny import make_tiny
from mem1.training import TrainWatcher, train_policy

ROOT = Path(__file__).parent.parent
CONTEXTS = ("internal_state", "full")
_HASTY = ("train.data.expert.early_answer=0.9", "train.data.expert.flawless=0.2")
"""Of an expert who rarely comes to long notes."""
_MIXED = ("tasks.num_objectives=[1, 2, 3, 4, 6, 8, 12, 16]", "train.steps=1600", *_HASTY)
STAGES: dict[str, tuple[str, ...]] = {
    "short": (
        "tasks.num_objectives=[1, 2, 3]",
        "train.steps=1200",
        "train.optimizer.cooldown=0",
        *_HASTY,
    ),
    "mixed-1": (*_MIXED, "train.seed=0"),
    "mixed-2": (*_MIXED, "train.seed=1"),
    "long-1": ("train.seed=3",),
    "long-2": ("train.seed=4",),
}
"""What changes in configs/learn_start.toml. The learning rate falls at the end of all but the
first."""
SIZE = {"hidden": 96, "layers": 3, "heads": 3, "window": 4096}


def warm_start(context: str, *, folder: Path, overrides: tuple[str, ...] = ()) -> Path:
    """Train one. Gives the policy's folder."""
    base = folder / "base"
    if not base.exists():
        make_tiny(base, seed=0, **SIZE)
    policy = base
    for stage, changes in STAGES.items():
        place = folder / f"{context}-{stage}"
        policy = imitate(context, policy, folder=place, overrides=(*changes, *overrides))
    return policy


def imitate(context: str, model: Path, *, folder: Path, overrides: tuple[str, ...]) -> Path:
    config = mem1.load_config(
        ROOT / "configs/learn_start.toml",
        overrides=[f"engine.model={model}", f'context.policies=["{context}"]', *overrides],
    )
    assert config.train is not None
    with TrainProgress(num_steps=config.train.steps) as progress:
        watcher = TrainWatcher(on_step=progress.step, on_done=progress.episode, warn=progress.warn)
        return train_policy(config, folder=folder, watcher=watcher)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contexts", nargs="*", choices=[[], *CONTEXTS], default=CONTEXTS)
    for context in parser.parse_args().contexts:
        policy = warm_start(context, folder=Path("runs/warm_start"))
        shipped = ROOT / "data/ledger" / context
        shutil.rmtree(shipped, ignore_errors=True)
        shutil.copytree(policy, shipped)
        print(f"{context}: {shipped}")


if __name__ == "__main__":
    main()
