"""TRAJECTORY -> WHAT IS LEARNED FROM: its reward, and what the run adds or takes off. Pure.

The stored trajectory keeps the reward of its task.
"""

from mem1.evals.metrics import generated_tokens
from mem1.train.config import ShapingConfig
from mem1.types import Trajectory


def shaped(trajectory: Trajectory, *, config: ShapingConfig) -> float:
    """The reward minus `length_penalty` for every 1,000 sampled tokens."""
    return trajectory.reward - config.length_penalty * generated_tokens(trajectory) / 1000
