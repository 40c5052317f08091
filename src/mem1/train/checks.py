"""WHAT CAN'T BE TRAINED EXACTLY IS REFUSED, by name. Standard library only."""

from collections.abc import Sequence

from mem1.errors import DataError
from mem1.types import SamplingMode, Trajectory


def name_of(trajectory: Trajectory) -> str:
    """For messages."""
    return f"task {trajectory.task.id}, sample {trajectory.sample}"


def check_sampled(
    trajectories: Sequence[Trajectory], *, mode: SamplingMode, temperature: float
) -> None:
    """Raises: DataError for a trajectory whose token ids or log-probabilities aren't the engine's
    own, or that was sampled in another mode or at another temperature than this run's."""
    check_mode(trajectories, mode=mode)
    for trajectory in trajectories:
        if not trajectory.exact:
            raise DataError(
                f"{name_of(trajectory)}: its token ids or log-probabilities are not the engine's "
                "own, so what would be trained isn't what was run: use an engine that tells both"
            )
        for turn in trajectory.turns:
            if turn.completion.temperature != temperature:
                raise DataError(
                    f"{name_of(trajectory)} was sampled at temperature "
                    f"{turn.completion.temperature}, this run has sampling.temperature = "
                    f"{temperature}: sample it anew"
                )


def check_mode(trajectories: Sequence[Trajectory], *, mode: SamplingMode) -> None:
    """Raises: DataError for a trajectory that was sampled in another mode."""
    for trajectory in trajectories:
        if trajectory.mode != mode:
            raise DataError(
                f"{name_of(trajectory)} was sampled with mode = {trajectory.mode!r}, this run has "
                f"run.mode = {mode!r}: what the model saw isn't the same there"
            )


def check_vocabulary(trajectories: Sequence[Trajectory], *, size: int) -> None:
    """Raises: DataError for a token that a vocabulary of this size doesn't have."""
    for trajectory in trajectories:
        for turn in trajectory.turns:
            largest = max((*turn.prompt_ids, *turn.completion.token_ids), default=0)
            if largest >= size:
                raise DataError(
                    f"{name_of(trajectory)}: token {largest}, but the model's vocabulary has "
                    f"{size}: it was sampled with another tokenizer. Use that model, or write the "
                    "episode as a transcript, in text"
                )
