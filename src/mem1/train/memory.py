"""OUT OF MEMORY: which setting is too large, and what to set instead.

in a row of an update -> memory_advice, half of its tokens
elsewhere in a step   -> step_memory_advice, what else takes less
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from mem1.errors import TrainingError
from mem1.packing import PackedBatch
from mem1.train.config import TrainConfig


@contextmanager
def memory_advice(row: PackedBatch, *, config: TrainConfig) -> Iterator[None]:
    """Within the block a row is computed. Raises: TrainingError that names the settings if the GPU
    hasn't the memory.

    What a row takes beyond the weights grows with its tokens: half of one that took a little more
    than all there was fits.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        others = {
            "train.gradient_checkpointing = true": not config.gradient_checkpointing,
            "train.microbatch = 'branch'": config.microbatch != "branch",
            "a lower engine.prefix_cache_tokens": True,
            "more processes, each on a GPU": True,
        }
        raise TrainingError(
            f"out of memory at a row of {row.num_tokens} tokens, nothing was updated: set "
            f"train.row_tokens = {max(1, row.num_tokens // 2)} and start the run again, it learns "
            "the same. Where turns are longer than that, what helps is "
            f"{_listed(others)}; mem1 plan CONFIG tells what takes how much. ({error})"
        ) from error


@contextmanager
def step_memory_advice(config: TrainConfig) -> Iterator[None]:
    """Within the block a step is made. Raises: TrainingError that names the settings if there's
    too little memory beside its rows: for the optimizer's state, or for scores before the update.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        others = {
            f"train.row_tokens = {max(1, config.row_tokens // 2)}": True,
            "a lower engine.prefix_cache_tokens": True,
            "[train.lora], of which little trains": config.lora is None,
            "more processes, each on a GPU": True,
            "train.distributed.cpu_offload = true with them": not config.distributed.cpu_offload,
        }
        raise TrainingError(
            f"out of memory outside of the update's rows; start the run again, it goes on from its "
            f"newest checkpoint. What helps is {_listed(others)}; mem1 plan CONFIG tells what "
            f"takes how much, and what fits. ({error})"
        ) from error


def _listed(settings: Mapping[str, bool]) -> str:
    return ", ".join(name for name, helps in settings.items() if helps)
