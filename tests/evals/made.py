"""Trajectories made by hand: a token is any number, what counts is how many there are."""

from mem1.types import (
    Completion,
    Fault,
    Objective,
    Segment,
    SegmentKind,
    StopReason,
    Task,
    Trajectory,
    Turn,
)


def task(*golds: str, name: str = "t") -> Task:
    objectives = tuple(Objective(question="q?", answers=(gold,)) for gold in golds)
    return Task(id=name, objectives=objectives)


def turn(*, prompt: int, kept: int = 0, sampled: int, fault: bool = False, exact: bool = True):
    """A turn with so many tokens of task prompt, of anything else, and sampled ones."""
    sizes = [(SegmentKind.PROMPT, prompt), (SegmentKind.OBSERVATION, kept)]
    return Turn(
        context=tuple(
            Segment(kind=kind, turn=0, token_ids=(7,) * size, text="") for kind, size in sizes
        ),
        completion=Completion(
            token_ids=(7,) * sampled,
            logprobs=(-1.0,) * sampled if exact else None,
            temperature=1.0,
            text="",
            finish_reason="stop",
        ),
        action=None,
        faults=(Fault.NO_ACTION,) if fault else (),
        observation=None,
        engine_s=1.0,
        env_s=0.0,
    )


TURNS = (turn(prompt=10, sampled=4), turn(prompt=10, kept=6, sampled=3, fault=True))


def trajectory(
    asked: Task | None = None,
    *,
    answer: str | None = "Paris",
    turns: tuple[Turn, ...] = TURNS,
    policy: str = "full",
    stop_reason: StopReason | None = None,
    bound: int | None = None,
) -> Trajectory:
    return Trajectory(
        task=asked or task("Paris"),
        sample=0,
        context_policy=policy,
        turns=turns,
        stop_reason=stop_reason or (StopReason.ANSWERED if answer else StopReason.MAX_TURNS),
        answer=answer,
        reward=0.0,
        reward_parts={},
        bound=bound,
        seconds=2.5,
    )
