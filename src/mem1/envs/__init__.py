"""THE WORLD: action -> observation, done."""

from mem1.envs.base import Env, Observation
from mem1.envs.qa import QAEnv

__all__ = ["Env", "Observation", "QAEnv"]
