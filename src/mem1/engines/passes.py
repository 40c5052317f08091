"""WHO SEES WHAT in one forward pass of the local engine, in torch.

    new tokens of all rows -> Pass.of -> Pass -> attend, in every layer

The new tokens of all rows are one flat sequence. What each sees of its own row is computed row by
row, or side by side for rows that are alike; what rows see of the head, which is held once, is
computed for all of them at once. The log-sum-exps say how the softmax over all keys weighs the two.

Imported by `mem1.engines.slots` alone, once torch is known to be there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mem1.engines.kernels import Padded, attend_part, beside, padded, widened

Pair = tuple[Tensor, Tensor]
"""Keys and values, each of shape (rows, num_kv_heads, num_tokens, dim)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A row's share of a pass."""

    size: int
    """Tokens of its own that it had before."""
    num_new: int
    evicted: Sequence[int] = ()
    """Tokens of its own that only the first new one still sees."""
    on_head: bool = False
    """Whether the head comes before its own tokens."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pass:
    """The S new tokens of all rows, those of a row one after the other."""

    rows: Tensor
    """Whose each token is; int64, shape (S,)."""
    columns: Tensor
    """Where its key stands in its row."""
    width: int
    """Most tokens of a row's own, the new ones included."""
    decoding: Padded | None
    """The first rows, which have a few new tokens each."""
    bias: Tensor
    """Of these, what is added to their scores: (rows, 1, most new ones, most keys)."""
    fresh: list[Padded]
    """Rows that had no tokens of their own before."""
    joining: list[tuple[int, slice, Tensor]]
    """The others: each row, its new tokens, what is added to their scores."""
    on_head: Tensor
    """Tokens that see the head, too."""

    @classmethod
    def of(cls, parts: Sequence[Part], *, num_decoding: int, device: torch.device) -> "Pass":
        """Args: `num_decoding`, how many of the first rows go side by side."""
        sizes, counts = np.array([(part.size, part.num_new) for part in parts]).T
        owner, starts = np.repeat(np.arange(len(parts)), counts), counts.cumsum() - counts
        first, later = slice(num_decoding), range(num_decoding, len(parts))
        fresh = [row for row in later if not parts[row].size]
        at = [owner, sizes[owner] + np.arange(len(owner)) - starts[owner]]
        at.append(np.flatnonzero(np.array([part.on_head for part in parts])[owner]))
        rows, columns, on_head = (torch.from_numpy(found).to(device) for found in at)
        most = int(counts[first].max(initial=0))
        return cls(
            rows=rows,
            columns=columns,
            width=int((sizes + counts).max()),
            decoding=beside(starts[first], counts[first], width=most, device=device)
            if most
            else None,
            bias=_bias(parts[first], device=device),
            fresh=padded(starts[fresh], counts[fresh], device=device),
            joining=[
                (
                    row,
                    slice(int(starts[row]), int(starts[row] + counts[row])),
                    _bias(parts[row : row + 1], device=device),
                )
                for row in later
                if parts[row].size
            ],
            on_head=on_head,
        )

    def attend(
        self,
        query: Tensor,
        new: Pair,
        *,
        buffers: Pair,
        head: Pair | None,
        scale: float | None,
    ) -> Tensor:
        """Attention of all new tokens. Query and result: (1, num_heads, S, dim).

        Args: `new`, keys and values of the new tokens; `buffers`, of all rows, the new ones among
        them; `head`, None if no row begins with it.
        """
        out = torch.empty_like(query)
        lse = widened(query.new_empty(query.shape[:3]))[..., None]
        if self.decoding:
            own = [buffer[: self.bias.shape[0], :, : self.bias.shape[3]] for buffer in buffers]
            found = attend_part(self.decoding.beside(query), *own, bias=self.bias, scale=scale)
            self.decoding.put_back(found[0], into=out)
            self.decoding.put_back(found[1][..., None], into=lse)
        for group in self.fresh:
            apart = [group.beside(tensor) for tensor in (query, *new)]
            found = attend_part(*apart, causal=True, scale=scale)
            group.put_back(found[0], into=out)
            group.put_back(found[1][..., None], into=lse)
        for row, at, bias in self.joining:
            own = [buffer[row : row + 1, :, : bias.shape[3]] for buffer in buffers]
            out[:, :, at], lse[:, :, at, 0] = attend_part(
                query[:, :, at], *own, bias=bias, scale=scale
            )
        if head and len(self.on_head):
            own_part, own_lse = (tensor.index_select(2, self.on_head) for tensor in (out, lse))
            asking = query.index_select(2, self.on_head)
            part, part_lse = attend_part(asking, *head, scale=scale)
            share = torch.sigmoid(part_lse[..., None] - own_lse)
            merged = torch.lerp(widened(own_part), widened(part), share)
            out.index_copy_(2, self.on_head, merged.to(out.dtype))
        return out


def _bias(parts: Sequence[Part], *, device: torch.device) -> Tensor:
    """0 where a new token sees a key of its row, else minus infinity: a token sees those up to its
    own, but the first alone what is evicted. Shape (rows, 1, most new ones, most keys)."""
    sizes, counts = np.array([(part.size, part.num_new) for part in parts]).reshape(-1, 2).T
    ends = sizes[:, None] + np.minimum(np.arange(counts.max(initial=0)), counts[:, None] - 1)
    unseen = np.arange(ends.max(initial=-1) + 1) > ends[:, :, None]
    for row, part in enumerate(parts):
        unseen[row, 1:, list(part.evicted)] = True
    bias = np.where(unseen, np.float32(-np.inf), np.float32(0))
    return torch.from_numpy(bias)[:, None].to(device)
