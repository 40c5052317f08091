"""The seam between text and token ids; nothing outside `mem1.chat` tokenises.

messages -> render -> ids up to where the assistant begins
text     -> encode -> ids;   ids -> decode -> text
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from mem1.types import Message


@runtime_checkable
class Renderer(Protocol):
    """Turns messages and text into token ids and back."""

    def render(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of the chat up to the point where the assistant's turn begins, special tokens
        included. What messages hold of special tokens is encoded as plain text."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of plain text: no special token is added, none is produced by what the text says."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of ids, special tokens written out, no clean-up of blanks."""
        ...
