"""A WHOLE COPY OF THE WEIGHTS, for an engine that can't sample from those that train: they are in
parts, or change meanwhile.

It costs the memory of the model once more, in the model's own precision, and a copy for each step.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch

from mem1.train.policy import Policy
from mem1.train.shards import whole


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """A policy's model as of when it was last taken."""

    of: Any
    """The model that trains."""
    policy: Policy
    """The copy."""

    @classmethod
    def begin(cls, of: Any, *, device: torch.device) -> "Snapshot":
        """Of weights that aren't cut into parts yet."""
        copied = copy.deepcopy(of).requires_grad_(False).to(device)
        return cls(of=of, policy=Policy(model=copied.eval()))

    def take(self) -> None:
        """Copy the weights as they are now, rounded as the trainer rounds them; all processes at
        once, while nothing is sampled."""
        own = dict(self.policy.model.named_parameters())
        with torch.no_grad():
            for name, parameter in self.of.named_parameters():
                if parameter.requires_grad:
                    copied = own[name]
                    copied.copy_(whole(parameter.detach(), device=copied.device))
