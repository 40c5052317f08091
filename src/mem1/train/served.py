"""The policy's weights for servers that sample from them, as `mem1.engines.vllm.Weights`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mem1.train.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PolicyWeights:
    """Always those of this moment."""

    policy: Policy

    def write(self, folder: Path) -> None:
        self.policy.export(folder)

    def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """Of all tokens but the first, by the model's own code; shape (num_tokens - 1,)."""
        model: Any = self.policy.sampled_model
        ids = torch.tensor([token_ids], device=model.device)
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        told = logits.to(self.policy.loss_dtype).log_softmax(-1)
        return told.gather(1, ids[0, 1:, None])[:, 0].tolist()
