"""HOW TOKENS ARE SAMPLED. One Protocol; `local` and `openai` are imported when they're used."""

from mem1.engines.base import Codec, Engine, Request
from mem1.engines.scripted import ScriptedEngine

__all__ = ["Codec", "Engine", "Request", "ScriptedEngine"]
