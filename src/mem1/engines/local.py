"""Any Hugging Face causal language model in this process.

    Request -> waiting -> prefill (only what no earlier sequence shares) -> a row of the batch
            -> one token per step for all rows -> Completion; the row is free for the next

Continuous batching: sequences join and leave the decoding batch at any step. What a sequence gets
sampled depends on its own seed only. Sampled ids are never decoded and encoded again.
"""

import asyncio
import inspect
import random
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mem1.engines.base import Codec, Request
from mem1.errors import BudgetError, EngineError, MissingExtraError, ModelError
from mem1.types import Completion

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    from mem1.engines.slots import Slots


_WORTH_WAITING = 16
"""Tokens that are worth waiting a step for, if another sequence computes them in this one."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Sequence:
    """A request on its way."""

    request: Request
    future: "asyncio.Future[Completion]"
    rng: random.Random
    token_ids: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])
    text: str | None = None
    """Set when it's finished."""
    finish_reason: str = "length"
    new_ids: tuple[int, ...] = ()
    """What the next forward pass takes of it."""
    cache: Any = None
    """Keys and values of its own, for models that can't be batched."""


class LocalEngine:
    """An `Engine` over a transformers model, batched, with reuse of shared prefixes."""

    def __init__(
        self,
        model: "PreTrainedModel",
        *,
        codec: Codec,
        eos_ids: Sequence[int] = (),
        max_batch: int = 16,
        prefix_cache_tokens: int = 65_536,
    ) -> None:
        """Args: `eos_ids`, ids that end a reply besides those of the model's generation config;
        `max_batch`, most sequences decoded at once; `prefix_cache_tokens`, how many tokens' keys
        and values are kept for reuse (0: none)."""
        from mem1.engines.kv import PrefixStore
        from mem1.engines.slots import can_batch

        if "past_key_values" not in inspect.signature(model.forward).parameters:
            raise ModelError(
                f"{type(model).__name__} does not decode with past_key_values: serve it with vLLM "
                "or the like, and use engine.kind = 'openai'"
            )
        self._model = model.eval()
        self._codec = codec
        self._max_batch = max_batch
        self._eos_ids = frozenset([*eos_ids, *_listed(model.generation_config.eos_token_id)])
        self._batched = can_batch(model)
        self._slots = self._new_slots()
        self._prefixes = PrefixStore(max_tokens=prefix_cache_tokens if self._batched else 0)
        self._open: set[_Sequence] = set()
        self._waiting: deque[_Sequence] = deque()
        self._rows: list[_Sequence] = []
        self._pump: asyncio.Task[None] | None = None
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mem1-local")
        self._closed = False

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        codec: Codec,
        device: str | None = None,
        dtype: str | None = None,
        **settings: Any,
    ) -> "LocalEngine":
        """Load a folder with safetensors, or a `.gguf` file.

        Args: `device`, default a GPU if there is one; `dtype`, default bfloat16 where the hardware
        computes in it, else float32; `settings`, as for the class.
        Raises: ModelError if there's no model.
        """
        return cls(load_model(path, device=device, dtype=dtype), codec=codec, **settings)

    @property
    def window(self) -> int | None:
        return getattr(self._text_config, "max_position_embeddings", None)

    @property
    def _text_config(self) -> "PretrainedConfig":
        return self._model.config.get_text_config(decoder=True)

    async def complete(self, request: Request) -> Completion:
        if self._closed:
            raise EngineError("local engine: closed")
        self._check_budget(request)
        loop = asyncio.get_running_loop()
        sequence = _Sequence(
            request=request,
            future=loop.create_future(),
            rng=random.Random(request.sampling.seed),
        )
        self._waiting.append(sequence)
        if self._pump is None or self._pump.done():
            self._pump = loop.create_task(self._run())
        self._open.add(sequence)
        try:
            return await sequence.future
        finally:
            self._open.discard(sequence)

    async def close(self) -> None:
        self._closed = True
        if self._pump:
            self._pump.cancel()
        self._fail("closed")
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    def forget(self) -> None:
        """The weights have changed: drop all keys and values that were computed with the old ones.

        Raises: EngineError while sequences are under way.
        """
        if self._open:
            raise EngineError(f"local engine: {len(self._open)} sequences are under way")
        self._slots, self._rows = self._new_slots(), []
        self._prefixes.clear()

    def _check_budget(self, request: Request) -> None:
        num_prompt, num_reply = len(request.prompt_ids), request.max_tokens
        if min(num_prompt, num_reply) < 1:
            raise BudgetError(
                f"{num_prompt} prompt tokens and {num_reply} to sample: at least 1 of each, please"
            )
        if self.window is not None and num_prompt + num_reply > self.window:
            raise BudgetError(
                f"{num_prompt} prompt tokens and {num_reply} to sample don't fit the model's "
                f"window of {self.window}"
            )

    async def _run(self) -> None:
        """Step in the pool for as long as there's work; hand out what finished or why it failed."""
        while self._waiting or self._rows:
            step = asyncio.get_running_loop().run_in_executor(self._pool, self._step)
            await asyncio.wait([step])
            if error := step.exception():
                self._fail(repr(error))
                continue
            for sequence in step.result():
                if not sequence.future.done():
                    sequence.future.set_result(_completion(sequence))

    def _fail(self, reason: str) -> None:
        """Nobody waits forever. Sequences whose future is done are dropped by the next step."""
        for sequence in self._open:
            if not sequence.future.done():
                sequence.future.set_exception(EngineError(f"local engine: {reason}"))

    def _new_slots(self) -> "Slots":
        from mem1.engines.slots import Slots

        return Slots(self._text_config.num_hidden_layers, max_rows=self._max_batch)

    def _step(self) -> list[_Sequence]:
        """One step, in the pool's only thread, which alone touches rows, slots and prefixes."""
        import torch

        try:
            with torch.inference_mode():
                return self._advance()
        except BaseException:
            self._rows, self._slots = [], self._new_slots()
            raise

    def _advance(self) -> list[_Sequence]:
        """Let waiting sequences in, sample one token for each row. Gives those that finished."""
        for row in reversed(range(len(self._rows))):
            if self._rows[row].future.done():
                self._leave(row)
        self._admit()
        if not self._rows:
            return []
        logits = self._forward() if self._batched else self._forward_apart()
        self._sample(logits, self._rows)
        return self._take_finished()

    def _admit(self) -> None:
        """Let in who waits, but of those that share more than is known only one per step: the
        others then find it known."""
        joined: list[_Sequence] = []
        for sequence in list(self._waiting):
            if len(self._rows) == self._max_batch:
                return
            if sequence.future.done():
                self._waiting.remove(sequence)
                continue
            known = self._prefixes.longest(sequence.request.prompt_ids) if self._batched else None
            num_known = known[0][0].shape[2] if known else 0
            ids = sequence.request.prompt_ids
            if any(self._shares(ids, other, more_than=num_known) for other in joined):
                continue
            self._waiting.remove(sequence)
            sequence.new_ids = ids[num_known:]
            joined.append(sequence)
            self._rows.append(sequence)
            if self._batched:
                self._slots.join(ids, known)

    def _shares(self, ids: Sequence[int], other: _Sequence, *, more_than: int) -> bool:
        end = more_than + _WORTH_WAITING
        return len(ids) > end and ids[:end] == other.request.prompt_ids[:end]

    def _forward(self) -> "torch.Tensor":
        """One pass over what is new of every row. Gives logits, shape (rows, vocab)."""
        import torch

        from mem1.engines.slots import attending_over

        device = self._model.device
        new = [row.new_ids for row in self._rows]
        positions = self._slots.begin([len(ids) for ids in new], device=device)
        ends = torch.tensor([len(ids) for ids in new], device=device).cumsum(0) - 1
        with attending_over(self._slots, self._model) as told:
            output = self._model(
                input_ids=torch.tensor([[token for ids in new for token in ids]], device=device),
                position_ids=positions,
                logits_to_keep=ends,
                **told,
            )
        self._slots.end()
        for number, row in enumerate(self._rows):
            if not row.token_ids and len(row.new_ids) >= _WORTH_WAITING:
                self._prefixes.add(row.request.prompt_ids, self._slots.kv(number))
        self._slots.share_head([(*row.request.prompt_ids, *row.token_ids) for row in self._rows])
        return output.logits[0]

    def _forward_apart(self) -> "torch.Tensor":
        """The same for models whose rows can't share a pass."""
        import torch
        from transformers import DynamicCache

        logits: list[torch.Tensor] = []
        for row in self._rows:
            row.cache = row.cache or DynamicCache(config=self._model.config)
            output = self._model(
                input_ids=torch.tensor([row.new_ids], device=self._model.device),
                past_key_values=row.cache,
                use_cache=True,
                logits_to_keep=1,
            )
            logits.append(output.logits[:, -1])
        return torch.cat(logits)

    def _sample(self, logits: "torch.Tensor", sequences: Sequence[_Sequence]) -> None:
        """Append one token to each sequence. Log-probabilities are of the full softmax, fp32."""
        import torch

        settings = [sequence.request.sampling for sequence in sequences]
        scale = torch.tensor([s.temperature or 1.0 for s in settings], device=logits.device)
        logprobs = (logits.float() / scale[:, None]).log_softmax(-1)
        tokens = logprobs.argmax(-1)
        for row, (sequence, sampling) in enumerate(zip(sequences, settings, strict=True)):
            if sampling.temperature > 0:
                tokens[row] = _draw(logprobs[row], top_p=sampling.top_p, at=sequence.rng.random())
        chosen = logprobs.gather(1, tokens[:, None])[:, 0]
        for sequence, token, logprob in zip(
            sequences, tokens.tolist(), chosen.tolist(), strict=True
        ):
            sequence.token_ids.append(token)
            sequence.new_ids = (token,)
            sequence.logprobs.append(logprob)
            self._check_end(sequence)

    def _check_end(self, sequence: _Sequence) -> None:
        """Finish a sequence that ended with its last token."""
        ids, request = sequence.token_ids, sequence.request
        if ids[-1] in self._eos_ids:
            sequence.text, sequence.finish_reason = self._codec.decode(ids[:-1]), "stop"
        elif request.stop and self._stopped(ids, stop=request.stop):
            sequence.text, sequence.finish_reason = self._codec.decode(ids), "stop"
        elif len(ids) >= request.max_tokens:
            sequence.text, sequence.finish_reason = self._codec.decode(ids), "length"

    def _stopped(self, token_ids: list[int], *, stop: Sequence[str]) -> bool:
        # A token has at least one byte, so a stop string can't span more tokens than it has bytes.
        tail = token_ids[-max(len(string.encode()) for string in stop) :]
        text = self._codec.decode(tail)
        return any(string in text for string in stop)

    def _take_finished(self) -> list[_Sequence]:
        finished = [row for row in self._rows if row.text is not None]
        for row in reversed(range(len(self._rows))):
            if self._rows[row].text is not None:
                self._leave(row)
        return finished

    def _leave(self, row: int) -> None:
        """Free a row; the last one moves to its place, as in `Slots.leave`."""
        sequence = self._rows[row]
        self._rows[row] = self._rows[-1]
        self._rows.pop()
        if self._batched:
            # The last sampled token was never fed to the model.
            ids = (*sequence.request.prompt_ids, *sequence.token_ids[:-1])
            if sequence.token_ids:
                self._prefixes.add(ids, self._slots.kv(row))
            self._slots.leave(row)


def _draw(logprobs: "torch.Tensor", *, top_p: float, at: float) -> "torch.Tensor":
    """The token at quantile `at` of the distribution, cut to its smallest nucleus of mass `top_p`
    (Holtzman et al. 2020)."""
    import torch

    probabilities = logprobs.double().exp()
    if top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        outside = ordered.cumsum(-1) - ordered >= top_p
        probabilities[order[outside]] = 0.0
    mass = probabilities.cumsum(-1)
    target = torch.tensor([at], dtype=mass.dtype, device=mass.device) * mass[-1]
    return torch.searchsorted(mass, target, right=True)[0].clamp(max=len(mass) - 1)


def _completion(sequence: _Sequence) -> Completion:
    assert sequence.text is not None
    return Completion(
        token_ids=tuple(sequence.token_ids),
        logprobs=tuple(sequence.logprobs),
        temperature=sequence.request.sampling.temperature or 1.0,
        text=sequence.text,
        finish_reason="stop" if sequence.finish_reason == "stop" else "length",
    )


def _listed(ids: int | Sequence[int] | None) -> Sequence[int]:
    if ids is None:
        return ()
    return (ids,) if isinstance(ids, int) else ids


def load_model(path: Path, *, device: str | None, dtype: str | None) -> "PreTrainedModel":
    """A causal language model of a folder with safetensors or a `.gguf` file.

    Args: `device`, `dtype`, as in `LocalEngine.load`. Raises: ModelError if there's no model.
    """
    try:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise MissingExtraError("torch and transformers", extra="local") from error
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or ("bfloat16" if _computes_in_bfloat16(device) else "float32")
    if not path.exists():
        raise ModelError(f"model {path}: no such file or folder")
    options = _gguf_options(path) if path.suffix == ".gguf" else {}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(path.parent if options else path),
            dtype=getattr(torch, dtype),
            local_files_only=True,
            trust_remote_code=False,
            **options,
        )
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise ModelError(f"{path}: no model that transformers can load: {error}") from error
    return model.to(device)  # type: ignore[arg-type]


def _gguf_options(path: Path) -> dict[str, Any]:
    """Load GGUF weights dense, as all versions of transformers can; newer ones keep them packed,
    which is small but slow."""
    import transformers

    packed = getattr(transformers, "GgufConfig", None)
    dense = {"quantization_config": packed(dequantize=True)} if packed else {}
    return {"gguf_file": path.name, **dense}


def _computes_in_bfloat16(device: str) -> bool:
    import torch

    if device != "cpu":
        return True
    capability = getattr(torch.cpu, "get_capabilities", dict[str, bool])()
    return bool(capability.get("amx_bf16") or capability.get("avx512_bf16"))
