"""A tokenizer without a vocabulary: fixed-width pieces of UTF-8.

Width 1 is the byte tokenizer of tests. Width 3 stands in for the unknown tokenizer of a hosted
model: English has 4 to 5 bytes a token, so its counts are estimates on the safe side.
"""

from collections.abc import Sequence

from mem1.types import Message


class ByteRenderer:
    """Renders chats as `role: content` lines and text as pieces of `width` bytes.

    >>> ByteRenderer().encode("hi")
    (104, 105)
    """

    def __init__(self, *, width: int = 1) -> None:
        self._width = width

    def render(self, messages: Sequence[Message]) -> tuple[int, ...]:
        chat = "".join(f"{message.role}: {message.content}\n" for message in messages)
        return self.encode(chat + "assistant: ")

    def encode(self, text: str) -> tuple[int, ...]:
        data, width = text.encode("utf-8", "replace"), self._width
        if width == 1:
            return tuple(data)
        # A leading 1 keeps pieces of different length apart.
        return tuple(
            int.from_bytes(b"\x01" + data[i : i + width]) for i in range(0, len(data), width)
        )

    def decode(self, token_ids: Sequence[int]) -> str:
        if self._width == 1:
            return bytes(token_ids).decode("utf-8", "replace")
        pieces = (token.to_bytes((token.bit_length() + 7) // 8)[1:] for token in token_ids)
        return b"".join(pieces).decode("utf-8", "replace")
