"""Pieces of bytes as tokens."""

import pytest

from mem1.chat import ByteRenderer
from mem1.types import Message


def test_a_byte_is_a_token():
    assert ByteRenderer().encode("é!") == (0xC3, 0xA9, 0x21)


def test_wide_tokens_of_different_length_differ():
    wide = ByteRenderer(width=3)
    assert wide.encode("\0\0\0\0") == (0x01000000, 0x0100)
    assert wide.decode(wide.encode("\0\0\0\0")) == "\0\0\0\0"


@pytest.mark.parametrize("width", [1, 3])
def test_a_chat_is_lines_and_ends_where_the_assistant_begins(width):
    renderer = ByteRenderer(width=width)
    chat = [Message(role="system", content="Be brief."), Message(role="user", content="Hi")]
    assert renderer.decode(renderer.render(chat)) == "system: Be brief.\nuser: Hi\nassistant: "


def test_what_is_not_unicode_is_replaced():
    assert ByteRenderer().decode(ByteRenderer().encode("a\ud800")) == "a?"
    assert ByteRenderer().decode((0xC3,)) == "\ufffd"
