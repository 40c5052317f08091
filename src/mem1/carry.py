"""EACH TOKEN ONCE: which keys and values stay from turn to turn when nothing is encoded anew.

    Tape.show(context) -> what of the past stays, and what is new     (the engine evicts the rest)
    Tape.append(sampled ids)

A tape holds every token of an episode in the order in which the model computed it; its place there
is its position for good. Rollout and packing walk the same tape: what is trained is what was run.

What a context puts behind something new was computed without it: it's evicted, and computed anew.
"""

from dataclasses import dataclass, field

import numpy as np

from mem1.types import Context, Segment


@dataclass(slots=True, kw_only=True, eq=False)
class Tape:
    """All tokens of an episode, and when each was evicted."""

    token_ids: list[int] = field(default_factory=list[int])
    evicted_at: list[int | None] = field(default_factory=list["int | None"])
    """Place of the first token that doesn't see this one any more; None: seen to the end."""
    _shown: dict[Segment, range] = field(default_factory=dict[Segment, range])
    _replies: list[int] = field(default_factory=list[int])
    """Where each turn's reply begins."""

    def show(self, context: Context) -> tuple[list[int], list[int]]:
        """Evict what a context no longer holds and append what is new in it.

        Gives the places of what stays, ascending, and the new ids behind it: together the context.
        """
        kept: list[int] = []
        new: list[Segment] = []
        for segment in context:
            places = self._places(segment)
            if places is None or new or (kept and places and places[0] <= kept[-1]):
                new.append(segment)
            else:
                kept.extend(places)
        self._evict(kept)
        begin = len(self.token_ids)
        for segment in new:
            self._shown[segment] = self._extend(segment.token_ids)
        return kept, self.token_ids[begin:]

    def append(self, sampled_ids: tuple[int, ...]) -> range:
        """Append a turn's reply. Gives its places."""
        self._replies.append(len(self.token_ids))
        return self._extend(sampled_ids)

    def _places(self, segment: Segment) -> range | None:
        """Where a segment's tokens are; None if the model hasn't seen them or they're evicted."""
        places = self._shown.get(segment)
        if places is None and segment.start is not None:
            begin = self._replies[segment.turn - 1] + segment.start
            places = range(begin, begin + len(segment.token_ids))
        gone = places is None or any(self.evicted_at[place] is not None for place in places)
        return None if gone else places

    def _evict(self, kept: list[int]) -> None:
        staying = set(kept)
        for place, evicted_at in enumerate(self.evicted_at):
            if evicted_at is None and place not in staying:
                self.evicted_at[place] = len(self.token_ids)

    def _extend(self, token_ids: tuple[int, ...]) -> range:
        begin = len(self.token_ids)
        self.token_ids.extend(token_ids)
        self.evicted_at.extend([None] * len(token_ids))
        return range(begin, len(self.token_ids))


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """How many tokens two sequences of ids have in common at their beginning."""
    size = min(len(a), len(b))
    different = a[:size] != b[:size]
    at = int(different.argmax()) if size else 0
    return at if size and different[at] else size
