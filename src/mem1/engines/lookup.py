"""WHAT A TEXT MAY GO ON WITH, guessed from the text itself.

    token ids -> Lookup.append -> Lookup.guess -> the tokens that followed its last two before

An agent that rewrites its notes copies most of them. What is guessed is computed in the same pass
as the next token and kept as far as it's what was sampled, so a guess costs or saves time and
changes nothing. Source: prompt lookup decoding (Saxena 2023), after speculative decoding (Leviathan
et al. 2023, arXiv 2211.17192).
"""

from collections.abc import Iterable

FIRST_REACH = 2
"""Tokens of the first guess; it doubles where all were right, and falls to one more than were."""


class Lookup:
    """A text that grows by its end.

    >>> text = Lookup([5, 6, 7, 8, 5, 6], most=4)
    >>> text.guess()
    (7, 8)
    """

    def __init__(self, token_ids: Iterable[int], *, most: int) -> None:
        """Args: `most`, tokens of a guess."""
        self._most, self._reach = most, min(FIRST_REACH, most)
        self._ids: list[int] = []
        self._after: dict[tuple[int, int], int] = {}
        """Where the text went on after a pair of tokens, the last time before its end."""
        self._pair: tuple[int, int] | None = None
        for token in token_ids:
            self.append(token)

    def append(self, token: int) -> None:
        ids = self._ids
        if self._pair is not None:
            self._after[self._pair] = len(ids)
        self._pair = (ids[-1], token) if ids else None
        ids.append(token)

    def guess(self) -> tuple[int, ...]:
        """What may come next; nothing if its last two tokens never stood together before."""
        start = self._after.get(self._pair) if self._pair else None
        return () if start is None else tuple(self._ids[start : start + self._reach])

    def learn(self, *, guessed: int, right: int) -> None:
        """How many tokens of the last guess were right decides how long the next one is."""
        if guessed:
            reach = 2 * self._reach if right == guessed else right + 1
            self._reach = min(reach, self._most)
