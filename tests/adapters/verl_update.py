"""One batch learned from twice, by verl's own FSDP worker with our losses and by our trainer; says
as JSON what became of it. A program of its own, since verl takes a CPU for a platform only if it's
told so before anything else (`verl.plugin.platform`)."""

import contextlib
import json
import os
import sys
import tempfile
import types
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ledger_runs import groups, tiny_policy, train_config
from omegaconf import open_dict
from tensordict import TensorDict
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


class _Device(types.ModuleType):
    """torch.cpu with the names that verl asks a GPU for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(torch.cpu, name, lambda *_: 0)

    def mem_get_info(self, *_: Any) -> tuple[int, int]:
        return 0, 0

    def get_device_name(self, *_: Any) -> str:
        return "CPU"


@PlatformRegistry.register(platform="cpu")
class Processor(PlatformBase):
    """A CPU as verl's platform."""

    device_name = vendor_name = "cpu"
    device_module = _Device("cpu")

    def is_available(self) -> bool:
        return True

    def current_device(self) -> str:
        return "cpu"

    def device_count(self) -> int:
        return 1

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CPU_VISIBLE_DEVICES"

    def nvtx_range(self, msg: str) -> Any:
        return contextlib.nullcontext()

    def ray_resource_name(self) -> str:
        return "CPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def _nothing(self, *_: Any) -> Any:
        return None

    set_device = synchronize = set_allocator_settings = empty_cache = _nothing
    profiler_start = profiler_stop = cudart = get_device_capability = _nothing


os.environ["VERL_PLATFORM"] = "cpu"
import verl_cluster as vc  # noqa: E402
from verl.utils import tensordict_utils as tu  # noqa: E402
from verl.utils.config import omega_conf_to_dataclass  # noqa: E402
from verl.workers.config import TrainingWorkerConfig  # noqa: E402
from verl.workers.engine import EngineRegistry  # noqa: E402
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead  # noqa: E402
from verl.workers.engine_workers import TrainingWorker  # noqa: E402
from verl.workers.utils.padding import response_from_nested  # noqa: E402

from mem1.adapters.verl.credit import Row, credit  # noqa: E402
from mem1.adapters.verl.layout import RowKey, lay_out  # noqa: E402
from mem1.adapters.verl.losses import WEIGHTS, actor_loss  # noqa: E402
from mem1.train.config import LossConfig, OptimizerConfig, TrainConfig  # noqa: E402
from mem1.train.experience import gather  # noqa: E402
from mem1.train.update import Learner, learn  # noqa: E402
from mem1.types import Trajectory  # noqa: E402

EngineRegistry.register(model_type="language_model", backend="fsdp2", device="cpu")(
    FSDPEngineWithLMHead
)


def make_worker(config: TrainConfig, folder: Path) -> TrainingWorker:
    """verl's worker of the policy, as `ActorRolloutRefWorker` makes it, in float32."""
    composed = vc.verl_config(replace(vc.learn(), train=config), folder)
    at = composed.actor_rollout_ref
    with open_dict(at.actor.fsdp_config):
        at.actor.fsdp_config.mixed_precision = {"param_dtype": "fp32"}
    at.model.override_config = {"attn_implementation": "sdpa"}
    at.model.use_remove_padding = False
    model, actor = omega_conf_to_dataclass(at.model), omega_conf_to_dataclass(at.actor)
    settings = TrainingWorkerConfig(
        model_type="language_model",
        model_config=model,
        engine_config=actor.engine,
        optimizer_config=actor.optim,
        checkpoint_config=actor.checkpoint,
    )
    settings.engine_config.use_dynamic_bsz = True
    settings.engine_config.max_token_len_per_gpu = 200
    settings.engine_config.infer_max_token_len_per_gpu = 200
    worker = TrainingWorker(config=settings)
    worker.reset()
    worker.set_loss_fn(partial(actor_loss, settings=config.loss))
    return worker


def nested(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def run(worker: TrainingWorker, name: str, data: TensorDict, **told: Any) -> TensorDict:
    data = data.clone()
    for key, value in told.items():
        tu.assign_non_tensor_data(data, key, value)
    return getattr(TrainingWorker, name).__wrapped__(worker, data)


def by_verl(
    worker: TrainingWorker, trajectories: list[Trajectory], config: TrainConfig
) -> dict[str, Any]:
    """Learn from the rows of the trajectories; gives verl's metrics of each optimizer step."""
    turns = [(t, n, turn) for t in trajectories for n, turn in enumerate(t.turns)]
    prompts = [torch.tensor(turn.prompt_ids) for _, _, turn in turns]
    replies = [torch.tensor(turn.completion.token_ids) for _, _, turn in turns]
    sizes = [len(reply) for reply in replies]
    whole = [torch.cat(pair) for pair in zip(prompts, replies, strict=True)]
    mask = nested([torch.ones(size, dtype=torch.int64) for size in sizes])
    columns = {
        "prompts": nested(prompts),
        "responses": nested(replies),
        "input_ids": nested(whole),
        "position_ids": nested([torch.arange(len(ids)) for ids in whole]),
        "response_mask": mask,
        "loss_mask": mask,
        "rollout_log_probs": nested([torch.tensor(t.completion.logprobs) for _, _, t in turns]),
    }
    data = TensorDict(columns, batch_size=len(turns))
    told = run(worker, "infer_batch", data, temperature=1.0, compute_loss=False)
    old = response_from_nested(told["log_probs"], mask)
    groups_per_step = config.mini_batch_size or config.batch_size
    layout = lay_out(
        [t.task.id for t, _, _ in turns],
        lengths=[len(ids) for ids in whole],
        groups_per_step=groups_per_step,
        num_ranks=1,
    )
    assert len(layout.order) == len(turns), "as many rows in each step: no padding here"
    step_of = dict(zip(layout.order, layout.steps().tolist(), strict=True))
    rows = [
        Row(
            key=RowKey(group=trajectory.task.id, session=trajectory.sample, turn=turn),
            step=step_of[number],
            reward=trajectory.reward,
            old_logprobs=old.unbind()[number].double().numpy(),
            ref_logprobs=None,
            values=None,
        )
        for number, (trajectory, turn, _) in enumerate(turns)
    ]
    worth = credit(rows, config=config)
    data["old_log_probs"] = data["ref_log_prob"] = old
    data["advantages"] = nested([torch.from_numpy(row.advantages).float() for row in worth])
    data[WEIGHTS] = nested([torch.from_numpy(row.weights).float() for row in worth])
    update = {
        "num_mini_batch": layout.num_steps,
        "epochs": config.epochs,
        "seed": 42,
        "dataloader_kwargs": {"shuffle": False},
        "temperature": 1.0,
        "calculate_entropy": True,
    }
    ordered = tu.index_select_tensor_dict(data, list(layout.order))
    return tu.get(run(worker, "train_mini_batch", ordered, **update), "metrics")


def of_two_turns(count: int) -> list[Trajectory]:
    """Two rollouts of two turns of each of some tasks: no step needs padding."""
    found: dict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in groups(40, size=3, max_turns=3):
        if trajectory.num_turns == 2:
            found[trajectory.task.id].append(trajectory)
    pairs = [group for group in found.values() if len(group) == 2]
    return [trajectory for pair in pairs[:count] for trajectory in pair]


def main(folder: Path) -> dict[str, Any]:
    """What verl and what we made of it, in this order, and how far the weights came."""
    loss = LossConfig(weigh_by="trajectory", kl=0.01, kl_in="loss", entropy=0.01)
    optimizer = OptimizerConfig(lr=1e-4)
    config = train_config("grpo", mini_batch_size=2, loss=loss, optimizer=optimizer)
    trajectories = of_two_turns(config.batch_size)
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    worker, policy = make_worker(config, folder), tiny_policy(vc.MODEL, config)
    before = [parameter.detach().clone() for parameter in policy.sampled_model.parameters()]
    verls = by_verl(worker, trajectories, config)
    learner = Learner.create(policy, config=config)
    own = learn(learner, gather(trajectories, policy=policy, config=config), name="batch")
    ours = list(policy.sampled_model.parameters())
    theirs = [parameter.full_tensor() for parameter in worker.engine.module.parameters()]
    apart = [(a - b).abs() for a, b in zip(theirs, ours, strict=True)]
    return {
        "steps": len(verls["grad_norm"]),
        "policy_loss": [float(np.mean(verls["policy_loss"])), own["loss"]],
        "entropy": [float(np.mean(verls["entropy"])), own["entropy"]],
        "kl": [float(np.mean(verls["kl"])), own["kl"]],
        "grad_norm": [float(np.mean(verls["grad_norm"])), own["grad_norm"]],
        "moved": max(float((a - b).abs().max()) for a, b in zip(before, ours, strict=True)),
        "apart": max(float(gap.max()) for gap in apart),
        "apart_mean": float(torch.cat([gap.flatten() for gap in apart]).mean()),
    }


if __name__ == "__main__":
    variables = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    os.environ.update(variables)
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(json.dumps(main(Path(folder))))
