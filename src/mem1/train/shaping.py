"""TRAJECTORY -> WHAT IS LEARNED FROM: its reward, and what the run adds or takes off. Pure.

The stored trajectory keeps the reward of its task.
"""

from mem1.evals.memory import Mark, trace
from mem1.evals.metrics import generated_tokens
from mem1.tasks.facts import newest
from mem1.train.config import ShapingConfig
from mem1.types import Trajectory


def shaped(trajectory: Trajectory, *, config: ShapingConfig) -> float:
    """reward - length_penalty * sampled tokens / 1000 + process_reward * facts held at the end."""
    reward = trajectory.reward
    if config.length_penalty:
        reward -= config.length_penalty * generated_tokens(trajectory) / 1000
    if config.process_reward:
        reward += config.process_reward * facts_held(trajectory)
    return reward


def facts_held(trajectory: Trajectory) -> float:
    """Share of the facts that the answers hang on, one for each objective, which the last internal
    state holds (`mem1.evals.memory`): seen in the episode, right, and not out of date.

    0 without a turn, and of a task that knows no facts.
    """
    memory = trace(trajectory)
    needed = newest(memory.facts, range(len(memory.facts))).values()
    last = [memory.marks[number][-1:] for number in needed]
    return last.count((Mark.HELD,)) / len(last) if last else 0.0
