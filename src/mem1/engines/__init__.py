"""HOW TOKENS ARE SAMPLED. One Protocol; those that need more are imported when used."""

from mem1.engines.base import Carry, Codec, Engine, Request, carrying
from mem1.engines.scripted import ScriptedEngine

__all__ = ["Carry", "Codec", "Engine", "Request", "ScriptedEngine", "carrying"]
