"""THE STORY OF A RUN: collect -> learn -> log -> evaluate -> save, step by step.

Run(folder, learner, source) -> train -> folder/policy, an ordinary Hugging Face folder

runs/demo/config.toml       what it was started with
runs/demo/metrics.jsonl     one line for each step
runs/demo/checkpoints/      what it goes on from when it's started again
runs/demo/rollouts/         the trajectories of each step
runs/demo/advantages/       how good each of their sampled tokens was found
runs/demo/validation/       those of the held-out tasks
runs/demo/policy/           the trained model
"""

import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np
import torch

from mem1.evals.metrics import measure
from mem1.rollout.advantages import ADVANTAGES, write_advantages
from mem1.train.checkpoint import (
    Checkpoint,
    State,
    best_checkpoint,
    latest_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
)
from mem1.train.config import ShapingConfig
from mem1.train.curriculum import Level, Place, moved
from mem1.train.experience import gather
from mem1.train.logbook import Logbook
from mem1.train.memory import step_memory_advice
from mem1.train.sources import Source, step_file
from mem1.train.update import Learner, imitate, learn
from mem1.types import Trajectory

CHECKPOINTS, POLICY, BEST_POLICY = "checkpoints", "policy", "policy-best"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """What a run is made of."""

    folder: Path
    learner: Learner
    source: Source
    levels: Sequence[Level]
    """The easiest first; held-out tasks are played at the last one, which the run is for."""
    export: Callable[[Path], None]
    """Writes the policy as it is into a folder, with its tokenizer."""
    forget_computed: Callable[[], None]
    """Tells the sampling engine, which shares the weights, to forget what it computed with them;
    where it has a copy, brings that up to date."""
    on_step: Callable[[int, Mapping[str, float]], None]
    """Told of every step's metrics."""
    warn: Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class _Progress:
    """How far a run is."""

    step: int = 0
    """Steps whose updates are whole and logged."""
    saved: int = 0
    place: Place = field(default_factory=Place)
    """Where in the curriculum the next step is."""
    best: float | None = None
    """Best reward on held-out tasks."""
    updating: bool = False
    """Whether the weights are between two steps."""


def train(run: Run) -> Path:
    """Train until the steps of the config are done; goes on where an earlier run ended.

    Gives the folder of the trained policy. An interrupt, or an engine that fails, saves the steps
    that are whole. Raises: TrainingError for a loss or gradient that isn't finite; the checkpoint
    before stays the newest.
    """
    config, team = run.learner.config, run.learner.team
    progress = _resume(run)
    last_step = progress.step if progress else None
    with (
        Logbook(run.folder, last_step=last_step, sinks=config.loggers)
        if team.is_first
        else nullcontext()
    ) as logbook:
        progress = progress or _begin(run, logbook)
        try:
            while progress.step < config.steps:
                with step_memory_advice(config):
                    _advance(run, progress, logbook)
        except BaseException:
            # Several processes save all at once or not at all, and one of them may be lost.
            if not progress.updating and progress.step > progress.saved and team.size == 1:
                _save(run, progress, is_best=False)
            raise
    return _export(run)


def _begin(run: Run, logbook: Logbook | None) -> _Progress:
    """Evaluate the policy as it came."""
    _forget_after(run, step=0)
    metrics = _validate(run, step=0) if run.learner.config.eval_every else {}
    if metrics:
        _tell(run, metrics, step=0, logbook=logbook)
    return _Progress(best=metrics.get("validation/reward"))


def _tell(run: Run, metrics: Mapping[str, float], *, step: int, logbook: Logbook | None) -> None:
    """Args: `logbook`, None for all processes but the first."""
    if logbook is not None:
        logbook.write(metrics, step=step)
        run.on_step(step, metrics)


def _advance(run: Run, progress: _Progress, logbook: Logbook | None) -> None:
    """Make one step."""
    config, step = run.learner.config, progress.step + 1
    started = time.perf_counter()
    trajectories = run.source.batch(step, level=run.levels[progress.place.level])
    metrics = {
        **summary(trajectories),
        **({"level": progress.place.level + 1.0} if config.curriculum else {}),
        "num_dropped": float(config.batch_size * config.group_size - len(trajectories)),
        "collect_s": time.perf_counter() - started,
    }
    # Half an update is no state to save: an interrupt waits for its end.
    with _finished_first():
        progress.updating = True
        metrics |= _improve(run, trajectories, step=step)
        if _due(step, every=config.eval_every, last=config.steps):
            metrics |= _validate(run, step=step)
        _tell(run, metrics, step=step, logbook=logbook)
        progress.place = moved(
            progress.place,
            score=metrics.get("em_per_objective", metrics["reward"]),
            config=config.curriculum,
            num_levels=len(run.levels),
        )
        progress.step, progress.updating = step, False
        reward = metrics.get("validation/reward")
        is_best = reward is not None and (progress.best is None or reward > progress.best)
        progress.best = reward if is_best else progress.best
        if is_best or _due(step, every=config.save_every, last=config.steps):
            _save(run, progress, is_best=is_best)


def _improve(run: Run, trajectories: Sequence[Trajectory], *, step: int) -> dict[str, float]:
    """Learn from a batch. Gives the metrics of the updates."""
    learner, name, started = run.learner, f"step {step}", time.perf_counter()
    if learner.config.algorithm == "sft":
        learned = imitate(learner, trajectories, name=name)
    else:
        experience = gather(
            trajectories, policy=learner.policy, config=learner.config, team=learner.team
        )
        if learner.team.is_first:
            write_advantages(
                run.folder / ADVANTAGES / step_file(step),
                trajectories,
                advantages=experience.advantages_T.tolist(),
            )
        learned = learn(learner, experience, name=name)
        if learner.config.shaping != ShapingConfig():
            learned["shaped_reward"] = float(experience.rewards_B.mean())
    run.forget_computed()
    took = {
        "learn_s": time.perf_counter() - started,
        "peak_memory_gib": _peak_memory_bytes() / 2**30,
    }
    return {**learned, **learner.team.most(took)}


def _peak_memory_bytes() -> int:
    """Most memory the run has had so far: of the GPU if there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _validate(run: Run, *, step: int) -> dict[str, float]:
    trajectories = run.source.validate(step, level=run.levels[-1])
    # A run that goes on after this step hasn't computed any of it.
    run.forget_computed()
    found = summary(trajectories) if trajectories else {}
    return {f"validation/{name}": value for name, value in found.items()}


def summary(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Means over trajectories: reward, its deviation, and the figures of `mem1.evals.metrics`."""
    rewards = [trajectory.reward for trajectory in trajectories]
    sizes = [len(trajectory.task.objectives) for trajectory in trajectories]
    rows = [measure(trajectory) for trajectory in trajectories]
    names = ("em", "f1", "valid_turns", "answer_rate", "num_turns", "peak_tokens")
    means = {name: float(np.mean([row[name] for row in rows])) for name in names if name in rows[0]}
    each = [row["em"] / size for row, size in zip(rows, sizes, strict=True) if "em" in row]
    return {
        "reward": float(np.mean(rewards)),
        "reward_std": float(np.std(rewards)),
        **({"em_per_objective": float(np.mean(each))} if each else {}),
        "num_objectives": float(np.mean(sizes)),
        "num_trajectories": float(len(trajectories)),
        "generated_tokens": sum(row["generated_tokens"] for row in rows),
        **means,
    }


def _due(step: int, *, every: int | None, last: int) -> bool:
    return every is not None and (step % every == 0 or step == last)


def _save(run: Run, progress: _Progress, *, is_best: bool) -> None:
    learner = run.learner
    parts = learner.policy.parts() | {
        "optimizer": learner.optimizer.state(),
        "rng": rng_state(),
        "run": State(info={"best": progress.best}),
    }
    if learner.critic_optimizer:
        parts["critic_optimizer"] = learner.critic_optimizer.state()
    if learner.config.curriculum:
        parts["curriculum"] = State(info=asdict(progress.place))
    save_checkpoint(
        run.folder / CHECKPOINTS,
        checkpoint=Checkpoint(step=progress.step, parts=parts),
        keep_last=learner.config.keep_last,
        best=is_best,
        team=learner.team,
    )
    progress.saved = progress.step


def _resume(run: Run) -> _Progress | None:
    """Load the newest whole checkpoint; None if there is none.

    A step's tasks and seeds follow from its number; a user's own reward may draw from elsewhere.
    """
    found = latest_checkpoint(run.folder / CHECKPOINTS, warn=run.warn)
    if found is None:
        return None
    learner, parts = run.learner, found.parts
    learner.policy.load_parts(parts)
    learner.optimizer.load(parts["optimizer"])
    if learner.critic_optimizer:
        learner.critic_optimizer.load(parts["critic_optimizer"])
    set_rng_state(parts["rng"])
    run.forget_computed()
    _forget_after(run, step=found.step)
    place = Place.read(parts["curriculum"].info) if learner.config.curriculum else Place()
    best = parts["run"].info["best"]
    return _Progress(step=found.step, saved=found.step, place=place, best=best)


def _forget_after(run: Run, *, step: int) -> None:
    """Delete what the run has stored of the steps that it makes anew."""
    run.source.forget_after(step)
    if not run.learner.team.is_first:
        return
    for path in (run.folder / ADVANTAGES).glob("step-*.jsonl"):
        if path.name > step_file(step):
            path.unlink()


def _export(run: Run) -> Path:
    """Write the last policy, and the best one beside it if there were evaluations."""
    run.export(run.folder / POLICY)
    if run.learner.config.eval_every:
        best = best_checkpoint(run.folder / CHECKPOINTS, warn=run.warn)
        if best is not None:
            run.learner.policy.load_parts(best.parts)
            run.export(run.folder / BEST_POLICY)
    return run.folder / POLICY


@contextmanager
def _finished_first() -> Iterator[None]:
    """Ctrl-C within the block takes effect at its end; a second one at once."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # No other thread is ever interrupted, and no job in a shell's background.
        yield
        return
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
