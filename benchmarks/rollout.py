"""How fast does the local engine roll out, beside itself before lookahead and beside transformers?

    OMP_NUM_THREADS=1 python benchmarks/rollout.py    -> docs/results/rollout.json

SmolLM2-135M-Instruct answers 32 questions at once, as in configs/demo.toml, once greedily and once
sampled at temperature 1 (`before`: the engine of revision BEFORE, taken from git; `plain`: today's
without lookahead). Each run is a process of its own; they take turns. Then the prompts of 32 tasks
go through the engine and through transformers' continuous batching, in one process.
"""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "docs/results/rollout.json"
BEFORE = "8682463"
NUM_EPISODES = 32
ROUNDS = 1
NUM_TOKENS = 64
"""Of each reply that goes through transformers, too."""
TEMPERATURES = (0.0, 1.0)


def run(temperature: float, lookahead: int | None) -> dict[str, Any]:
    """Roll out in this process. Args: `lookahead`, None for an engine that has none."""
    from mem1.config import load_config
    from mem1.wiring import open_engine, plan_jobs
    from mem1.worlds import compose_tasks, open_world

    settings = [
        f"engine.max_batch={NUM_EPISODES}",
        f"run.concurrency={NUM_EPISODES}",
        f"sampling.temperature={temperature}",
        'context.policies=["internal_state"]',
        "tasks.num_objectives=[1]",
        f"tasks.per_cell={NUM_EPISODES}",
        *([f"engine.lookahead={lookahead}"] if lookahead is not None else []),
    ]
    config = load_config(ROOT / "configs/demo.toml", overrides=settings)
    tasks = compose_tasks(config.tasks)
    make_env = open_world(config)

    async def roll() -> dict[str, Any]:
        async with open_engine(config.engine) as (engine, renderer):
            jobs = plan_jobs(
                config, tasks=tasks, engine=engine, renderer=renderer, make_env=make_env
            )
            return await measured(jobs, engine=engine)

    return asyncio.run(roll())


async def measured(jobs: list[Any], *, engine: Any) -> dict[str, Any]:
    from mem1.rollout import collect
    from mem1.types import SegmentKind, num_tokens

    clock = Clock(engine)
    wall, cpu = time.perf_counter(), time.process_time()
    trajectories = await collect(jobs, concurrency=NUM_EPISODES)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    prompts = [
        num_tokens([s for s in t.turns[0].context if s.kind is SegmentKind.PROMPT])
        for t in trajectories
    ]
    contexts = sum(num_tokens(turn.context) for turn in turns)
    own = contexts - sum(p * t.num_turns for p, t in zip(prompts, trajectories, strict=True))
    ids = sorted((t.task.id, [u.completion.token_ids for u in t.turns]) for t in trajectories)
    return {
        "wall_s": wall,
        "cpu_s": cpu,
        "model_s": clock.model_s,
        "passes": clock.passes,
        "turns": len(turns),
        "sampled_tokens": sum(turn.completion.num_tokens for turn in turns),
        "computed_tokens": clock.tokens,
        "prefilled_tokens": clock.prefilled,
        "prefill_needed": sum(prompts) + own,
        "tokens": hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16],
    }


class Clock:
    """Seconds in the model, and what it computes."""

    def __init__(self, engine: Any) -> None:
        self.model_s, self.passes, self.tokens, self.prefilled = 0.0, 0, 0, 0
        model, batch = engine._model, engine._batch
        model.register_forward_pre_hook(self._begin, with_kwargs=True)
        model.register_forward_hook(self._end)
        self._rows = lambda: batch._rows

    def _begin(self, _module: Any, _args: Any, told: dict[str, Any]) -> None:
        self.passes += 1
        self.tokens += told["input_ids"].shape[1]
        self.prefilled += sum(len(row.new_ids) for row in self._rows() if not row.token_ids)
        self._started = time.perf_counter()

    def _end(self, *_args: Any) -> None:
        self.model_s += time.perf_counter() - self._started


def child(source: Path, *args: str) -> dict[str, Any]:
    """`run` in a process of its own, with the mem1 of a source folder."""
    command = [sys.executable, __file__, *args]
    env = os.environ | {"PYTHONPATH": str(source)}
    out = subprocess.run(command, env=env, check=True, capture_output=True, text=True, cwd=ROOT)
    return json.loads(out.stdout.splitlines()[-1])


def beside_transformers() -> dict[str, Any]:
    """Seconds of the engine and of transformers' continuous batching for NUM_TOKENS tokens behind
    each task's prompt, greedily; a small batch of each goes before and isn't counted."""
    from transformers import GenerationConfig

    from mem1.chat.hf import HFRenderer
    from mem1.config import load_config
    from mem1.engines import Request
    from mem1.engines.local import LocalEngine
    from mem1.envs.prompts import QA_PROMPT
    from mem1.tasks import question_text
    from mem1.types import Message, Sampling
    from mem1.wiring import resolve_path
    from mem1.worlds import compose_tasks

    config = load_config(
        ROOT / "configs/demo.toml", overrides=["tasks.num_objectives=[1]", "tasks.per_cell=34"]
    )
    path = resolve_path(config.engine.model)
    renderer = HFRenderer.load(path)
    engine = LocalEngine.load(path, codec=renderer, max_batch=NUM_EPISODES)
    engine._batch._eos_ids = frozenset()
    texts = [
        QA_PROMPT.replace("{question}", question_text(task)) for task in compose_tasks(config.tasks)
    ]
    prompts = [list(renderer.render([Message(role="user", content=text)])) for text in texts]

    def ours(some: list[list[int]]) -> int:
        async def ask() -> int:
            requests = [
                Request(
                    prompt_ids=tuple(prompt),
                    messages=(),
                    max_tokens=NUM_TOKENS,
                    stop=(),
                    sampling=Sampling(temperature=0),
                )
                for prompt in some
            ]
            done = await asyncio.gather(*map(engine.complete, requests))
            return sum(len(completion.token_ids) for completion in done)

        return asyncio.run(ask())

    def theirs(some: list[list[int]]) -> int:
        settings = GenerationConfig(
            max_new_tokens=NUM_TOKENS, do_sample=False, eos_token_id=-1, use_cuda_graph=False
        )
        model: Any = engine._model
        done = model.generate_batch(some, generation_config=settings, progress_bar=False)
        return sum(len(output.generated_tokens) for output in done.values())

    found: dict[str, Any] = {"replies": NUM_EPISODES, "tokens_each": NUM_TOKENS}
    for name, method in (("engine", ours), ("transformers", theirs)):
        method(prompts[-2:])
        engine.forget()
        wall, cpu = time.perf_counter(), time.process_time()
        count = method(prompts[:NUM_EPISODES])
        found[name] = {
            "tokens": count,
            "wall_s": round(time.perf_counter() - wall, 1),
            "cpu_s": round(time.process_time() - cpu, 1),
        }
    found["times_less_cpu"] = round(found["transformers"]["cpu_s"] / found["engine"]["cpu_s"], 2)
    found["times_faster"] = round(found["transformers"]["wall_s"] / found["engine"]["wall_s"], 2)
    return found


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    first = runs[0]
    wall, model = (median(one[name] for one in runs) for name in ("wall_s", "model_s"))
    return {
        "trajectories_per_s": round(NUM_EPISODES / wall, 3),
        "cpu_s": round(median(one["cpu_s"] for one in runs), 1),
        "own_share_of_wall": round(1 - model / wall, 3),
        **{k: first[k] for k in ("turns", "passes", "sampled_tokens", "computed_tokens", "tokens")},
        "tokens_per_pass": round(first["sampled_tokens"] / first["passes"], 1),
        "prefilled_of_needed": round(first["prefilled_tokens"] / first["prefill_needed"], 3),
    }


def main() -> None:
    threads = os.environ.get("OMP_NUM_THREADS")
    result: dict[str, Any] = {
        "command": f"OMP_NUM_THREADS={threads} python benchmarks/rollout.py",
        "threads": threads,
        "before": BEFORE,
        "load_average": [round(os.getloadavg()[0], 1)],
    }
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(
            ["git", "archive", BEFORE, "src"], cwd=ROOT, check=True, capture_output=True
        )
        with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
            archive.extractall(folder, filter="data")
        sources = {"now": ROOT / "src", "plain": ROOT / "src", "before": Path(folder) / "src"}
        settings = {"now": "8", "plain": "0", "before": "none"}
        for temperature in TEMPERATURES:
            runs: dict[str, list[Any]] = {name: [] for name in sources}
            for _ in range(ROUNDS):
                for name, source in sources.items():
                    runs[name].append(child(source, str(temperature), settings[name]))
                    print(temperature, name, summary(runs[name][-1:]), flush=True)
            found = {name: summary(some) for name, some in runs.items()}
            speeds = {name: one["trajectories_per_s"] for name, one in found.items()}
            cpu = {name: one["cpu_s"] for name, one in found.items()}
            result[f"temperature {temperature}"] = found | {
                "times_faster_than_before": round(speeds["now"] / speeds["before"], 2),
                "times_less_cpu_than_before": round(cpu["before"] / cpu["now"], 2),
            }
            save(result)
    result["beside transformers"] = beside_transformers()
    save(result)
    print(json.dumps(result, indent=2))


def save(result: dict[str, Any]) -> None:
    result["load_average"].append(round(os.getloadavg()[0], 1))
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        ahead = None if sys.argv[2] == "none" else int(sys.argv[2])
        print(json.dumps(run(float(sys.argv[1]), ahead)))
