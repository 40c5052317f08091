"""verl's own actors, queue, workers and trainer on this machine's CPU; only what needs a GPU, the
vLLM servers and the FSDP engines, is done by a tiny model instead."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from transformers import AutoModelForCausalLM
from verl.trainer.ppo.v1 import AgentLoopManagerTQ
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import TrainingWorker
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput
from verl.workers.rollout.router import GlobalRequestLoadBalancer

from mem1.adapters.verl.__main__ import compose_config
from mem1.adapters.verl.agent_loop import outputs_of
from mem1.adapters.verl.data import export_tasks
from mem1.adapters.verl.options import PLUGIN
from mem1.adapters.verl.trainer import TrajectoryTrainer
from mem1.config import RunConfig, load_config
from mem1.engines import Request
from mem1.train.config import ShapingConfig
from mem1.types import Sampling, Trajectory

MODEL = Path("data/ledger/internal_state").absolute()
STEP = 3
"""Number of the weights that sample."""


def learn(*overrides: str) -> RunConfig:
    """A small run on the ledger: four tasks, two in an optimizer step, with a reference."""
    small = ("train.batch_size=4", "train.mini_batch_size=2", "train.loss.kl=0.01")
    config = load_config("configs/learn.toml", overrides=[*small, *overrides])
    assert config.train is not None
    assert config.train.critic is not None
    # verl's critic is as large as its policy.
    whole = replace(config.train.critic, num_layers=None)
    return replace(config, train=replace(config.train, critic=whole))


def verl_config(config: RunConfig, folder: Path) -> Any:
    """verl's config of a run, made as the launcher makes it."""
    export_tasks(config, folder=folder, limit=12)
    small = (
        "actor_rollout_ref.rollout.agent.num_workers=1",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
        "data.dataloader_num_workers=0",
        "trainer.n_gpus_per_node=2",
    )
    return compose_config(config, data=folder, overrides=small)


@contextmanager
def cluster(composed: Any) -> Iterator[None]:
    """Ray and the queue, as verl's launcher starts them."""
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    variables = {"PYTHONPATH": paths, "VERL_USE_EXTERNAL_MODULES": PLUGIN, "OMP_NUM_THREADS": "1"}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        num_cpus=8,
        object_store_memory=2**28,
        _node_ip_address="127.0.0.1",
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": variables},
    )
    tq.init(composed.transfer_queue)
    try:
        yield
    finally:
        tq.close()
        ray.shutdown()


@ray.remote
class TinyServer:
    """What verl's vLLM server does, by our local engine: ids in, ids and log-probabilities out."""

    def __init__(self) -> None:
        from mem1.chat.hf import HFRenderer
        from mem1.engines.local import LocalEngine

        renderer = HFRenderer.load(MODEL)
        self._calls = 0
        self._engine = LocalEngine.load(
            MODEL, codec=renderer, device="cpu", dtype="float32", eos_ids=renderer.eos_ids
        )

    async def generate(
        self, *, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any
    ) -> TokenOutput:
        self._calls += 1
        told = await self._engine.complete(
            Request(
                prompt_ids=tuple(prompt_ids),
                messages=(),
                max_tokens=sampling_params["max_tokens"],
                stop=tuple(sampling_params["stop"]),
                sampling=Sampling(
                    temperature=sampling_params["temperature"],
                    top_p=sampling_params["top_p"],
                    seed=self._calls,
                ),
            )
        )
        return TokenOutput(
            token_ids=list(told.token_ids),
            log_probs=list(told.logprobs or ()),
            stop_reason="completed",
            extra_fields={"global_steps": STEP},
        )


class Workers:
    """What verl's worker groups do with a batch, by one forward pass for each row, on two ranks."""

    def __init__(self) -> None:
        self._dispatch_info = {"actor": [0, 1], "train": [0, 1]}
        self._model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
        self.updates: list[list[list[list[str]]]] = []
        """Of each update: for each step and rank, the keys of the rows."""

    def compute_log_prob(self, batch: Any) -> Any:
        data = read(batch, "prompts", "responses")
        told = [
            self._logprobs(torch.cat([prompt, response]))
            for prompt, response in zip(
                data["prompts"].unbind(), data["responses"].unbind(), strict=True
            )
        ]
        return write(batch, log_probs=told, entropy=[torch.ones_like(row) for row in told])

    compute_ref_log_prob = compute_log_prob

    def infer_batch(self, batch: Any) -> Any:
        told = [torch.sin(row.float()) for row in read(batch, "input_ids")["input_ids"].unbind()]
        write(batch, values=told)
        return SimpleNamespace(futures=[])

    def update_actor(self, batch: Any) -> Any:
        ranks = [_mini_batches(chunk, rank=rank) for rank, chunk in enumerate(batch.chunk(2))]
        self.updates.append([list(step) for step in zip(*ranks, strict=True)])
        return {"metrics": {"loss": 0.0, "mfu": 0.0}}

    def train_mini_batch(self, batch: Any) -> Any:
        return SimpleNamespace(get=lambda: self.update_actor(batch))

    @torch.no_grad()
    def _logprobs(self, ids: torch.Tensor) -> torch.Tensor:
        """Of each token the one after it, as verl's engines give them; the last one is nothing."""
        logits = self._model(ids[None]).logits[0, :-1]
        told = logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        return torch.cat([told, torch.zeros(1)])


def _mini_batches(chunk: Any, *, rank: int) -> list[list[str]]:
    """The keys of a rank's rows, step by step, as verl's training worker cuts them."""
    seen: list[list[str]] = []

    def train_batch(part: TensorDict) -> TensorDict:
        seen.append([chunk.keys[place] for place in part["place"].tolist()])
        return tu.get_tensordict({}, {"metrics": {}})

    engine = SimpleNamespace(
        get_data_parallel_size=lambda: 2,
        get_data_parallel_rank=lambda: rank,
        train_mode=lambda **_: nullcontext(),
        is_mp_src_rank_with_outputs=lambda: True,
    )
    profiler = SimpleNamespace(step=lambda: None)
    worker = SimpleNamespace(engine=engine, train_batch=train_batch, profiler=profiler)
    data = TensorDict({"place": torch.arange(len(chunk))}, batch_size=len(chunk))
    for name, value in chunk.extra_info.items():
        tu.assign_non_tensor_data(data, name, value)
    TrainingWorker.train_mini_batch.__wrapped__(worker, data)
    return seen


def read(batch: Any, *fields: str) -> Any:
    return tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=list(fields)
    )


def write(batch: Any, **columns: list[torch.Tensor]) -> Any:
    nested = {
        name: torch.nested.as_nested_tensor(rows, layout=torch.jagged)
        for name, rows in columns.items()
    }
    return tq.kv_batch_put(
        keys=batch.keys,
        partition_id=batch.partition_id,
        fields=TensorDict(nested, batch_size=len(batch)),
    )


def make_trainer(composed: Any) -> TrajectoryTrainer:
    """verl's trainer in our mode, with everything but what needs a GPU."""
    trainer = TrajectoryTrainer(composed)
    trainer._init_tokenizer()
    trainer._init_dataloader()
    workers = Workers()
    trainer.actor_rollout_wg = trainer.critic_wg = trainer.ref_policy_wg = workers
    trainer.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[])
    trainer.checkpoint_manager = SimpleNamespace(sleep_replicas=lambda: None)
    trainer.resource_pool_manager = SimpleNamespace(get_n_gpus=lambda: 2)
    trainer.ref_in_actor = trainer.curr_step_profile = False
    trainer.global_steps = 1
    return trainer


async def put_rows(trajectory: Trajectory) -> list[str]:
    """Put a trajectory's rows into the queue as verl's agent loop worker does; gives their keys."""
    worker = object.__new__(AgentLoopWorkerTQ.__ray_metadata__.modified_class)
    worker.processor = worker.reward_loop_worker_handles = None
    worker.distillation_enabled = False
    outputs = outputs_of(trajectory, versions=[STEP], shaping=ShapingConfig())
    names = {"uid": trajectory.task.id, "session_id": trajectory.sample, "global_steps": 1}
    await worker._agent_loop_postprocess(outputs, False, **names)
    name = f"{trajectory.task.id}_{trajectory.sample}"
    return [f"{name}_{turn}" for turn in range(trajectory.num_turns)]


def batch_of(trajectories: Sequence[Trajectory]) -> KVBatchMeta:
    """The rows of some trajectories in the queue, as the replay buffer hands them on."""

    async def put_all() -> list[str]:
        return [key for trajectory in trajectories for key in await put_rows(trajectory)]

    keys = asyncio.run(put_all())
    tags = tq.kv_list("train")["train"]
    return KVBatchMeta(partition_id="train", keys=keys, tags=[tags[key] for key in keys])


def make_manager(composed: Any) -> AgentLoopManagerTQ:
    """verl's agent loop workers, their client and load balancer, in front of the tiny server."""
    servers = {"tiny": TinyServer.remote()}
    balancer = ray.remote(GlobalRequestLoadBalancer).remote(servers=servers)
    client = LLMServerClient(config=composed, load_balancer_handle=balancer)
    created = AgentLoopManagerTQ.create(config=composed, llm_client=client)
    return asyncio.run(created) if asyncio.iscoroutine(created) else created
