"""What the demo begins with: policies of random weights imitate an imperfect expert.

    OMP_NUM_THREADS=1 python benchmarks/warm_start.py [internal_state] [full]
      -> runs/warm_start/            as  mem1 train configs/learn_start.toml  leaves them
      -> data/ledger/internal_state  a third of a million parameters, 1.4 MB, an ordinary folder
      -> data/ledger/full            the same, of demonstrations under full context

Copying is learned late and suddenly, so short tasks come first: their steps cost a fifth. It goes
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
SHORT = ("tasks.num_objectives=[1, 2, 3]", "train.steps=800", "train.optimizer.cooldown=0")
ROUNDS = 3
"""Of tasks of all lengths; the learning rate falls at the end of each."""
SIZE = {"hidden": 96, "layers": 3, "heads": 3, "window": 4096}


def warm_start(context: str, *, folder: Path, overrides: tuple[str, ...] = ()) -> Path:
    """Train one. Gives the policy's folder."""
    base = folder / "base"
    if not base.exists():
        make_tiny(base, seed=0, **SIZE)
    policy = imitate(context, base, folder=folder / f"{context}-short", overrides=SHORT + overrides)
    for seed in range(ROUNDS):
        again = (f"train.seed={seed}", *overrides)
        policy = imitate(context, policy, folder=folder / f"{context}-{seed}", overrides=again)
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
