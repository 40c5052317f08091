"""TASK -> TRAJECTORY: the loop, many loops at once, and their record on disk."""

from mem1.rollout.collect import Job, collect
from mem1.rollout.episode import Agent, run_episode
from mem1.rollout.store import TrajectoryStore, latest, read_trajectories

__all__ = [
    "Agent",
    "Job",
    "TrajectoryStore",
    "collect",
    "latest",
    "read_trajectories",
    "run_episode",
]
