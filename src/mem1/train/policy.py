"""MODEL FOLDER -> Policy: what is trained, what values it, and what it must stay near.

load_policy -> Policy -> score (log-probabilities, entropy, values), reference
                      -> parts / load_parts for checkpoints, export for everybody else
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, set_seed

from mem1.engines.local import load_model
from mem1.errors import DataError, MissingExtraError, ModelError
from mem1.packing import PackedBatch
from mem1.train.attention import check_model
from mem1.train.checkpoint import State
from mem1.train.config import CriticConfig, LoraConfig, TrainConfig
from mem1.train.scoring import Scores, score, values
from mem1.train.shards import put

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(slots=True, kw_only=True, eq=False)
class Policy:
    """The model that is trained, with its critic and the reference it's compared with."""

    model: "PreTrainedModel | PeftModel"
    value_head: nn.Linear | None = None
    critic: PreTrainedModel | None = None
    """A model of its own for the values; None: `value_head` reads the policy's own layers."""
    reference: PreTrainedModel | None = None
    """A frozen copy; None with adapters, which are switched off instead."""
    recomputes: bool = False
    """Whether layers compute their activations a second time to save memory."""
    rounds: bool = False
    """Whether it computes with roundings of its parameters, which are of float32."""

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def sampled_model(self) -> PreTrainedModel:
        """The same weights, adapters in place, as an engine takes them."""
        model: Any = self.model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    @property
    def loss_dtype(self) -> torch.dtype:
        """Of log-probabilities, values and losses: float32 at least."""
        return torch.promote_types(self.model.dtype, torch.float32)

    def score(self, row: PackedBatch, *, temperature_T: Tensor) -> Scores:
        """Log-probabilities, entropy and, if there's a critic, values at a row's targets."""
        if self.critic is None:
            return score(self.model, row, temperature_T=temperature_T, value_head=self.value_head)
        scores = score(self.model, row, temperature_T=temperature_T)
        return replace(scores, values_T=self.values(row))

    def values(self, row: PackedBatch) -> Tensor:
        """What the critic says at a row's targets, shape (T_row,)."""
        assert self.value_head is not None
        return values(self.critic or self.model, row, value_head=self.value_head)

    def ref_logprobs(self, row: PackedBatch, *, temperature_T: Tensor) -> Tensor:
        """Log-probabilities under the reference at a row's targets, shape (T_row,)."""
        if self.reference is not None:
            return score(self.reference, row, temperature_T=temperature_T).logprobs_T
        with self.model.disable_adapter():  # pyright: ignore[reportCallIssue]
            return score(self.model, row, temperature_T=temperature_T).logprobs_T

    def learn(self, learning: bool, /) -> None:
        """Enter or leave the mode in which layers recompute; sampling is faster without."""
        for model in (self.model, self.critic):
            if model is not None:
                model.train(learning and self.recomputes)

    def policy_parameters(self) -> Iterator[nn.Parameter]:
        """What the policy's optimizer steps: with a critic of one layer, that one too."""
        yield from self.model.parameters()
        if self.value_head is not None and self.critic is None:
            yield from self.value_head.parameters()

    def critic_parameters(self) -> Iterator[nn.Parameter]:
        """What the critic's own optimizer steps; nothing without a separate critic."""
        if self.critic is not None and self.value_head is not None:
            yield from self.critic.parameters()
            yield from self.value_head.parameters()

    def parts(self) -> dict[str, State]:
        """Weights for a checkpoint: those that train."""
        modules = {"policy": self.model, "critic": self.critic, "value_head": self.value_head}
        return {
            name: State(tensors=_trained(module))
            for name, module in modules.items()
            if module is not None
        }

    def load_parts(self, parts: Mapping[str, State]) -> None:
        """Go on with the weights of a checkpoint. Raises: DataError for those of another model."""
        for name, module in {
            "policy": self.model,
            "critic": self.critic,
            "value_head": self.value_head,
        }.items():
            if module is not None:
                own = _trained(module)
                stored = parts[name].tensors if name in parts else {}
                for key in (*own, *(key for key in stored if key not in own)):
                    found = stored.get(key)
                    _check_alike(f"{name} {key}", found, like=own.get(key))
                    assert found is not None
                    put(found, into=own[key])

    def export(self, folder: Path) -> None:
        """Write the policy as an ordinary Hugging Face folder, adapters merged in."""
        model: Any = self.model
        if hasattr(model, "merge_and_unload"):
            model = copy.deepcopy(model).merge_and_unload()
        # A model that was read from GGUF is dense from here on.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(str(folder))


def load_policy(
    path: Path, *, config: TrainConfig, device: str | None = None, dtype: str | None = None
) -> Policy:
    """Load what a run trains.

    Args: `dtype`, of the weights, default bfloat16 on a GPU, else float32.
    Raises: ModelError for a model that can't be trained exactly.
    """
    on_gpu = device != "cpu" and torch.cuda.is_available()
    dtype = dtype or ("bfloat16" if on_gpu else "float32")
    return make_policy(load_model(path, device=device, dtype=dtype), config=config)


def make_policy(model: PreTrainedModel, *, config: TrainConfig) -> Policy:
    """Make a policy of a model in memory, which is trained in place.

    Seeds the randomness of Python, numpy and torch. Raises: ModelError as `load_policy` does.
    """
    check_model(model)
    set_seed(config.seed)
    reference = None
    if config.loss.kl and config.lora is None:
        reference = copy.deepcopy(model).requires_grad_(False).eval()
    critic, value_head = None, None
    if config.critic is not None:
        if config.critic.kind == "separate":
            critic = _separate_critic(model, config=config.critic)
        value_head = _value_head(model)
    for trained in (model, critic):
        if trained is not None and config.gradient_checkpointing:
            trained.gradient_checkpointing_enable({"use_reentrant": False})
    adapted = _with_adapters(model, config.lora) if config.lora else model
    return Policy(
        model=adapted,
        value_head=value_head,
        critic=critic,
        reference=reference,
        recomputes=config.gradient_checkpointing,
    )


def _separate_critic(model: PreTrainedModel, *, config: CriticConfig) -> PreTrainedModel:
    """A copy of the policy, or of its first layers."""
    critic = copy.deepcopy(model)
    shape, decoder = critic.config.get_text_config(decoder=True), cast("Any", critic.get_decoder())
    shape.num_hidden_layers = config.layers_of(shape.num_hidden_layers)
    decoder.layers = decoder.layers[: shape.num_hidden_layers]
    return critic


def _value_head(model: PreTrainedModel) -> nn.Linear:
    """One layer that begins by valuing everything at 0; float32 at least, since a return of 1.3
    is none of bfloat16's numbers."""
    hidden_size = model.config.get_text_config(decoder=True).hidden_size
    dtype = torch.promote_types(model.dtype, torch.float32)
    head = nn.Linear(hidden_size, 1, device=model.device, dtype=dtype)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _with_adapters(model: PreTrainedModel, config: LoraConfig) -> "PeftModel":
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("peft", extra="train") from error
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=list(config.targets) or "all-linear",
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    try:
        adapted = peft.get_peft_model(model, settings)
    except ValueError as error:
        raise ModelError(f"train.lora.targets = {config.targets}: {error}") from error
    return adapted  # pyright: ignore[reportReturnType]


def _trained(module: Any) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


def _check_alike(name: str, stored: Tensor | None, *, like: Tensor | None) -> None:
    """Raises: DataError if a weight is missing on one side, or of another shape."""
    there, here = (
        "missing" if tensor is None else f"of shape {list(tensor.shape)}"
        for tensor in (stored, like)
    )
    if there != here:
        raise DataError(
            f"the checkpoint is of another model than engine.model and [train] describe: {name} is "
            f"{there} there, {here} here. Go on with the model it was begun with, or start in "
            "another folder"
        )
