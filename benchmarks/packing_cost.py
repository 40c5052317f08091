"""What does exact packing cost, against one sequence for each turn?

    OMP_NUM_THREADS=1 python benchmarks/packing_cost.py    -> docs/results/packing_cost.json
    python benchmarks/packing_cost.py --device cuda        -> docs/results/packing_cost_cuda.json

A forward and a backward pass over one trajectory (or four of a prompt) in the settings of MEM1's
paper and three others, laid out in four ways, one after the other, several times over:

    packed     exact packing: each causal prefix once
    turns      one sequence for each turn, without padding, through the same attention: the baseline
    padded     one padded sequence for each turn, transformers' own attention
    stitched   the paper's layout, dense mask; what it computes isn't what was sampled

`times` is a layout's time over the packed one's, medians of `passes`; `bound` the ratio of tokens
of `turns` and `packed`, `flops_bound` that of their arithmetic. On a CPU, seconds are of processor
time; memory is what a fresh process grows by during one pass, of a row that holds everything
(stitched: a row for each rollout).

Nobody has run it with `--device cuda` yet.
"""

import argparse
import copy
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
import transformers
from stitched import Step, Stitched, episode, stitch

from mem1.files import atomic_write
from mem1.packing import PackedBatch, pack
from mem1.train.attention import check_model
from mem1.train.scoring import score
from mem1.train.verify import difference
from mem1.types import Trajectory

ROOT = Path(__file__).parent.parent
SETTINGS = {
    "paper": (400, 150, 30, 600, 6, 1),
    "long": (400, 150, 30, 600, 20, 1),
    "webshop": (700, 150, 20, 900, 15, 1),
    "prompt-heavy": (1000, 100, 20, 300, 10, 1),
    "paper, 4 rollouts": (400, 150, 30, 600, 6, 4),
}
"""Tokens of prompt, internal state, action and observation; turns; rollouts of the prompt."""
JITTER = 0.35
"""Lengths differ by up to this share."""
QWEN = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
}
"""Qwen2.5-0.5B."""
SIZES = {"cpu": QWEN | {"num_hidden_layers": 1, "vocab_size": 2048}, "cuda": QWEN}
"""A CPU takes one of its layers. A narrower one would spend more of its time on attention, of which
packing saves less: all that a token sees it must look at, shared or not."""
H100_FLOPS = 989e12
"""Dense bfloat16 peak."""
SLOW_S = 30
"""A layout that takes longer than this for a pass is measured three times at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A way to compute the log-probabilities of all sampled tokens."""

    parts: Sequence[partial[torch.Tensor]]
    """Each gives those of some tokens, given the model."""
    num_tokens: int
    """Without padding."""
    num_pairs: int
    """Of a query and a key it sees."""


def make_model(device: str) -> Any:
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        **SIZES[device], max_position_embeddings=65_536, tie_word_embeddings=True
    )
    model = transformers.Qwen2ForCausalLM(config)
    return model.to(device, torch.bfloat16 if device == "cuda" else torch.float32).eval()


def make_group(name: str, *, vocab: int) -> tuple[tuple[int, ...], list[list[Step]]]:
    """Prompt, and the turns of each rollout, of random tokens."""
    rng = random.Random(0)
    *sizes, num_turns, num_rollouts = SETTINGS[name]

    def ids(size: int) -> tuple[int, ...]:
        size = round(size * (1 + rng.uniform(-JITTER, JITTER)))
        return tuple(rng.choices(range(vocab), k=size))

    prompt = tuple(rng.choices(range(vocab), k=sizes[0]))
    rollouts = [
        [
            Step(state=ids(sizes[1]), action=ids(sizes[2]), observation=ids(sizes[3]))
            for _ in range(num_turns)
        ]
        for _ in range(num_rollouts)
    ]
    return prompt, rollouts


def make_layout(name: str, prompt: tuple[int, ...], rollouts: list[list[Step]]) -> Layout:
    trajectories = [episode(prompt, steps, sample=i) for i, steps in enumerate(rollouts)]
    if name == "stitched":
        sequences = [stitch(prompt, steps) for steps in rollouts]
        return Layout(
            parts=[partial(score_stitched, row=row) for row in sequences],
            num_tokens=sum(len(row.token_ids) for row in sequences),
            num_pairs=sum(int(row.mask.sum()) for row in sequences),
        )
    turns = turn_by_turn(trajectories)
    row = pack(trajectories, row_tokens=10**6)[0] if name == "packed" else turns
    part = partial(score_padded if name == "padded" else score_packed, row=row)
    pairs = row.visible_until - np.arange(row.num_tokens)
    return Layout(parts=[part], num_tokens=row.num_tokens, num_pairs=int(pairs.sum()))


def turn_by_turn(trajectories: Sequence[Trajectory]) -> PackedBatch:
    """One row in which every turn is a tree of its own."""
    rows: list[PackedBatch] = []
    for trajectory in trajectories:
        for turn in trajectory.turns:
            settings = {f.name: getattr(trajectory, f.name) for f in fields(trajectory)}
            rows += pack([Trajectory(**settings | {"turns": (turn,)})], row_tokens=10**6)
    first = np.cumsum([0] + [row.num_tokens for row in rows])
    index = np.cumsum([0] + [len(row.index) for row in rows])

    def joined(name: str, offsets: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [getattr(row, name) + offset for row, offset in zip(rows, offsets, strict=False)]
        )

    return PackedBatch(
        token_ids=joined("token_ids", first * 0),
        positions=joined("positions", first * 0),
        visible_until=joined("visible_until", first),
        parent=joined("parent", first),
        targets=joined("targets", first),
        index=joined("index", index),
        num_unpacked=int(first[-1]),
    )


def score_packed(model: Any, *, row: PackedBatch) -> torch.Tensor:
    at = torch.ones(len(row.targets), device=model.device)
    return score(model, row, temperature_T=at).logprobs_T


def score_padded(model: Any, *, row: PackedBatch) -> torch.Tensor:
    """Args: `row`, turn by turn."""
    starts = np.flatnonzero(row.positions == 0)
    turn = np.cumsum(row.positions == 0) - 1
    ids = np.zeros((len(starts), row.positions.max() + 1), np.int64)
    ids[turn, row.positions] = row.token_ids
    hidden = model.model(torch.from_numpy(ids).to(model.device), use_cache=False).last_hidden_state
    read_at = turn[row.targets], row.positions[row.targets] - 1
    return plain_logprobs(model, hidden[read_at], row.token_ids[row.targets])


def score_stitched(model: Any, *, row: Stitched) -> torch.Tensor:
    hidden = model.model(
        torch.from_numpy(row.token_ids)[None].to(model.device),
        attention_mask=torch.from_numpy(row.mask)[None, None].to(model.device),
        use_cache=False,
    ).last_hidden_state[0]
    return plain_logprobs(model, hidden[row.targets - 1], row.token_ids[row.targets])


def plain_logprobs(model: Any, hidden: torch.Tensor, target_ids: np.ndarray) -> torch.Tensor:
    targets = torch.from_numpy(target_ids).to(model.device)
    return -torch.nn.functional.cross_entropy(
        model.lm_head(hidden).float(), targets, reduction="none"
    )


def one_pass(model: Any, layout: Layout) -> float:
    """Seconds."""
    on_gpu = model.device.type == "cuda"
    model.zero_grad(set_to_none=True)
    if on_gpu:
        torch.cuda.synchronize()
    clock = time.perf_counter if on_gpu else time.process_time
    begun = clock()
    for part in layout.parts:
        part(model).sum().backward()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - begun


def peak_mib(device: str, setting: str, name: str) -> float:
    """What a pass takes beyond the model: in a fresh process, since a CPU's peak is never reset."""
    command = [sys.executable, __file__, "--device", device, "--peak", setting, name]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(told.splitlines()[-1])


def measure_peak(device: str, setting: str, name: str) -> float:
    model = make_model(device)
    layout = make_layout(name, *make_group(setting, vocab=model.config.vocab_size))
    one_pass(model, Layout(parts=[], num_tokens=0, num_pairs=0))
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        one_pass(model, layout)
        return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
    before = most_resident_mib()
    one_pass(model, layout)
    return round(most_resident_mib() - before, 1)


def most_resident_mib() -> float:
    """Largest memory of this process so far. (What getrusage tells is the parent's, if larger.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10


def flops(model: Any, layout: Layout, *, num_sampled: int) -> float:
    """Of a forward and a backward pass, twice as much; nothing that is computed again counts."""
    config = model.config
    embedded = config.vocab_size * config.hidden_size
    weights = sum(p.numel() for p in model.parameters()) - embedded
    attention = 2 * config.num_hidden_layers * config.hidden_size * layout.num_pairs
    return 6 * (weights * layout.num_tokens + embedded * num_sampled + attention)


def measure(model: Any, setting: str, *, repeats: int, names: Sequence[str]) -> dict[str, Any]:
    group = make_group(setting, vocab=model.config.vocab_size)
    layouts = {name: make_layout(name, *group) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name, layout in layouts.items():
            if len(seconds[name]) < 3 or seconds[name][-1] < SLOW_S:
                seconds[name].append(one_pass(model, layout))
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    bound = layouts["turns"].num_tokens / layouts["packed"].num_tokens
    ratio = median["turns"] / median["packed"]
    num_sampled = sum(len(step.reply) for steps in group[1] for step in steps)
    work = {n: flops(model, layout, num_sampled=num_sampled) for n, layout in layouts.items()}
    result: dict[str, Any] = {
        "bound": round(bound, 3),
        "flops_bound": round(work["turns"] / work["packed"], 3),
        "times_faster_than_turns": round(ratio, 3),
        "share_of_bound": round(ratio / bound, 3),
    }
    for name, layout in layouts.items():
        result[name] = {
            "tokens": layout.num_tokens,
            "passes": len(seconds[name]),
            "seconds": round(median[name], 4),
            "spread": [round(min(seconds[name]), 4), round(max(seconds[name]), 4)],
            "times": round(median[name] / median["packed"], 3),
            "peak_mib": peak_mib(model.device.type, setting, name),
        }
        if model.device.type == "cuda":
            result[name]["mfu"] = round(work[name] / median[name] / H100_FLOPS, 3)
    return result


def exactness(model: Any) -> dict[str, Any]:
    """Log-probabilities in bfloat16 against one pass for each turn of the same weights in float32:
    packing should be no further from it than that pass in bfloat16 is."""
    group = make_group("paper", vocab=model.config.vocab_size)

    def found(scored: Any, name: str) -> np.ndarray:
        (part,) = make_layout(name, *group).parts
        logprobs = np.zeros(len(part.keywords["row"].targets))
        with torch.no_grad():
            logprobs[part.keywords["row"].index] = part(scored).double().cpu()
        return logprobs

    truth = found(copy.deepcopy(model).float(), "turns")
    return {
        name: asdict(difference(found(model, name), truth))
        for name in ("packed", "turns", "padded")
    }


def table(settings: dict[str, Any], names: Sequence[str]) -> str:
    others = [name for name in names if name != "packed"]
    lines = [
        "| setting | bound | flops bound | "
        + " | ".join(f"{name} / packed" for name in others)
        + " | of bound | "
        + " | ".join(f"{name} MiB" for name in names)
        + " |",
        "|---" * (4 + len(others) + len(names)) + "|",
    ]
    for setting, found in settings.items():
        cells = [setting, f"{found['bound']:.2f}", f"{found['flops_bound']:.2f}"]
        cells += [f"{found[name]['times']:.2f}" for name in others]
        cells += [f"{found['share_of_bound']:.0%}"]
        cells += [f"{found[name]['peak_mib']:,.0f}" for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=list(SIZES), default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--layouts", nargs="+", default=["packed", "turns", "padded", "stitched"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak", nargs=2, metavar=("SETTING", "LAYOUT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peak:
        print(measure_peak(asked.device, *asked.peak))
        return
    model = make_model(asked.device)
    check_model(model)
    suffix = "_cuda" if asked.device == "cuda" else ""
    result: dict[str, Any] = {
        "command": " ".join(["python benchmarks/packing_cost.py", *sys.argv[1:]]),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": torch.cuda.get_device_name() if suffix else f"{os.cpu_count()} cores",
        "load_average": round(os.getloadavg()[0], 1),
        "repeats": asked.repeats,
        "model": SIZES[asked.device],
        "settings": {},
    }
    if suffix:
        result["bfloat16"] = exactness(model)
    out = asked.out or ROOT / f"docs/results/packing_cost{suffix}.json"
    for setting in asked.settings:
        found = measure(model, setting, repeats=asked.repeats, names=asked.layouts)
        result["settings"][setting] = found
        atomic_write(out, orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
        print(setting, json.dumps(found), file=sys.stderr, flush=True)
    print(table(result["settings"], asked.layouts))


if __name__ == "__main__":
    main()
