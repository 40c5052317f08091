"""IS WHAT IS TRAINED WHAT WAS RUN? A number, for any model and any trajectories.

    model, [Trajectory] -> verify -> ExactnessReport

The packed log-probabilities and their gradients are compared with those of one plain forward pass
for each turn, which shares no code with the packed one, and with what the sampler recorded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mem1.errors import DataError
from mem1.packing import PackedBatch, pack, sampled_tokens
from mem1.train.attention import Backend, check_model
from mem1.train.checks import check_vocabulary, name_of
from mem1.train.scoring import score
from mem1.types import Trajectory

_LIMITS = {
    torch.float64: (1e-9, 1e-9, 1e-9),
    torch.float32: (5e-5, 5e-6, 1e-5),
}
"""Most that may differ: largest and mean log-probability, relative error of the gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far two sets of log-probabilities of the same tokens are apart."""

    max_abs: float
    """In nats."""
    mean_abs: float
    share_outside: float
    """Share of tokens whose probability ratio is outside of [0.8, 1.2]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactnessReport:
    """What `verify` found."""

    dtype: str
    num_trajectories: int
    num_sampled: int
    num_packed: int
    """Tokens in packed rows."""
    num_unpacked: int
    """Tokens of one sequence for each turn."""
    packed: Difference
    """Packed against one forward pass for each turn."""
    sampler: Difference | None
    """Packed against what the sampler recorded; None if it recorded nothing."""
    gradient_error: float
    """Norm of the difference of the gradients over the norm of the plain one."""
    gradient_cosine: float

    @property
    def exact(self) -> bool:
        """Whether packed and plain agree to the limits of the weights' precision."""
        limits = _LIMITS.get(getattr(torch, self.dtype))
        found = (self.packed.max_abs, self.packed.mean_abs, self.gradient_error)
        return limits is not None and all(a <= b for a, b in zip(found, limits, strict=True))


def verify(
    model: Any,
    trajectories: Sequence[Trajectory],
    *,
    row_tokens: int = 16_384,
    backend: Backend | None = None,
) -> ExactnessReport:
    """Compare packed and plain. The gradient is that of a fixed weighted sum of log-probabilities.

    Raises: ModelError for a model that isn't served exactly, DataError for trajectories that say
    nothing, are of another vocabulary, or were tokenised again.
    """
    check_model(model)
    _check_ids(trajectories)
    check_vocabulary(trajectories, size=model.config.get_text_config(decoder=True).vocab_size)
    tokens = sampled_tokens(trajectories)
    if not tokens.num_tokens:
        raise DataError("there are no sampled tokens to verify: give trajectories with turns")
    rows = pack(trajectories, row_tokens=row_tokens)
    temperature = torch.from_numpy(tokens.temperature).to(model.device)
    weights = torch.linspace(-1, 1, tokens.num_tokens, device=model.device)

    def packed_row(row: PackedBatch) -> Tensor:
        at = temperature[torch.from_numpy(row.index).to(model.device)]
        return score(model, row, temperature_T=at, backend=backend).logprobs_T

    places = [row.index for row in rows]
    found, gradient = _through(model, packed_row, rows, places=places, weights=weights)
    turns, turn_places = _plain_parts(trajectories)
    plain, plain_gradient = _through(
        model,
        lambda part: _plain(model, part, temperature_T=temperature),
        turns,
        places=turn_places,
        weights=weights,
    )
    known = ~np.isnan(tokens.sampled_logprobs)
    return ExactnessReport(
        dtype=str(model.dtype).removeprefix("torch."),
        num_trajectories=len(trajectories),
        num_sampled=tokens.num_tokens,
        num_packed=sum(row.num_tokens for row in rows),
        num_unpacked=sum(row.num_unpacked for row in rows),
        packed=difference(found, plain),
        sampler=difference(found[known], tokens.sampled_logprobs[known]) if known.any() else None,
        gradient_error=float((gradient - plain_gradient).norm() / plain_gradient.norm()),
        gradient_cosine=float(torch.cosine_similarity(gradient, plain_gradient, dim=0)),
    )


def _check_ids(trajectories: Sequence[Trajectory]) -> None:
    for trajectory in trajectories:
        if not all(turn.completion.exact for turn in trajectory.turns):
            raise DataError(
                f"{name_of(trajectory)}: its token ids were made from the engine's text, so there "
                "is nothing to be exact about: use an engine that tells them"
            )


def difference(found: np.ndarray, expected: np.ndarray) -> Difference:
    """Compare log-probabilities, shape (T,)."""
    apart = np.abs(found - expected)
    ratio = np.exp(found - expected)
    return Difference(
        max_abs=float(apart.max()),
        mean_abs=float(apart.mean()),
        share_outside=float(((ratio < 0.8) | (ratio > 1.2)).mean()),
    )


def _through(
    model: Any,
    logprobs_of: Callable[[Any], Tensor],
    parts: Sequence[Any],
    *,
    places: Sequence[np.ndarray],
    weights: Tensor,
) -> tuple[np.ndarray, Tensor]:
    """Log-probabilities of all parts, shape (T,), and the gradient of their weighted sum."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found = np.zeros(len(weights))
    model.zero_grad(set_to_none=True)
    for part, at in zip(parts, places, strict=True):
        logprobs = logprobs_of(part)
        share = weights[torch.from_numpy(at).to(weights.device)].to(logprobs.dtype)
        (logprobs * share).sum().backward()
        found[at] = logprobs.detach().double().cpu().numpy()
    gradient = torch.cat(
        [
            (torch.zeros_like(p) if p.grad is None else p.grad).detach().flatten().double().cpu()
            for p in parameters
        ]
    )
    model.zero_grad(set_to_none=True)
    return found, gradient


@dataclass(frozen=True, slots=True)
class _Part:
    """What one plain forward pass takes: a turn, or a whole carried trajectory."""

    token_ids: np.ndarray
    read_at: np.ndarray
    """Places of the predictions."""
    index: np.ndarray
    """Where the predicted tokens stand in SampledTokens."""
    mask: np.ndarray | None
    """Who sees whom, bool, shape (S, S); None: all that is before."""


def _plain_parts(trajectories: Sequence[Trajectory]) -> tuple[list[_Part], list[np.ndarray]]:
    parts: list[_Part] = []
    first = 0
    for trajectory in trajectories:
        made = (_evicting if trajectory.mode == "carry" else _turn_by_turn)(trajectory, first)
        parts += made
        first += sum(turn.completion.num_tokens for turn in trajectory.turns)
    return parts, [part.index for part in parts]


def _turn_by_turn(trajectory: Trajectory, first: int) -> list[_Part]:
    parts: list[_Part] = []
    for turn in trajectory.turns:
        start, size = len(turn.prompt_ids), turn.completion.num_tokens
        ids = np.array(turn.prompt_ids + turn.completion.token_ids)
        parts.append(
            _Part(ids, np.arange(start, start + size) - 1, np.arange(first, first + size), None)
        )
        first += size
    return parts


def _evicting(trajectory: Trajectory, first: int) -> list[_Part]:
    """What an engine that evicts keys and values computes, as one dense mask."""
    from mem1.carry import Tape

    tape, read_at = Tape(), []
    for turn in trajectory.turns:
        tape.show(turn.context)
        read_at += [place - 1 for place in tape.append(turn.completion.token_ids)]
    size = len(tape.token_ids)
    until = np.array([size if at is None else at for at in tape.evicted_at])
    place = np.arange(size)
    mask = (place <= place[:, None]) & (place[:, None] < until)
    index = np.arange(first, first + len(read_at))
    return [_Part(np.array(tape.token_ids), np.array(read_at, int), index, mask)]


def _plain(model: Any, part: _Part, *, temperature_T: Tensor) -> Tensor:
    """Log-probabilities by the model's own code alone."""
    ids = torch.from_numpy(part.token_ids).to(model.device)
    mask = None
    if part.mask is not None:
        mask = torch.from_numpy(part.mask)[None, None].to(model.device)
    logits = model(input_ids=ids[None], attention_mask=mask, use_cache=False).logits[0]
    read_at = torch.from_numpy(part.read_at).to(model.device)
    at = temperature_T[torch.from_numpy(part.index).to(model.device)]
    wide = torch.promote_types(logits.dtype, torch.float32)
    logp = (logits[read_at].to(wide) / at.to(wide)[:, None]).log_softmax(-1)
    return logp.gather(1, ids[read_at + 1, None])[:, 0]
