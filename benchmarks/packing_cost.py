"""What does exact packing cost, against one sequence for each turn?

    OMP_NUM_THREADS=1 python benchmarks/packing_cost.py    -> docs/results/packing_cost.json
    python benchmarks/packing_cost.py --device cuda --model 1.5b
                                              -> docs/results/packing_cost_cuda_1.5b.json

A forward and a backward pass over the rollouts of a prompt in the settings of MEM1's paper and
others, laid out in several ways, one after the other, several times over:

    packed          exact packing: each causal prefix once
    turns           one sequence for each turn, without padding, through the same attention: on a
                    CPU the baseline
    varlen          the same through FlashAttention's kernel for it: on a GPU the baseline
    padded          one padded sequence for each turn, transformers' own attention
    stitched        the paper's layout, dense mask; what it computes isn't what was sampled
    stock padded, stock varlen    as trainers do it by default: logits at every token, layers
                                  computed again on the way back

`times` is a layout's time over the packed one's, medians of `passes`; `bound` the ratio of tokens
of `turns` and `packed`, `flops_bound` that of their arithmetic. On a CPU, seconds are of processor
time and a row holds everything; on a GPU rows have ROW_TOKENS at most (stitched: a row for each
rollout). Memory is what a fresh process grows by during one pass.

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
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
import transformers
from stitched import Step, Stitched, episode, stitch
from stock import filled, logprobs_at, score_padded, score_varlen, turn_by_turn

from mem1.files import atomic_write
from mem1.packing import PackedBatch, pack
from mem1.train.attention import check_model
from mem1.train.scoring import score
from mem1.train.verify import difference

ROOT = Path(__file__).parent.parent
SETTINGS = {
    "paper": (400, 150, 30, 600, 6, 1),
    "long": (400, 150, 30, 600, 20, 1),
    "webshop": (700, 150, 20, 900, 15, 1),
    "prompt-heavy": (1000, 100, 20, 300, 10, 1),
    "paper, 4 rollouts": (400, 150, 30, 600, 6, 4),
    "prompt-heavy, 8 rollouts": (1000, 100, 20, 300, 10, 8),
}
"""Tokens of prompt, internal state, action and observation; turns; rollouts of the prompt."""
JITTER = 0.35
"""Lengths differ by up to this share."""
MODELS = {
    "0.5b": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
    },
    "1.5b": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
    },
}
"""Of Qwen2.5."""
ON_CPU = {"num_hidden_layers": 1, "vocab_size": 2048}
"""A CPU takes one of its layers. A narrower one would spend more of its time on attention, of which
packing saves less: all that a token sees it must look at, shared or not."""
ROW_TOKENS = {"cpu": 10**6, "cuda": 16_384}
BASELINE = {"cpu": "turns", "cuda": "varlen"}
LAYOUTS = {
    "cpu": ["packed", "turns", "padded", "stitched"],
    "cuda": ["packed", "varlen", "turns", "padded", "stitched", "stock padded", "stock varlen"],
}
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
    recomputes: bool = False
    """Whether layers are computed again on the way back."""


def make_model(device: str, size: str) -> Any:
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        **MODELS[size] | (ON_CPU if device == "cpu" else {}),
        max_position_embeddings=65_536,
        tie_word_embeddings=True,
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


def make_layout(
    name: str, prompt: tuple[int, ...], rollouts: list[list[Step]], *, row_tokens: int
) -> Layout:
    trajectories = [episode(prompt, steps, sample=i) for i, steps in enumerate(rollouts)]
    if name == "stitched":
        sequences = [stitch(prompt, steps) for steps in rollouts]
        return Layout(
            parts=[partial(score_stitched, row=row) for row in sequences],
            num_tokens=sum(len(row.token_ids) for row in sequences),
            num_pairs=sum(int(row.mask.sum()) for row in sequences),
        )
    is_stock = name.startswith("stock ")
    kind = name.removeprefix("stock ")
    if kind == "packed":
        rows = pack(trajectories, row_tokens=row_tokens)
    else:
        turns = turn_by_turn(trajectories)
        rows = list(filled(turns, row_tokens=row_tokens, padded=kind == "padded"))
    score_row = {
        "packed": score_packed,
        "turns": score_packed,
        "padded": partial(score_padded, everywhere=is_stock),
        "varlen": partial(score_varlen, everywhere=is_stock),
    }[kind]
    return Layout(
        parts=[partial(score_row, row=row) for row in rows],
        num_tokens=sum(row.num_tokens for row in rows),
        num_pairs=sum(int((r.visible_until - np.arange(r.num_tokens)).sum()) for r in rows),
        recomputes=is_stock,
    )


def score_packed(model: Any, *, row: PackedBatch) -> torch.Tensor:
    at = torch.ones(len(row.targets), device=model.device)
    return score(model, row, temperature_T=at).logprobs_T


def score_stitched(model: Any, *, row: Stitched) -> torch.Tensor:
    model.set_attn_implementation("sdpa")
    hidden = model.model(
        torch.from_numpy(row.token_ids)[None].to(model.device),
        attention_mask=torch.from_numpy(row.mask)[None, None].to(model.device),
        use_cache=False,
    ).last_hidden_state[0]
    read_at, ids = row.targets - 1, row.token_ids[row.targets]
    return logprobs_at(model, hidden, read_at, ids, everywhere=False)


def one_pass(model: Any, layout: Layout) -> float:
    """Seconds."""
    on_gpu = model.device.type == "cuda"
    model.zero_grad(set_to_none=True)
    # Layers are computed again only in a model that trains; it has no dropout.
    model.train(layout.recomputes)
    if layout.recomputes:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if on_gpu:
        torch.cuda.synchronize()
    clock = time.perf_counter if on_gpu else time.process_time
    begun = clock()
    for part in layout.parts:
        part(model).sum().backward()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - begun


def peak_mib(device: str, size: str, setting: str, name: str) -> float:
    """What a pass takes beyond the model: in a fresh process, since a CPU's peak is never reset."""
    command = [sys.executable, __file__, "--device", device, "--model", size]
    command += ["--peak", setting, name]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(told.splitlines()[-1])


def measure_peak(device: str, size: str, setting: str, name: str) -> float:
    model = make_model(device, size)
    group = make_group(setting, vocab=model.config.vocab_size)
    layout = make_layout(name, *group, row_tokens=ROW_TOKENS[device])
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


def measure(
    model: Any, size: str, setting: str, *, repeats: int, names: Sequence[str]
) -> dict[str, Any]:
    device = model.device.type
    group = make_group(setting, vocab=model.config.vocab_size)
    layouts = {name: make_layout(name, *group, row_tokens=ROW_TOKENS[device]) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name, layout in layouts.items():
            if len(seconds[name]) < 3 or seconds[name][-1] < SLOW_S:
                seconds[name].append(one_pass(model, layout))
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    baseline = BASELINE[device]
    bound = layouts[baseline].num_tokens / layouts["packed"].num_tokens
    ratio = median[baseline] / median["packed"]
    num_sampled = sum(len(step.reply) for steps in group[1] for step in steps)
    work = {n: flops(model, layout, num_sampled=num_sampled) for n, layout in layouts.items()}
    flops_bound = work[baseline] / work["packed"]
    result: dict[str, Any] = {
        "bound": round(bound, 3),
        "flops_bound": round(flops_bound, 3),
        f"times_faster_than_{baseline}": round(ratio, 3),
        "share_of_bound": round(ratio / bound, 3),
        "share_of_flops_bound": round(ratio / flops_bound, 3),
    }
    for name, layout in layouts.items():
        result[name] = {
            "tokens": layout.num_tokens,
            "passes": len(seconds[name]),
            "seconds": round(median[name], 4),
            "spread": [round(min(seconds[name]), 4), round(max(seconds[name]), 4)],
            "times": round(median[name] / median["packed"], 3),
            "peak_mib": peak_mib(device, size, setting, name),
        }
        if device == "cuda":
            result[name]["mfu"] = round(work[name] / median[name] / H100_FLOPS, 3)
    return result


def exactness(model: Any) -> dict[str, Any]:
    """Log-probabilities in bfloat16 against one pass for each turn of the same weights in float32:
    packing should be no further from it than such a pass in bfloat16 is."""
    group = make_group("paper", vocab=model.config.vocab_size)
    rows = ROW_TOKENS[model.device.type]

    def found(scored: Any, name: str) -> np.ndarray:
        parts = make_layout(name, *group, row_tokens=rows).parts
        index = np.concatenate([part.keywords["row"].index for part in parts])
        logprobs = np.zeros(len(index))
        with torch.no_grad():
            logprobs[index] = torch.cat([part(scored) for part in parts]).double().cpu()
        return logprobs

    truth = found(copy.deepcopy(model).float(), "turns")
    return {
        name: asdict(difference(found(model, name), truth))
        for name in ("packed", "turns", "varlen", "padded")
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
    parser.add_argument("--device", choices=list(LAYOUTS), default="cpu")
    parser.add_argument("--model", choices=list(MODELS), default="0.5b")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--layouts", nargs="+", help="packed and the baseline among them")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak", nargs=2, metavar=("SETTING", "LAYOUT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peak:
        print(measure_peak(asked.device, asked.model, *asked.peak))
        return
    model = make_model(asked.device, asked.model)
    check_model(model)
    names = asked.layouts or LAYOUTS[asked.device]
    on_gpu = asked.device == "cuda"
    result: dict[str, Any] = {
        "command": " ".join(["python benchmarks/packing_cost.py", *sys.argv[1:]]),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": torch.cuda.get_device_name() if on_gpu else f"{os.cpu_count()} cores",
        "load_average": round(os.getloadavg()[0], 1),
        "repeats": asked.repeats,
        "model": MODELS[asked.model] | ({} if on_gpu else ON_CPU),
        "settings": {},
    }
    if on_gpu:
        result["bfloat16"] = exactness(model)
    suffix = f"_cuda_{asked.model}" if on_gpu else ""
    out = asked.out or ROOT / f"docs/results/packing_cost{suffix}.json"
    for setting in asked.settings:
        found = measure(model, asked.model, setting, repeats=asked.repeats, names=names)
        result["settings"][setting] = found
        atomic_write(out, orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
        print(setting, json.dumps(found), file=sys.stderr, flush=True)
    print(table(result["settings"], names))


if __name__ == "__main__":
    main()
