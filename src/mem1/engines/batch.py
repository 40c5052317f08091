"""THE BATCH of the local engine, in torch: who is in it, and one step of all.

    TokenSequence -> Batch.add -> waiting -> a row, once one is free -> some tokens a step -> over

All but `add` runs in one thread, the engine's pool, which alone touches rows and prefixes.

Imported by `mem1.engines.local` alone, once torch is known to be there.
"""

from collections import deque
from collections.abc import Sequence
from itertools import accumulate, takewhile

import torch
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel

from mem1.engines.base import Codec
from mem1.engines.kernels import widened
from mem1.engines.kv import KV, Held, PrefixStore, cache_argument, num_tokens
from mem1.engines.lookup import Lookup
from mem1.engines.sequence import TokenSequence
from mem1.engines.slots import Slots, attending_over, can_batch

_WORTH_WAITING = 16
"""Tokens that are worth waiting a step for, if another sequence computes them in this one."""
_CACHED = 2**18
"""Scores that a core's cache holds, with what is computed of them."""


class Batch:
    """Sequences that are waiting or decoded, and what is remembered of earlier ones."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        codec: Codec,
        eos_ids: frozenset[int],
        max_rows: int,
        prefix_cache_tokens: int,
        lookahead: int,
    ) -> None:
        self._model = model
        self._cache_argument = cache_argument(type(model))
        self._codec = codec
        self._eos_ids = eos_ids
        self._max_rows = max_rows
        self.together = can_batch(model)
        """Whether all rows share one forward pass, and keys and values can be evicted."""
        self._lookahead = lookahead if self.together else 0
        remembers = self.together and prefix_cache_tokens > 0
        self._prefixes = PrefixStore(max_tokens=prefix_cache_tokens) if remembers else None
        self._waiting: deque[TokenSequence] = deque()
        self.clear_rows()

    def clear_rows(self) -> None:
        self._rows: list[TokenSequence] = []
        layers = self._model.config.get_text_config(decoder=True).num_hidden_layers
        self._slots = Slots(layers, max_rows=self._max_rows)

    def forget(self) -> None:
        """Drop all rows, and all keys and values."""
        self._rows = []
        self._slots.clear()
        if self._prefixes:
            self._prefixes.clear()

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._rows)

    def add(self, sequence: TokenSequence) -> None:
        """From any thread."""
        self._waiting.append(sequence)

    @torch.inference_mode()
    def step(self) -> list[TokenSequence]:
        """Let waiting sequences in, sample for each row. Gives those that are over."""
        for row in reversed(range(len(self._rows))):
            if self._rows[row].future.done():
                self._leave(row)
        self._admit()
        if not self._rows:
            return []
        logits = self._forward() if self.together else self._forward_apart()
        self._sample(logits)
        return self._take_finished()

    def _admit(self) -> None:
        """Let in who waits, but of those that share more than is known only one per step: the
        others then find it known."""
        joined: list[TokenSequence] = []
        for sequence in list(self._waiting):
            if len(self._rows) == self._max_rows:
                return
            if sequence.future.done():
                self._waiting.remove(sequence)
                continue
            known = None
            if self._prefixes and not sequence.held:
                ids = sequence.request.prompt_ids
                known = self._prefixes.longest(ids)
                if any(_share(ids, other, more_than=num_tokens(known)) for other in joined):
                    continue
                joined.append(sequence)
            self._waiting.remove(sequence)
            self._join(sequence, known=known)

    def _join(self, sequence: TokenSequence, *, known: KV | None) -> None:
        """Give a sequence a row. Args: `known`, keys and values of its first tokens."""
        self._rows.append(sequence)
        if self._lookahead:
            sequence.lookup = Lookup(sequence.request.prompt_ids, most=self._lookahead)
        request, held = sequence.request, sequence.held
        if held and request.carry:
            sequence.new_ids = (held.last_id, *request.new_ids)
            self._slots.join(
                held.kv,
                plain_ids=sequence.plain_ids,
                position=held.places[-1],
                evicted=held.columns_without(request.carry.kept),
            )
            sequence.held = None
            return
        sequence.new_ids = request.prompt_ids[num_tokens(known) :]
        if self.together:
            self._slots.join(known, plain_ids=request.prompt_ids, position=num_tokens(known))

    def _forward(self) -> torch.Tensor:
        """One pass over what is new of every row. Gives logits, shape (tokens, vocab): of each row
        those of its last token but its guess, and of each token of that."""
        device = self._model.device
        new = [row.new_ids for row in self._rows]
        decoding = takewhile(lambda row: row.token_ids or len(row.new_ids) == 1, self._rows)
        positions = self._slots.begin(
            [len(ids) for ids in new], num_decoding=sum(1 for _ in decoding), device=device
        )
        told_ends = accumulate(map(len, new))
        ends = [
            place
            for row, end in zip(self._rows, told_ends, strict=True)
            for place in range(end - 1 - len(row.guess), end)
        ]
        with attending_over(self._slots, self._model) as told:
            output = self._model(
                input_ids=torch.tensor([[token for ids in new for token in ids]], device=device),
                position_ids=positions,
                logits_to_keep=torch.tensor(ends, device=device),
                **told,
            )
        self._slots.end()
        if self._prefixes:
            for number, row in enumerate(self._rows):
                if row.begins and len(row.new_ids) >= _WORTH_WAITING:
                    self._prefixes.add(row.request.prompt_ids, self._slots.kv(number))
        self._slots.share_head([row.plain_ids for row in self._rows])
        return output.logits[0]

    def _forward_apart(self) -> torch.Tensor:
        """The same for models whose rows can't share a pass."""
        logits: list[torch.Tensor] = []
        for row in self._rows:
            row.cache = row.cache or DynamicCache(config=self._model.config)
            output = self._model(
                input_ids=torch.tensor([row.new_ids], device=self._model.device),
                use_cache=True,
                logits_to_keep=1,
                **{self._cache_argument: row.cache},
            )
            logits.append(output.logits[:, -1])
        return torch.cat(logits)

    def _sample(self, logits: torch.Tensor) -> None:
        """Append to each row its next token, and what was guessed behind it as far as it's what is
        sampled. Log-probabilities are of the full softmax, fp32 at least.

        Args: `logits`, shape (tokens, vocab), those of a row one after the other.
        """
        places = [(row, ahead) for row in self._rows for ahead in range(len(row.guess) + 1)]
        # What a CPU does step by step should stay in its cache.
        size = len(places) if logits.is_cuda else max(_CACHED // logits.shape[1], 1)
        sampled = iter(
            [
                found
                for start, own in zip(range(0, len(places), size), logits.split(size), strict=True)
                for found in self._sample_at(own, places=places[start : start + size])
            ]
        )
        for number, row in enumerate(self._rows):
            self._take(number, [next(sampled) for _ in range(len(row.guess) + 1)])

    def _sample_at(
        self, logits: torch.Tensor, *, places: Sequence[tuple[TokenSequence, int]]
    ) -> list[tuple[int, float]]:
        """Token and log-probability at some places. Args: `logits`, shape (places, vocab)."""
        scale = [row.request.sampling.temperature or 1.0 for row, _ in places]
        scores = widened(logits)
        if set(scale) != {1.0}:
            scores = scores / torch.tensor(scale, device=logits.device)[:, None]
        norm = scores.logsumexp(-1)
        tokens = self._choose(scores, norm=norm, places=places)
        logprobs = scores.gather(1, tokens[:, None])[:, 0] - norm
        return list(zip(tokens.tolist(), logprobs.tolist(), strict=True))

    def _choose(
        self,
        scores: torch.Tensor,
        *,
        norm: torch.Tensor,
        places: Sequence[tuple[TokenSequence, int]],
    ) -> torch.Tensor:
        """The token of each place, shape (places,). Args: `scores`, shape (places, vocab), the
        log-probabilities plus `norm`, shape (places,)."""
        settings = [row.request.sampling for row, _ in places]
        drawn = [number for number, of in enumerate(settings) if of.temperature > 0]
        everywhere = len(drawn) == len(places)
        # On CPUs `max` is twice as fast as `argmax`.
        tokens = norm.new_empty(len(places), dtype=torch.long) if everywhere else scores.max(-1)[1]
        if not drawn:
            return tokens
        own = (scores, norm) if everywhere else (scores[drawn], norm[drawn])
        tokens[drawn] = _draw(
            (own[0] - own[1][:, None]).exp(),
            top_p=[settings[number].top_p for number in drawn],
            at=[places[number][0].uniform(places[number][1]) for number in drawn],
        )
        return tokens

    def _take(self, number: int, sampled: Sequence[tuple[int, float]]) -> None:
        """Append what was sampled to a row. Args: `sampled`, token and log-probability of the next
        place, and of each place behind a guessed token, where it counts if the guess was right."""
        row = self._rows[number]
        guess, first = row.guess, len(row.token_ids)
        for (token, logprob), guessed in zip(sampled, (*guess, None), strict=True):
            row.append(token, logprob=logprob)
            row.check_end(codec=self._codec, eos_ids=self._eos_ids)
            if row.text is not None or token != guessed:
                break
        taken = len(row.token_ids) - first
        if guess:
            self._slots.rewind(number, len(guess) + 1 - taken)
        if row.lookup:
            row.lookup.learn(guessed=len(guess), right=taken - 1)
        row.look_ahead()

    def _take_finished(self) -> list[TokenSequence]:
        finished = [row for row in self._rows if row.text is not None]
        for number in reversed(range(len(self._rows))):
            if self._rows[number].text is not None:
                self._leave(number)
        return finished

    def _leave(self, number: int) -> None:
        """Free a row; the last one moves to its place, as in `Slots.leave`."""
        row = self._rows[number]
        self._rows[number] = self._rows[-1]
        self._rows.pop()
        if not self.together:
            return
        # The last sampled token was never fed to the model.
        if row.token_ids and row.request.carry:
            kv = self._slots.kv(number)
            row.held = Held(kv=kv, places=row.places, last_id=row.token_ids[-1])
        elif row.token_ids and self._prefixes:
            ids = (*row.request.prompt_ids, *row.token_ids[:-1])
            self._prefixes.add(ids, self._slots.kv(number))
        self._slots.leave(number)


def _share(ids: Sequence[int], other: TokenSequence, *, more_than: int) -> bool:
    end = more_than + _WORTH_WAITING
    return len(ids) > end and ids[:end] == other.request.prompt_ids[:end]


_BLOCK = 256


def _draw(
    probabilities: torch.Tensor, *, top_p: Sequence[float], at: Sequence[float]
) -> torch.Tensor:
    """In each row the token at quantile `at` of the distribution, cut to its smallest nucleus of
    mass `top_p` (Holtzman et al. 2020). Shapes: probabilities (rows, vocab), the others (rows,).

    Looks for the block of tokens first, then for the token: sums in float64, and few of them.
    """
    if min(top_p) < 1:
        probabilities = _cut(probabilities, nucleus=probabilities.new_tensor(top_p))
    blocks = pad(probabilities, (0, -probabilities.shape[1] % _BLOCK)).unflatten(1, (-1, _BLOCK))
    ends = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    goal = torch.tensor(at, dtype=torch.float64, device=ends.device)[:, None] * ends[:, -1:]
    block = _place(ends, goal)
    before = torch.where(block > 0, ends.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks[torch.arange(len(blocks)), block[:, 0]].double().cumsum(-1)
    return (block * _BLOCK + _place(inside, goal - before))[:, 0]


def _cut(probabilities: torch.Tensor, *, nucleus: torch.Tensor) -> torch.Tensor:
    """The distributions, each without what is outside of its smallest nucleus. Shapes:
    probabilities (rows, vocab), nucleus (rows,).

    Most tokens of a trained policy are a nucleus of their own: only the others are sorted.
    """
    most, best = probabilities.max(-1)
    cut = torch.zeros_like(probabilities).scatter_(1, best[:, None], most[:, None])
    wide = (nucleus > most) & (nucleus < 1)
    ordered, order = probabilities[wide].sort(descending=True)
    outside = ordered.cumsum(-1) - ordered >= nucleus[wide, None]
    cut[wide] = torch.zeros_like(ordered).scatter_(1, order, ordered.masked_fill_(outside, 0.0))
    return torch.where(nucleus[:, None] < 1, cut, probabilities)


def _place(sums: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """In each row the first place whose sum is above the goal, which rounding may have lifted to
    the last sum: something has mass there. Shapes: sums (rows, places), goal (rows, 1)."""
    below = torch.nextafter(sums[:, -1:], sums.new_zeros(()))
    return torch.searchsorted(sums, torch.minimum(goal, below), right=True)
