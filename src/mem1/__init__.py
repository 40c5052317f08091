"""mem1: LLM agents whose context never grows.

    mem1.ask("Who wrote Dracula?", config=mem1.load_config("configs/demo.toml"))

Names are imported when they're first used: `import mem1` itself loads next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mem1.api import ask, ask_async, evaluate, evaluate_async
    from mem1.config import RunConfig, load_config
    from mem1.context import Budget, ContextPolicy, Full, InternalState, Window
    from mem1.rollout import Agent, Job, collect, run_episode
    from mem1.training import train_policy
    from mem1.types import Objective, Sampling, Task, Trajectory

__all__ = [
    "Agent",
    "Budget",
    "ContextPolicy",
    "Full",
    "InternalState",
    "Job",
    "Objective",
    "RunConfig",
    "Sampling",
    "Task",
    "Trajectory",
    "Window",
    "ask",
    "ask_async",
    "collect",
    "evaluate",
    "evaluate_async",
    "load_config",
    "run_episode",
    "train_policy",
]

_HOMES = {
    "mem1.api": ("ask", "ask_async", "evaluate", "evaluate_async"),
    "mem1.config": ("RunConfig", "load_config"),
    "mem1.context": ("Budget", "ContextPolicy", "Full", "InternalState", "Window"),
    "mem1.rollout": ("Agent", "Job", "collect", "run_episode"),
    "mem1.training": ("train_policy",),
    "mem1.types": ("Objective", "Sampling", "Task", "Trajectory"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'mem1' has no attribute {name!r}")
