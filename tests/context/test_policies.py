"""What each policy keeps, and how much that can be."""

import pytest

from mem1.context import (
    Budget,
    ClosedBook,
    Full,
    InternalState,
    LastObservation,
    Parts,
    Window,
    check_window,
)
from mem1.errors import BudgetError, ConfigError
from mem1.types import Context, Segment, SegmentKind

BUDGET = Budget(prompt=100, internal_state=50, action=10, observation=80)


def segment(kind: SegmentKind, turn: int, text: str) -> Segment:
    return Segment(kind=kind, turn=turn, token_ids=tuple(text.encode()), text=text)


def parts(turn: int, *, state: bool = True, action: bool = True) -> Parts:
    return Parts(
        reply=segment(SegmentKind.REPLY, turn, f"s{turn}a{turn}"),
        internal_state=segment(SegmentKind.INTERNAL_STATE, turn, f"s{turn}") if state else None,
        action=segment(SegmentKind.ACTION, turn, f"a{turn}") if action else None,
        observation=segment(SegmentKind.OBSERVATION, turn, f"o{turn}"),
        hint=segment(SegmentKind.HINT, turn, f"h{turn}"),
    )


PROMPT: Context = (segment(SegmentKind.PROMPT, 0, "p"),)


def seen(context: Context) -> str:
    return " ".join(s.text for s in context)


def test_internal_state_keeps_only_the_last_turn():
    context = InternalState().update(PROMPT, parts(1))
    assert seen(context) == "p s1 a1 o1 h1"
    assert seen(InternalState().update(context, parts(2))) == "p s2 a2 o2 h2"


def test_a_missing_state_keeps_the_old_one():
    context = InternalState().update(PROMPT, parts(1))
    context = InternalState().update(context, parts(2, state=False))
    assert seen(context) == "p s1 a2 o2 h2"
    assert seen(InternalState().update(context, parts(3, state=False))) == "p s1 a3 o3 h3"


def test_a_missing_action_leaves_no_old_action_behind():
    context = InternalState().update(PROMPT, parts(1))
    assert seen(InternalState().update(context, parts(2, action=False))) == "p s2 o2 h2"


def test_full_keeps_everything():
    context = Full().update(Full().update(PROMPT, parts(1)), parts(2, state=False))
    assert seen(context) == "p s1a1 o1 h1 s2a2 o2 h2"


def test_window_keeps_the_last_k_turns_whole():
    context = PROMPT
    for turn in (1, 2, 3):
        context = Window(k=2).update(context, parts(turn))
    assert seen(context) == "p s2a2 o2 h2 s3a3 o3 h3"


def test_last_observation_keeps_no_state():
    context = LastObservation().update(PROMPT, parts(1))
    assert seen(context) == "p a1 o1 h1"
    assert seen(LastObservation().update(context, parts(2, action=False))) == "p o2 h2"


def test_closed_book_shows_no_observation():
    context = ClosedBook().update(PROMPT, parts(1))
    assert seen(context) == "p s1 a1 h1"
    assert seen(ClosedBook().update(context, parts(2, state=False))) == "p s1 a2 h2"


def test_bounds_follow_from_the_caps():
    assert InternalState().bound(BUDGET) == 100 + (50 + 10 + 80) + (50 + 10)
    assert Window(k=2).bound(BUDGET) == 100 + 2 * (50 + 10 + 80) + (50 + 10)
    assert LastObservation().bound(BUDGET) == 100 + (10 + 80) + (50 + 10)
    assert ClosedBook().bound(BUDGET) == InternalState().bound(BUDGET)
    assert Full().bound(BUDGET) is None


def test_caps_that_do_not_fit_the_window_are_refused():
    assert check_window(InternalState(), budget=BUDGET, window=300) == 300
    with pytest.raises(BudgetError, match=r"needs up to 300 tokens.*window is 299"):
        check_window(InternalState(), budget=BUDGET, window=299)
    with pytest.raises(BudgetError, match=r"needs up to 160 tokens.*window is 159"):
        check_window(Full(), budget=BUDGET, window=159)


def test_senseless_caps_are_refused_by_name():
    with pytest.raises(BudgetError, match=r"budget\.action is 0"):
        Budget(action=0)
    with pytest.raises(ConfigError, match="window k is 0"):
        Window(k=0)
