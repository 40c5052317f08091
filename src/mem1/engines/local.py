"""Any Hugging Face causal language model in this process.

    Request -> waiting -> prefill (only what no earlier sequence shares) -> a row of the batch
            -> a token or more per step for all rows -> Completion; the row is free for the next

Continuous batching: sequences join and leave the decoding batch at any step. What a sequence gets
sampled depends on its own seed only. Sampled ids are never decoded and encoded again.

An episode that is carried leaves its keys and values to its next request, which goes on from them:
only what is new is computed, and what isn't kept is evicted.

Requests, futures and what episodes leave belong to the event loop, in this module; rows, keys and
values of a step to one thread, in `mem1.engines.batch`.
"""

import asyncio
import random
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mem1.engines.base import Codec, Request, cannot_carry
from mem1.engines.sequence import TokenSequence
from mem1.errors import BudgetError, EngineError, MissingExtraError, ModelError
from mem1.types import Completion

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mem1.engines.kv import Held


class LocalEngine:
    """A `CarryingEngine` over a transformers model, batched, with reuse of shared prefixes."""

    def __init__(
        self,
        model: "PreTrainedModel",
        *,
        codec: Codec,
        eos_ids: Sequence[int] = (),
        max_batch: int = 16,
        prefix_cache_tokens: int = 65_536,
        lookahead: int = 8,
    ) -> None:
        """Args: `eos_ids`, ids that end a reply besides those of the model's generation config;
        `max_batch`, most sequences decoded at once; `prefix_cache_tokens`, how many tokens' keys
        and values are kept for reuse (0: none); `lookahead`, most tokens of a reply that are
        guessed from its text and computed with the next one (0: none), which changes no reply.

        Raises: ModelError for a model that keeps no keys and values."""
        from mem1.engines.batch import Batch

        self._model = model.eval()
        self._config = model.config.get_text_config(decoder=True)
        self._batch = Batch(
            model,
            codec=codec,
            eos_ids=frozenset([*eos_ids, *_listed(model.generation_config.eos_token_id)]),
            max_rows=max_batch,
            prefix_cache_tokens=prefix_cache_tokens,
            lookahead=lookahead,
        )
        self._max_batch = max_batch
        self._held: dict[Hashable, Held] = {}
        """What each episode has left to its next request."""
        self._open: set[TokenSequence] = set()
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
        return getattr(self._config, "max_position_embeddings", None)

    @property
    def can_carry(self) -> bool:
        return self._batch.together

    async def complete(self, request: Request) -> Completion:
        if self._closed:
            raise EngineError("local engine: closed")
        self._check_budget(request)
        loop = asyncio.get_running_loop()
        sequence = TokenSequence(
            request=request,
            future=loop.create_future(),
            rng=random.Random(request.sampling.seed),
            held=self._left_to(request),
        )
        self._batch.add(sequence)
        if self._pump is None or self._pump.done():
            self._pump = loop.create_task(self._run())
        self._open.add(sequence)
        try:
            return await sequence.future
        finally:
            self._open.discard(sequence)

    def release(self, episode: Hashable) -> None:
        self._held.pop(episode, None)

    def forget(self) -> None:
        """The weights have changed: drop all keys and values that were computed with the old ones.
        Episodes that are carried can't go on.

        Raises: EngineError while sequences are under way.
        """
        if self._open:
            raise EngineError(f"local engine: can't forget, sequences under way: {len(self._open)}")
        self._held.clear()
        self._pool.submit(self._batch.forget).result()

    async def close(self) -> None:
        self._closed = True
        if self._pump:
            self._pump.cancel()
        self._fail("closed")
        self._held.clear()
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    def _check_budget(self, request: Request) -> None:
        num_prompt, num_reply, window = len(request.prompt_ids), request.max_tokens, self.window
        if min(num_prompt, num_reply) < 1:
            raise BudgetError(
                f"{num_prompt} prompt tokens and {num_reply} to sample: at least 1 of each, please"
            )
        if window is not None and request.end > window:
            carried = f" behind {request.carry.start} carried ones" if request.carry else ""
            raise BudgetError(
                f"{len(request.new_ids)} prompt tokens and {num_reply} to sample{carried} don't "
                f"fit the model's window of {window}"
            )

    def _left_to(self, request: Request) -> "Held | None":
        """What an episode has left to this request, which now owns it."""
        if request.carry is None:
            return None
        if not self.can_carry:
            raise cannot_carry(self)
        held = self._held.pop(request.carry.episode, None)
        if request.carry.start != (held.end if held else 0):
            raise EngineError(
                f"local engine: an episode goes on behind {request.carry.start} tokens, but keys "
                f"and values of {held.end if held else 0} are held"
            )
        return held

    async def _run(self) -> None:
        """Step in the pool for as long as there's work; hand out what finished or why it failed."""
        while self._batch.busy:
            # Episodes that go on at once join this step, not a race: what is sampled together
            # decides the last bits of a log-probability.
            await asyncio.sleep(0)
            step = asyncio.get_running_loop().run_in_executor(self._pool, self._step)
            await asyncio.wait([step])
            if error := step.exception():
                self._fail(self._reason(error))
                continue
            for sequence in step.result():
                self._hand_out(sequence)

    def _step(self) -> list[TokenSequence]:
        try:
            return self._batch.step()
        except BaseException:
            self._batch.clear_rows()
            raise

    def _hand_out(self, sequence: TokenSequence) -> None:
        if sequence.future.done():
            return
        if sequence.held and sequence.request.carry:
            self._held[sequence.request.carry.episode] = sequence.held
        sequence.future.set_result(sequence.completion())

    def _reason(self, error: BaseException) -> str:
        if type(error).__name__ != "OutOfMemoryError":
            return repr(error)
        return (
            f"out of memory while sampling: set engine.max_batch = {max(1, self._max_batch // 2)}, "
            f"it was {self._max_batch}, or a lower engine.prefix_cache_tokens; mem1 plan tells "
            f"what fits ({error})"
        )

    def _fail(self, reason: str) -> None:
        """Nobody waits forever. Sequences whose future is done are dropped by the next step."""
        for sequence in self._open:
            if not sequence.future.done():
                sequence.future.set_exception(EngineError(f"local engine: {reason}"))


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
        with _gguf_read_once() if options else nullcontext():
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


@contextmanager
def _gguf_read_once() -> Iterator[None]:
    """transformers has gguf read a file for the config and again for the weights, and make the same
    table of names for every module of a model; both take long. Raises: MissingExtraError."""
    try:
        import gguf
    except ImportError as error:
        raise MissingExtraError("gguf", extra="local") from error
    read, name = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = cache(read), cache(name)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = read, name


def _computes_in_bfloat16(device: str) -> bool:
    import torch

    if device != "cpu":
        return True
    capability = getattr(torch.cpu, "get_capabilities", dict[str, bool])()
    return bool(capability.get("amx_bf16") or capability.get("avx512_bf16"))
