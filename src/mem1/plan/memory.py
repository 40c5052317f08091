"""A SHAPE AND A WAY TO TRAIN -> BYTES ON A DEVICE, item by item.

    Shape, Use -> items -> [Item] -> peak: bytes while sampling, in the update, in the step, …

What is counted is what the code holds; each item says where. P is a model's parameters, b the bytes
of `engine.dtype`, w = max(b, 4) those of what must not round, W the processes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from mem1.plan.shape import Shape

Phase = Literal["sampling", "update", "step", "export"]
PHASES: tuple[Phase, ...] = ("sampling", "update", "step", "export")
SPARE_TOKENS = 256
"""What a row of the engine may grow before it's laid out anew (`engines/slots.py`)."""
HEAD_CHUNK = 1024
"""Rows of logits that exist at once (`train/scoring.py`)."""
_HEAD_BYTES = 24
"""Of a logit while the head goes backward: log-probability, probability, and four between them and
the gradient, in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something that takes memory on each device."""

    name: str
    bytes: int
    phases: tuple[Phase, ...] = PHASES
    """When it's there."""
    on_host: bool = False
    """Whether it's in the machine's own memory instead (`train.distributed.cpu_offload`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What of `[train]` takes memory."""

    row_tokens: int
    """Tokens of the longest row."""
    adapters: int | None = None
    """Parameters of low-rank adapters; None: the whole model trains."""
    adapter_rank: int = 0
    adapter_targets: tuple[str, ...] = ()
    """Names of the layers that have adapters; empty: all linear ones."""
    valued: bool = False
    """Whether there is a critic; the layer that values is a few numbers."""
    critic: Shape | None = None
    """Of a critic that is a model of its own."""
    reference: bool = False
    """A frozen copy of the model."""
    copied: bool = False
    """A copy that episodes are sampled from."""
    overlapped: bool = False
    """Whether episodes are sampled during the update (`train.staleness`)."""
    checkpointing: bool = False
    offload: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """What of the local engine takes memory."""

    rows: int
    """Rows that its buffers have (`engine.max_batch`)."""
    joining: int
    """Rows that may be computed from their first token on at once."""
    context: int
    """Most tokens of a context with its reply."""
    prompt: int
    """Most tokens of a context."""
    stored: int
    """Tokens whose keys and values are kept besides."""
    guesses: int
    """Tokens that are guessed in each row."""
    nucleus: bool
    """Whether `sampling.top_p` cuts the distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """How a model is used on each device."""

    itemsize: int
    """Bytes of a weight, b."""
    processes: int = 1
    on_gpu: bool = True
    training: Training | None = None
    sampling: Sampling | None = None

    @property
    def wide(self) -> int:
        return max(self.itemsize, 4)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Those that there are."""
        training = self.training
        there: dict[Phase, bool] = {
            "sampling": self.sampling is not None,
            "update": training is not None,
            "step": training is not None,
            # Merged into a copy of the model (`train/policy.py`).
            "export": training is not None and bool(training.adapters),
        }
        return tuple(phase for phase in PHASES if there[phase])


def items(shape: Shape, use: Use) -> list[Item]:
    """All that takes memory on each device, in bytes; the largest it can be."""
    found = [*_held(shape, use), *_sampled(shape, use), *_updated(shape, use)]
    there = frozenset(use.phases)
    return [
        replace(item, phases=tuple(phase for phase in item.phases if phase in there))
        for item in found
        if item.bytes
    ]


def peak(found: Sequence[Item], *, phases: Sequence[Phase]) -> dict[Phase, int]:
    """Bytes of each phase on a device."""
    return {
        phase: sum(item.bytes for item in found if phase in item.phases and not item.on_host)
        for phase in phases
    }


def host_bytes(shape: Shape, use: Use, *, found: Sequence[Item]) -> int:
    """Most bytes of the machine's own memory that processes on GPUs take together: each has all
    models whole before they are cut, one of them widened (`train/distributed.py`); and what is
    offloaded."""
    training, size = use.training, use.processes
    if training is None or size == 1:
        return 0
    policy = use.wide if training.adapters is None else 2 * use.itemsize
    others = shape.parameters if training.reference and training.adapters is None else 0
    others += training.critic.parameters if training.critic else 0
    starting = policy * shape.parameters + use.itemsize * others
    return size * max(starting, sum(item.bytes for item in found if item.on_host))


def _held(shape: Shape, use: Use) -> Iterator[Item]:
    """Weights, and what stays beside them from step to step (`train/policy.py`, `optimizer.py`)."""
    training, b, w = use.training, use.itemsize, use.wide
    if training is None:
        if use.sampling:
            yield Item(name="weights", bytes=b * shape.parameters)
        return
    host, size = training.offload, use.processes
    adapters = training.adapters
    heads = (shape.hidden + 1) * w if training.valued else 0
    trained = shape.parameters if adapters is None else adapters
    # In several processes what trains is widened in place; in one it's kept a second time.
    narrow = b if size == 1 else w
    weights = shape.parameters * (narrow if adapters is None else b)
    weights += heads + (adapters or 0) * w
    yield Item(name="weights", bytes=ceil(weights / size), on_host=host)
    if adapters is None and size == 1 and b < w:
        yield Item(name="float32 copies", bytes=w * trained)
    yield Item(name="optimizer", bytes=ceil(2 * w * trained / size), on_host=host)
    if training.reference and adapters is None:
        yield Item(name="reference", bytes=ceil(b * shape.parameters / size), on_host=host)
    if training.critic:
        copies = w if size == 1 and b < w else 0
        critic = training.critic.parameters * (narrow + copies) + 2 * w * _learning(training.critic)
        yield Item(name="critic and its optimizer", bytes=ceil(critic / size), on_host=host)
    copied = b * shape.parameters + w * (adapters or 0)
    if training.copied:
        yield Item(name="copy that samples", bytes=copied)
    if adapters:
        yield Item(name="merged copy", bytes=copied, phases=("export",))


def _learning(critic: Shape) -> int:
    """Parameters of a critic that get a gradient: an output head of its own doesn't."""
    return critic.parameters - (0 if critic.tied else critic.embedding)


def kv_bytes(shape: Shape, *, itemsize: int) -> int:
    """Keys and values of a token."""
    return 2 * shape.layers * shape.kept * itemsize


def _sampled(shape: Shape, use: Use) -> Iterator[Item]:
    """The local engine (`engines/slots.py`, `engines/kv.py`, `engines/batch.py`)."""
    sampling, b = use.sampling, use.itemsize
    if sampling is None:
        return
    overlapped = use.training is not None and use.training.overlapped
    phases: tuple[Phase, ...] = ("sampling", "update", "step") if overlapped else ("sampling",)
    tokens = sampling.rows * (sampling.context + SPARE_TOKENS) + sampling.stored
    yield Item(name="keys and values", bytes=tokens * kv_bytes(shape, itemsize=b))
    widest = max(3 * shape.intermediate, 6 * shape.attended) + 2 * shape.hidden
    read = sampling.joining * sampling.prompt * widest * b
    yield Item(name="reading prompts", bytes=read, phases=phases)
    # Logits, widened, scaled, probabilities; for a nucleus, sorted with their places, and sums.
    each = b + 16 + (28 if sampling.nucleus else 0)
    logits = sampling.rows * (sampling.guesses + 1) * shape.vocab * each
    yield Item(name="logits", bytes=logits, phases=phases)


def _updated(shape: Shape, use: Use) -> Iterator[Item]:
    """A row forward and backward (`train/scoring.py`, `train/update.py`), then the step."""
    training, w, size = use.training, use.wide, use.processes
    if training is None:
        return
    trained = shape.parameters if training.adapters is None else training.adapters
    with_gradient = trained + (_learning(training.critic) if training.critic else 0)
    yield Item(
        name="gradients",
        bytes=ceil(w * with_gradient / size),
        phases=("update", "step"),
        on_host=training.offload,
    )
    saved = sum(saved_bytes(model, use) for model in (shape, training.critic) if model)
    yield Item(name="activations", bytes=training.row_tokens * saved, phases=("update",))
    yield Item(name="going backward", bytes=_working(shape, use), phases=("update",))
    if size > 1:
        yield Item(name="gathered layers", bytes=_gathered(shape, use), phases=("update",))
    if not training.offload:
        # AdamW takes all weights at once on a GPU, else one after the other.
        stepped = ceil(trained / size) if use.on_gpu else min(2 * shape.embedding, trained)
        yield Item(name="stepping", bytes=w * stepped, phases=("step",))


def saved_bytes(shape: Shape, use: Use) -> int:
    """What a model's forward pass keeps of a token for the backward pass."""
    assert use.training is not None
    b = use.itemsize
    outer = (4 + 2 * b) * shape.hidden + 2 * b * shape.hidden
    if use.training.checkpointing:
        return outer + shape.layers * b * shape.hidden
    return outer + shape.layers * _layer_bytes(shape, use)


def _layer_bytes(shape: Shape, use: Use) -> int:
    """What a decoder layer keeps of a token.

    A norm keeps its input in float32 and what it scales; a linear layer its input, one for those
    that share it; attention queries, keys, values, output and log-sum-exps; the MLP what its
    activation and its product take. With adapters, layers of less than float32 are frozen and keep
    nothing, but each adapter keeps its input in float32.
    """
    assert use.training is not None
    training, b, w = use.training, use.itemsize, use.wide
    hidden, attended, kept = shape.hidden, shape.attended, shape.kept
    norms = 2 * 4 * hidden
    attention = b * (2 * attended + 2 * kept) + 4 * shape.heads
    mlp = 3 * b * shape.intermediate
    if training.adapters is None:
        scaled, inputs = 2 * b * hidden, b * (2 * hidden + attended + shape.intermediate)
        return norms + scaled + attention + mlp + inputs
    targets = training.adapter_targets
    meant = {name: size for name, size in shape.linears.items() if not targets or name in targets}
    widths = [size[0] for size in meant.values()]
    if b == w:
        groups = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "o_proj": 1, "gate_proj": 2, "up_proj": 2}
        widths = list({groups.get(name, 3): size[0] for name, size in meant.items()}.values())
    adapters = w * (sum(widths) + training.adapter_rank * len(meant))
    return norms + attention + mlp + adapters


def _working(shape: Shape, use: Use) -> int:
    """Most that exists for a moment on the way back, in the head or in a layer."""
    assert use.training is not None
    training, b, w = use.training, use.itemsize, use.wide
    whole = training.adapters is None
    # The head's gradient: summed in w, a chunk's share, that share widened, all rounded.
    to_head = shape.embedding * (w + b + (w if b < w else 0)) if whole else 0
    head = min(HEAD_CHUNK, training.row_tokens) * shape.vocab * _HEAD_BYTES * w // 4 + to_head
    # A tied head's gradient waits for the embedding's.
    waiting = b * shape.embedding if whole and shape.tied else 0
    back = (3 * shape.intermediate + 4 * shape.hidden) * b
    back += 0 if whole or b == w else 2 * w * shape.intermediate
    again = _layer_bytes(shape, use) if training.checkpointing else 0
    return max(head, waiting + training.row_tokens * (back + again))


def _gathered(shape: Shape, use: Use) -> int:
    """Weights that FSDP2 has whole for a moment, and their gradients before they are divided
    (`train/distributed.py`): what stands outside of layers, and two layers."""
    assert use.training is not None
    training, b, w = use.training, use.itemsize, use.wide
    models = 2 if training.critic else 1
    weights = b * (models * shape.outside + 2 * shape.layer)
    whole = training.adapters is None or training.critic is not None
    return weights + (max(shape.outside, shape.layer) * (b + w) if whole else 0)
