"""What every process of verl loads: VERL_USE_EXTERNAL_MODULES=mem1.adapters.verl.plugin.

Importing it registers the agent loop and the trainer mode `mem1`, which is how verl finds them.
Raises: VerlVersionError with another verl.
"""

from mem1.adapters.verl.version import check_verl

check_verl()

from mem1.adapters.verl.agent_loop import EpisodeLoop  # noqa: E402
from mem1.adapters.verl.trainer import TrajectoryTrainer  # noqa: E402

__all__ = ["EpisodeLoop", "TrajectoryTrainer"]
