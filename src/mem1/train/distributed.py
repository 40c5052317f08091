"""A POLICY CUT INTO PARTS, one for each process: FSDP2.

    Policy of one process, on the CPU -> shard -> ShardedPolicy

Each process holds its part of the weights that train, in float32 at least, of their gradients and
of the optimizer's state. A layer's weights are gathered, rounded to the model's precision, when it
computes, and dropped behind it; gradients are added up over the processes in float32.

Episodes aren't sampled from parts: processes sample at their own pace, and to gather weights is for
all at once. The engine has a `Snapshot`, in the model's own precision: the numbers that the trainer
computes with.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from transformers import PreTrainedModel

from mem1.packing import PackedBatch
from mem1.train.config import TrainConfig
from mem1.train.policy import Policy, load_policy
from mem1.train.scoring import Scores, score, values
from mem1.train.snapshot import Snapshot
from mem1.train.team import Team


class _Gathered(nn.Module):
    """Runs any function of some modules with the weights that stand outside of layers in place."""

    def __init__(self, *parts: nn.Module | None) -> None:
        super().__init__()
        self.parts = nn.ModuleList([part for part in parts if part is not None])

    def forward(self, compute: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        return compute()


@dataclass(slots=True, kw_only=True, eq=False)
class ShardedPolicy(Policy):
    """A policy of which each process has a part; what it computes, all do at once."""

    team: Team
    snapshot: Snapshot
    _gathered: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def device(self) -> torch.device:
        assert self.team.device is not None
        return self.team.device

    @property
    def sampled_model(self) -> PreTrainedModel:
        return self.snapshot.policy.sampled_model

    def score(self, row: PackedBatch, *, temperature_T: Tensor) -> Scores:
        head = self.value_head if self.critic is None else None

        def compute() -> tuple[Tensor, ...]:
            found = score(self.model, row, temperature_T=temperature_T, value_head=head)
            told = (found.logprobs_T, found.entropy_T, found.values_T)
            # Copies: FSDP2 warns of views, which it can't watch.
            return tuple(tensor.clone() for tensor in told if tensor is not None)

        logprobs_T, entropy_T, *rest = self._run("policy", compute)
        if self.critic is not None:
            rest = [self.values(row)]
        values_T = rest[0] if rest else None
        return Scores(logprobs_T=logprobs_T, entropy_T=entropy_T, values_T=values_T)

    def values(self, row: PackedBatch) -> Tensor:
        head, model = self.value_head, self.critic or self.model
        assert head is not None
        name = "critic" if self.critic is not None else "policy"
        (values_T,) = self._run(name, lambda: (values(model, row, value_head=head).clone(),))
        return values_T

    def ref_logprobs(self, row: PackedBatch, *, temperature_T: Tensor) -> Tensor:
        def compute() -> tuple[Tensor, ...]:
            return (Policy.ref_logprobs(self, row, temperature_T=temperature_T),)

        (logprobs_T,) = self._run("policy" if self.reference is None else "reference", compute)
        return logprobs_T

    def export(self, folder: Path) -> None:
        """Called by all; the first process writes."""
        self.snapshot.take()
        if self.team.is_first:
            self.snapshot.policy.export(folder)

    def _run(self, name: str, compute: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        module = self._gathered[name]
        found = module(compute)
        if not torch.is_grad_enabled():
            # No backward pass comes that would drop what was gathered.
            module.reshard()
        return found


def load_sharded(
    path: Path, *, config: TrainConfig, dtype: str | None, team: Team
) -> ShardedPolicy:
    """As `load_policy`, a part for each process of a team; each reads it all first."""
    assert team.device is not None
    dtype = dtype or ("bfloat16" if team.device.type == "cuda" else "float32")
    policy = load_policy(path, config=config, device="cpu", dtype=dtype)
    return shard(policy, team=team, cpu_offload=config.distributed.cpu_offload)


def shard(policy: Policy, *, team: Team, cpu_offload: bool) -> ShardedPolicy:
    """Cut a policy of whole models on the CPU into parts, in place; all processes at once.

    Args: `cpu_offload`, keep the parts, and so gradients and optimizer, in the machine's memory.
    """
    assert team.device is not None
    computes_in = policy.model.dtype
    snapshot = Snapshot.begin(policy.model, device=team.device)
    cut = _Cut(team=team, cpu_offload=cpu_offload)
    adapted = hasattr(policy.model, "get_base_model")
    # Adapters of float32 on layers of bfloat16 compute in float32, and so does the sampler.
    kind = None if adapted else computes_in
    shared_head = policy.value_head if policy.critic is None else None
    gathered = {"policy": cut.model(policy.model, head=shared_head, computes_in=kind)}
    if policy.critic is not None:
        head = policy.value_head
        gathered["critic"] = cut.model(policy.critic, head=head, computes_in=computes_in)
    if policy.reference is not None:
        gathered["reference"] = cut.model(policy.reference, head=None, computes_in=None)
    return ShardedPolicy(
        model=policy.model,
        value_head=policy.value_head,
        critic=policy.critic,
        reference=policy.reference,
        recomputes=policy.recomputes,
        rounds=kind is not None and kind.itemsize < 4,
        team=team,
        snapshot=snapshot,
        _gathered=gathered,
    )


class _Cut:
    """Cuts models over the processes."""

    def __init__(self, *, team: Team, cpu_offload: bool) -> None:
        assert team.device is not None
        self._mesh: DeviceMesh = init_device_mesh(team.device.type, (team.size,))
        self._offload = CPUOffloadPolicy(pin_memory=team.device.type == "cuda")
        if not cpu_offload:
            self._offload = OffloadPolicy()

    def model(
        self, model: Any, *, head: nn.Linear | None, computes_in: torch.dtype | None
    ) -> FSDPModule:
        """Args: `computes_in`, what gathered weights are rounded to; None: they aren't."""
        _widen(model)
        base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
        for layer in base.get_decoder().layers:
            self._module(layer, computes_in=computes_in)
        if head is not None:
            self._module(head, computes_in=None)
        gathered = _Gathered(model, head)
        self._module(gathered, computes_in=computes_in)
        assert isinstance(gathered, FSDPModule)
        return gathered

    def _module(self, module: nn.Module, *, computes_in: torch.dtype | None) -> None:
        dtypes = {p.dtype for p in module.parameters() if p.requires_grad}
        reduce_dtype = next(iter(dtypes)) if dtypes else None
        precision = MixedPrecisionPolicy(
            param_dtype=computes_in, reduce_dtype=reduce_dtype, cast_forward_inputs=False
        )
        fully_shard(module, mesh=self._mesh, mp_policy=precision, offload_policy=self._offload)
        assert isinstance(module, FSDPModule)
        # Losses are weighted by the whole mini-batch: gradients are added up, not averaged.
        module.set_gradient_divide_factor(1.0)
        # Gloo has nothing else.
        module.set_force_sum_reduction_for_comms(True)


def _widen(model: nn.Module) -> None:
    """Bring weights that train to float32 at least: a small step would round to nothing."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype.itemsize < 4:
            parameter.data = parameter.data.float()
