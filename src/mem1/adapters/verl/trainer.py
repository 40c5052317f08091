"""A STEP OF VERL'S TRAINER that learns from trajectories, not from rows.

    replay buffer -> _balance_batch -> whole groups in each optimizer step (`layout`)
                  -> _compute_advantage -> chained over contexts, weighted (`credit`)
                  -> _update_critic, _update_actor -> our losses (`losses`)

verl's own trainer compares and averages rows: a trajectory of twenty turns would count twenty
times, its advantages would end at every context, and the number of optimizer steps would grow with
the turns. Everything else, from Ray to checkpoints, is verl's.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import transfer_queue as tq  # pyright: ignore[reportMissingImports]
from tensordict import TensorDict  # pyright: ignore[reportMissingImports]
from verl.trainer.ppo.padding_utils import (  # pyright: ignore[reportMissingImports]
    upsample_batch_to_divisible_size,
)
from verl.trainer.ppo.v1 import (  # pyright: ignore[reportMissingImports]
    PPOTrainerSync,
    register_trainer,
)
from verl.utils.metric import reduce_metrics  # pyright: ignore[reportMissingImports]
from verl.utils.py_functional import rename_dict  # pyright: ignore[reportMissingImports]

from mem1.adapters.verl.credit import Credit, Row, credit
from mem1.adapters.verl.layout import RowKey, lay_out, num_steps, steps_of
from mem1.adapters.verl.losses import WEIGHTS, actor_loss, critic_loss
from mem1.adapters.verl.options import TRAINER, check_for_verl, read_config
from mem1.errors import ConfigError, TrainingError
from mem1.train.config import GROUPED


@register_trainer(TRAINER)
class TrajectoryTrainer(PPOTrainerSync):
    """verl's synchronous trainer with our way of learning."""

    def __init__(self, config: Any) -> None:
        self.settings = check_for_verl(read_config(config.mem1.config))
        super().__init__(config)

    def _build_replay_buffer(self) -> Any:
        # The base class asks for this name wherever a synchronous trainer differs from others.
        self.trainer_mode = "sync"
        return super()._build_replay_buffer()

    def _setup(self) -> None:
        super()._setup()
        self.actor_rollout_wg.set_loss_fn(partial(actor_loss, settings=self.settings.loss))
        if self.settings.critic:
            clip = self.settings.critic.value_clip
            self.critic_wg.set_loss_fn(partial(critic_loss, clip=clip))

    def _balance_batch(self, batch: Any, metrics: dict[str, Any], **_: Any) -> Any:
        """Order the rows, with padding, so that verl's cuts fall between groups."""
        batch = self._without_lone(batch)
        num_ranks = self._num_ranks()
        layout = lay_out(
            [RowKey.read(key).group for key in batch.keys],
            lengths=[tag["seq_len"] for tag in batch.tags],
            groups_per_step=self._groups_per_step,
            num_ranks=num_ranks,
        )
        size = len(layout.order)
        batch = upsample_batch_to_divisible_size(batch, size, self.tokenizer.eos_token_id)
        batch.reorder(list(layout.order))
        metrics |= {
            "training/rows": layout.num_rows,
            "training/padding_rows": size - layout.num_rows,
            "training/optimizer_steps": layout.num_steps * self.settings.epochs,
        }
        return batch

    def _without_lone(self, batch: Any) -> Any:
        """Without groups of which one rollout is left, where rollouts are compared.

        Raises: TrainingError if nothing is left.
        """
        sessions: dict[str, set[int]] = defaultdict(set)
        for key in map(RowKey.read, batch.keys):
            sessions[key.group].add(key.session)
        least = 2 if self.settings.algorithm in GROUPED else 1
        kept = [k for k in batch.keys if len(sessions[RowKey.read(k).group]) >= least]
        if not kept:
            raise TrainingError(
                f"step {self.global_steps}: no task has {least} rollouts to learn from, the others "
                "failed: look at the errors of the agent loop workers"
            )
        lone = sorted(set(batch.keys) - set(kept))
        if lone:
            tq.kv_clear(keys=lone, partition_id=batch.partition_id)
            batch = batch.select_keys(kept)
        return batch

    @property
    def _groups_per_step(self) -> int:
        return self.settings.mini_batch_size or self.settings.batch_size

    def _num_ranks(self) -> int:
        """Data-parallel ranks. Raises: ConfigError if the critic has another number of them."""
        actor = _num_ranks(self.actor_rollout_wg, mesh="actor")
        critic = _num_ranks(self.critic_wg, mesh="train") if self.use_critic else actor
        if actor != critic:
            raise ConfigError(
                f"the policy has {actor} data-parallel ranks and the critic {critic}: give both "
                "the same ulysses_sequence_parallel_size"
            )
        return actor

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """Write advantages, returns and weights of all rows; those of padding are zero."""
        rows = self._rows(batch)
        rewards = {(row.key.group, row.key.session): row.reward for row in rows.values()}
        metrics |= {
            "training/trajectories": len(rewards),
            "training/trajectory_reward/mean": sum(rewards.values()) / len(rewards),
        }
        worth = dict(zip(rows, credit(list(rows.values()), config=self.settings), strict=True))
        told = [
            worth.get(place) or _nothing(tag["response_len"])
            for place, tag in enumerate(batch.tags)
        ]
        columns = {
            "advantages": _nested([row.advantages for row in told]),
            "returns": _nested(
                [row.advantages if row.returns is None else row.returns for row in told]
            ),
            WEIGHTS: _nested([row.weights for row in told]),
        }
        return tq.kv_batch_put(
            keys=batch.keys,
            partition_id=batch.partition_id,
            fields=TensorDict(columns, batch_size=len(batch.keys)),
        )

    def _rows(self, batch: Any) -> dict[int, Row]:
        """What verl has computed of each row but padding, by its place in the batch."""
        fields = ["rm_scores", "old_log_probs"]
        fields += ["ref_log_prob"] if self.use_reference_policy else []
        fields += ["values"] if self.use_critic else []
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=fields
        )
        told = {name: [row.double().numpy() for row in data[name].unbind()] for name in fields}
        steps = steps_of(
            len(batch.keys), num_steps=self._num_steps(batch), num_ranks=self._num_ranks()
        )
        return {
            place: Row(
                key=RowKey.read(batch.keys[place]),
                step=int(steps[place]),
                reward=float(told["rm_scores"][place].sum()),
                old_logprobs=told["old_log_probs"][place],
                ref_logprobs=told["ref_log_prob"][place] if self.use_reference_policy else None,
                values=told["values"][place] if self.use_critic else None,
            )
            for place in _own(batch)
        }

    def _num_steps(self, batch: Any) -> int:
        groups = [RowKey.read(batch.keys[place]).group for place in _own(batch)]
        return num_steps(groups, groups_per_step=self._groups_per_step)

    def _update_critic(self, batch: Any, metrics: dict[str, Any]) -> Any:
        batch.extra_info.update(self._plan(batch, seed=self.config.critic.data_loader_seed))
        output = self.critic_wg.train_mini_batch(batch).get()
        metrics |= _told(output, name="critic")
        return batch

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        seed = self.config.actor_rollout_ref.actor.data_loader_seed
        batch.extra_info.update(self._plan(batch, seed=seed) | {"calculate_entropy": True})
        output = self.actor_rollout_wg.update_actor(batch)
        metrics |= _told(output, name="actor")
        return batch

    def _plan(self, batch: Any, *, seed: int) -> dict[str, Any]:
        """What verl's workers are told of an update: how many steps, not how many rows in each."""
        return {
            "num_mini_batch": self._num_steps(batch),
            "epochs": self.settings.epochs,
            "seed": seed,
            "dataloader_kwargs": {"shuffle": False},
            "temperature": self.config.actor_rollout_ref.rollout.temperature,
        }


def _num_ranks(workers: Any, *, mesh: str) -> int:
    if mesh not in workers._dispatch_info:
        workers._dispatch_info[mesh] = workers._query_dispatch_info(mesh)
    return max(workers._dispatch_info[mesh]) + 1


def _own(batch: Any) -> list[int]:
    """Places of the rows that aren't padding."""
    return [place for place, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]


def _nothing(size: int) -> Credit:
    """Of padding."""
    return Credit(advantages=np.zeros(size), returns=None, weights=np.zeros(size))


def _nested(rows: Sequence[np.ndarray]) -> torch.Tensor:
    """A column as verl keeps it: float32, each row of its own length."""
    tensors = [torch.from_numpy(row).float() for row in rows]
    return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)


def _told(output: Any, *, name: str) -> dict[str, Any]:
    """The metrics of an update, under verl's names."""
    found = rename_dict(output["metrics"], f"{name}/")
    found[f"perf/mfu/{name}"] = found.pop(f"{name}/mfu")
    return reduce_metrics(found)
