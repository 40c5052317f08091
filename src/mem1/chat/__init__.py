"""MESSAGES <-> TOKEN IDS; the only room that tokenises. `mem1.chat.hf` is for real models."""

from mem1.chat.base import Renderer
from mem1.chat.bytes import ByteRenderer
from mem1.chat.segments import (
    ReplyParts,
    context_messages,
    observation_segment,
    split_reply,
    text_segment,
)

__all__ = [
    "ByteRenderer",
    "Renderer",
    "ReplyParts",
    "context_messages",
    "observation_segment",
    "split_reply",
    "text_segment",
]
