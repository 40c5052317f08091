"""WHICH REPLICA A REQUEST GOES TO: where most of its prompt is cached, unless that one is too busy.

    prompt_ids -> Routes.enter -> number of a replica ... Routes.leave

The turns of an episode, and the rollouts of a task, begin with the same prompt: they go where it
was computed. Servers cache whole blocks of tokens, each known by all tokens up to its end, and so
are they remembered here.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

_BLOCK = 16
"""Tokens of a block, as vLLM has it."""
_REMEMBERED = 65_536
"""Most blocks remembered of a replica, a million tokens."""
_SLACK = 8
"""How many requests more than the idlest replica one may have and still get those it has cached."""


class Routes:
    """Which replica has seen what, and how busy each is."""

    def __init__(self, count: int) -> None:
        self._seen = [OrderedDict[int, None]() for _ in range(count)]
        self._in_flight = [0] * count
        self._left = set(range(count))

    @property
    def left(self) -> frozenset[int]:
        """Replicas that weren't dropped."""
        return frozenset(self._left)

    @property
    def in_flight(self) -> int:
        return sum(self._in_flight)

    def enter(self, prompt_ids: Sequence[int]) -> int:
        """The replica that gets the request, which counts as busy with it until `leave`."""
        blocks = list(_blocks(prompt_ids))
        most = min(self._in_flight[number] for number in self._left) + _SLACK
        found = max(
            (number for number in sorted(self._left) if self._in_flight[number] <= most),
            key=lambda number: (self._cached(number, blocks), -self._in_flight[number]),
        )
        self._in_flight[found] += 1
        seen = self._seen[found]
        for block in blocks:
            seen[block] = None
            seen.move_to_end(block)
        while len(seen) > _REMEMBERED:
            seen.popitem(last=False)
        return found

    def leave(self, replica: int) -> None:
        self._in_flight[replica] -= 1

    def drop(self, replica: int) -> None:
        """The replica gets no more requests."""
        self._left.discard(replica)

    def forget(self) -> None:
        """The replicas' caches are empty."""
        for seen in self._seen:
            seen.clear()

    def _cached(self, replica: int, blocks: Sequence[int]) -> int:
        """How many of these blocks, from the first one on, the replica has."""
        seen = self._seen[replica]
        return next((n for n, block in enumerate(blocks) if block not in seen), len(blocks))


def _blocks(token_ids: Sequence[int]) -> Iterator[int]:
    """A number for each whole block, of all tokens up to its end."""
    known = 0
    for begin in range(0, len(token_ids) - _BLOCK + 1, _BLOCK):
        known = hash((known, *token_ids[begin : begin + _BLOCK]))
        yield known
