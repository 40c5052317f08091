"""ONE SEQUENCE FOR EACH TURN: what trainers do that don't share prefixes, to measure against.

    trajectories -> turn_by_turn -> [PackedBatch], a tree for each turn
                 -> filled       -> rows of at most so many tokens, end to end
    row -> score_varlen    FlashAttention's kernel for sequences end to end
        -> score_padded    a batch, padded to the longest, transformers' own attention

`everywhere` computes the logits of every token, as a causal language model's forward does; else
only those that predict what was sampled.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import AttentionInterface

from mem1.packing import PackedBatch, pack
from mem1.types import Trajectory

VARLEN = "mem1_varlen"


def turn_by_turn(trajectories: Sequence[Trajectory]) -> list[PackedBatch]:
    """Each turn a row of its own; `index` counts the sampled tokens of all."""
    rows: list[PackedBatch] = []
    counted = 0
    for trajectory in trajectories:
        for turn in trajectory.turns:
            (row,) = pack([replace(trajectory, turns=(turn,))], row_tokens=10**6)
            rows.append(replace(row, index=row.index + counted))
            counted += len(row.index)
    return rows


def joined(rows: Sequence[PackedBatch]) -> PackedBatch:
    """Rows end to end."""
    first = np.cumsum([0] + [row.num_tokens for row in rows])

    def end_to_end(name: str, offsets: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [getattr(row, name) + offset for row, offset in zip(rows, offsets, strict=False)]
        )

    return PackedBatch(
        token_ids=end_to_end("token_ids", first * 0),
        positions=end_to_end("positions", first * 0),
        visible_until=end_to_end("visible_until", first),
        parent=end_to_end("parent", first),
        targets=end_to_end("targets", first),
        index=end_to_end("index", first * 0),
        num_unpacked=int(first[-1]),
    )


def filled(rows: Sequence[PackedBatch], *, row_tokens: int, padded: bool) -> Iterator[PackedBatch]:
    """Rows of at most `row_tokens`, in order; if they're `padded`, padding counts."""
    taken: list[PackedBatch] = []
    for row in rows:
        sizes = [other.num_tokens for other in (*taken, row)]
        if taken and (max(sizes) * len(sizes) if padded else sum(sizes)) > row_tokens:
            yield joined(taken)
            taken = []
        taken.append(row)
    yield joined(taken)


def score_padded(model: Any, *, row: PackedBatch, everywhere: bool = False) -> torch.Tensor:
    """Log-probabilities of the sampled tokens, shape (targets,)."""
    starts = np.flatnonzero(row.positions == 0)
    turn = np.cumsum(row.positions == 0) - 1
    ids = np.zeros((len(starts), row.positions.max() + 1), np.int64)
    ids[turn, row.positions] = row.token_ids
    model.set_attn_implementation("sdpa")
    hidden = model.model(torch.from_numpy(ids).to(model.device), use_cache=False).last_hidden_state
    read_at = turn[row.targets] * ids.shape[1] + row.positions[row.targets] - 1
    flat = hidden.flatten(0, 1)
    return logprobs_at(model, flat, read_at, row.token_ids[row.targets], everywhere=everywhere)


def score_varlen(model: Any, *, row: PackedBatch, everywhere: bool = False) -> torch.Tensor:
    """The same, without padding."""
    starts = np.append(np.flatnonzero(row.positions == 0), row.num_tokens)
    # Stays so: layers may be computed again on the way back.
    model.set_attn_implementation(VARLEN)
    hidden = model.model(
        torch.from_numpy(row.token_ids)[None].to(model.device),
        position_ids=torch.from_numpy(row.positions)[None].to(model.device),
        use_cache=False,
        sequences=(
            torch.from_numpy(starts).to(model.device, torch.int32),
            int(np.diff(starts).max()),
        ),
    ).last_hidden_state[0]
    read_at, ids = row.targets - 1, row.token_ids[row.targets]
    return logprobs_at(model, hidden, read_at, ids, everywhere=everywhere)


def logprobs_at(
    model: Any, hidden: torch.Tensor, read_at: np.ndarray, ids: np.ndarray, *, everywhere: bool
) -> torch.Tensor:
    """Args: `hidden`, shape (tokens, width); `read_at`, what predicts each of `ids`."""
    at, targets = (torch.from_numpy(places).to(model.device) for places in (read_at, ids))
    if not everywhere:
        return -cross_entropy(model.lm_head(hidden[at]).float(), targets, reduction="none")
    wanted = torch.zeros(len(hidden), dtype=torch.long, device=model.device)
    wanted[at] = targets
    return -cross_entropy(model.lm_head(hidden).float(), wanted, reduction="none")[at]


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    sequences: tuple[torch.Tensor, int],
    scaling: float,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls. Shapes: (1, heads, tokens, dim); gives (1, tokens, heads, dim).

    Args: `sequences`, where each begins, and the end of the last; how long the longest is.
    """
    starts, longest = sequences
    groups = query.shape[1] // key.shape[1]
    if query.device.type == "cpu":
        parts = [
            scaled_dot_product_attention(
                *(x[:, :, begin:end] for x in (query, key, value)),
                is_causal=True,
                scale=scaling,
                enable_gqa=groups > 1,
            )
            for begin, end in zip(starts.tolist(), starts.tolist()[1:], strict=False)
        ]
        return torch.cat(parts, 2).transpose(1, 2), None
    from torch.nn.attention.varlen import varlen_attn

    known = inspect.signature(varlen_attn).parameters
    settings: dict[str, Any] = {"scale": scaling} if "scale" in known else {}
    settings |= {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    if "enable_gqa" in known:
        settings["enable_gqa"] = groups > 1
    else:
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    flat = [x[0].transpose(0, 1).contiguous() for x in (query, key, value)]
    return varlen_attn(*flat, starts, starts, longest, longest, **settings)[None], None


AttentionInterface.register(VARLEN, _attend)
