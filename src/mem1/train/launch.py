"""WHO TORCHRUN SAYS WE ARE. Standard library only: asked before anything is loaded."""

import os


def team_size() -> int:
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this is the process that writes and shows; the only one is."""
    return team_size() == 1 or os.environ.get("RANK") == "0"
