"""The tape: what stays where it is, what is evicted, what is computed anew."""

from mem1.carry import Tape
from mem1.types import Segment, SegmentKind


def shown(*ids: int, turn: int = 0) -> Segment:
    return Segment(kind=SegmentKind.OBSERVATION, turn=turn, token_ids=ids, text="")


def sampled(*ids: int, turn: int, start: int = 0) -> Segment:
    return Segment(kind=SegmentKind.ACTION, turn=turn, token_ids=ids, text="", start=start)


PROMPT = shown(1, 2)


def tape_after_one_turn() -> Tape:
    tape = Tape()
    assert tape.show((PROMPT,)) == ([], [1, 2])
    assert tape.append((3, 4, 5)) == range(2, 5)
    return tape


def test_what_is_not_in_the_next_context_is_evicted_before_anything_new():
    tape = tape_after_one_turn()
    assert tape.show((PROMPT, sampled(4, 5, turn=1, start=1), shown(6, turn=1))) == (
        [0, 1, 3, 4],
        [6],
    )
    assert tape.token_ids == [1, 2, 3, 4, 5, 6]
    assert tape.evicted_at == [None, None, 5, None, None, None]


def test_what_was_evicted_comes_back_as_something_new():
    tape = tape_after_one_turn()
    tape.show((PROMPT, shown(6, turn=1)))
    tape.append((7,))
    assert tape.show((PROMPT, sampled(3, 4, turn=1))) == ([0, 1], [3, 4])
    assert tape.token_ids == [1, 2, 3, 4, 5, 6, 7, 3, 4]
    assert tape.evicted_at == [None, None, 5, 5, 5, 7, 7, None, None]


def test_what_stands_behind_something_new_is_computed_anew_and_then_stays_there():
    tape = tape_after_one_turn()
    rewritten = shown(9, turn=1)
    context = (PROMPT, rewritten, sampled(5, turn=1, start=2))
    assert tape.show(context) == ([0, 1], [9, 5])
    tape.append((7,))
    assert tape.show((*context, shown(8, turn=2))) == ([0, 1, 5, 6], [8])


def test_what_changes_its_order_is_computed_anew():
    tape = tape_after_one_turn()
    assert tape.show((sampled(3, turn=1), PROMPT)) == ([2], [1, 2])
    assert tape.evicted_at == [5, 5, None, 5, 5, None, None]
