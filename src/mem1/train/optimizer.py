"""GRADIENTS -> WEIGHTS: AdamW with a schedule, and fp32 copies of weights of lower precision.

loss.backward() of every row -> Optimizer.clip -> norm of the gradient -> Optimizer.step
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mem1.errors import TrainingError
from mem1.train.checkpoint import State, load_optimizer, optimizer_state
from mem1.train.config import OptimizerConfig
from mem1.train.shards import put, whole

_MASTER = "master."


class Optimizer:
    """AdamW over the parameters that train.

    A bfloat16 weight has 8 bits: a step of 1e-6 would round to nothing. So weights of less than
    float32 are kept a second time in float32, gradients are added up there, and each step is
    rounded to the model's weights.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        config: OptimizerConfig,
        total_steps: int,
        rounded: bool = False,
    ) -> None:
        """Args: `total_steps`, optimizer steps of the whole run, for the schedule; `rounded`, the
        model computes with roundings of the parameters, which thus are such copies themselves."""
        self._config = config
        self._rounded = rounded
        self._warmup_steps = config.warmup * total_steps
        self._cooldown_steps = config.cooldown * total_steps
        self._total_steps = total_steps
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._masters = [_master(parameter) for parameter in self._parameters]
        self._adam = torch.optim.AdamW(
            self._masters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
        )
        self._steps = 0

    def clip(self, *, batch: str) -> float:
        """Cut the gradients that were added up to the largest norm. Gives the norm before.

        Args: `batch`, its name for the message. Raises: TrainingError if the norm isn't finite.
        """
        found = nn.utils.clip_grad_norm_(self._masters, self._config.grad_clip)
        norm = float(whole(found, device=found.device))
        if not math.isfinite(norm):
            raise TrainingError(
                f"{batch}: the gradient is {norm}, nothing was updated: lower the learning rate, "
                "or look at this batch's trajectories"
            )
        return norm

    def step(self) -> None:
        """Apply the gradients, then clear them."""
        self._steps += 1
        for group in self._adam.param_groups:
            group["lr"] = self._config.lr * self._share()
        self._adam.step()
        with torch.no_grad():
            for parameter, master in zip(self._parameters, self._masters, strict=True):
                if master is not parameter:
                    parameter.copy_(master)
        self.clear()

    def _share(self) -> float:
        """Of the learning rate, at this step."""
        rising = self._steps / max(self._warmup_steps, 1.0)
        left = max(0.0, self._total_steps + 1 - self._steps)
        falling = left / self._cooldown_steps if self._cooldown_steps else 1.0
        return min(1.0, rising, falling)

    def clear(self) -> None:
        """Forget the gradients."""
        self._adam.zero_grad(set_to_none=True)
        for parameter in self._parameters:
            parameter.grad = None

    def state(self) -> State:
        """For a checkpoint."""
        state = optimizer_state(self._adam)
        masters = {
            f"{_MASTER}{index}": master.detach()
            for index, (parameter, master) in enumerate(
                zip(self._parameters, self._masters, strict=True)
            )
            if master is not parameter or self._rounded
        }
        info = {"steps": self._steps, "adam": state.info}
        return State(tensors={**state.tensors, **masters}, info=info)

    def load(self, state: State) -> None:
        """Go on from a checkpoint; the parameters themselves are loaded by their owner, before."""
        self._steps = state.info["steps"]
        load_optimizer(
            self._adam,
            state=State(tensors=state.tensors, info=state.info["adam"]),
            names=[name for name in state.tensors if not name.startswith(_MASTER)],
        )
        for index, master in enumerate(self._masters):
            if (stored := state.tensors.get(f"{_MASTER}{index}")) is not None:
                put(stored, into=master)


def _master(parameter: nn.Parameter) -> Tensor:
    """The weight that Adam steps: the parameter itself, or its copy in float32."""
    if parameter.dtype in (torch.float32, torch.float64):
        return parameter
    master = parameter.detach().float().requires_grad_()

    def add_up(parameter: Tensor) -> None:
        assert parameter.grad is not None
        grad = parameter.grad.float()
        master.grad = grad if master.grad is None else master.grad.add_(grad)
        parameter.grad = None

    parameter.register_post_accumulate_grad_hook(add_up)
    return master
