"""OUT OF MEMORY: which setting is too large, and what to set instead."""

from collections.abc import Iterator
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
            f"{', '.join(name for name, helps in others.items() if helps)}. ({error})"
        ) from error
