"""RunConfig -> an engine, and the jobs of a run.

[engine]                     -> open_engine -> Engine, Renderer
engine, tasks, environments  -> plan_jobs   -> [Job], one for each task, policy and sample
"""

import importlib.util
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mem1.chat import ByteRenderer, Renderer
from mem1.config import (
    CONFIG_FILE,
    LocalConfig,
    RunConfig,
    ServerConfig,
    VLLMConfig,
    load_config,
    make_reward,
)
from mem1.context import ContextPolicy, check_window
from mem1.engines import Engine
from mem1.errors import BudgetError, MissingExtraError, ModelError, UserError
from mem1.rollout import Agent, Job
from mem1.types import Sampling, Task
from mem1.worlds import MakeEnv

if TYPE_CHECKING:
    from mem1.chat.hf import HFRenderer
    from mem1.engines.vllm import VLLMEngine, Weights

HOSTED_TOKEN_BYTES = 3
"""Bytes counted as one token of a hosted model whose tokenizer we don't have."""


@asynccontextmanager
async def open_engine(
    config: LocalConfig | ServerConfig | VLLMConfig,
) -> AsyncIterator[tuple[Engine, Renderer]]:
    """Load the model, or connect to the server; released at the end of the block."""
    if isinstance(config, LocalConfig):
        engine, renderer = _load_local(config)
    elif isinstance(config, VLLMConfig):
        from mem1.chat.hf import HFRenderer

        renderer = HFRenderer.load(model_path(config.model))
        engine = await open_vllm(config, renderer)
    else:
        engine, renderer = await _connect(config)
    try:
        yield engine, renderer
    finally:
        await engine.close()


def _load_local(config: LocalConfig) -> tuple[Engine, Renderer]:
    from mem1.chat.hf import HFRenderer
    from mem1.engines.local import LocalEngine

    path = model_path(config.model)
    renderer = HFRenderer.load(path)
    engine = LocalEngine.load(
        path,
        codec=renderer,
        device=config.device,
        dtype=config.dtype,
        max_batch=config.max_batch,
        prefix_cache_tokens=config.prefix_cache_tokens,
        lookahead=config.lookahead,
        eos_ids=renderer.eos_ids,
    )
    return engine, renderer


async def open_vllm(
    config: VLLMConfig,
    renderer: "HFRenderer",
    *,
    weights: "Weights | None" = None,
    sampling: Sampling | None = None,
) -> "VLLMEngine":
    """Servers that sample, and take `weights`, which learn from what is sampled as `sampling` says.

    Raises: as `VLLMEngine.open`.
    """
    from mem1.engines.vllm import VLLMEngine

    return await VLLMEngine.open(
        replace(config, model=str(model_path(config.model)), served_name=config.name),
        codec=renderer,
        eos_ids=renderer.eos_ids,
        weights=weights,
        temperature=sampling.temperature if sampling else 1.0,
    )


async def _connect(config: ServerConfig) -> tuple[Engine, Renderer]:
    from mem1.engines.openai import OpenAIEngine

    renderer = _server_renderer(config)
    return await OpenAIEngine.connect(config, codec=renderer), renderer


def _server_renderer(config: ServerConfig) -> Renderer:
    if config.tokenizer is None:
        return ByteRenderer(width=HOSTED_TOKEN_BYTES)
    from mem1.chat.hf import HFRenderer

    return HFRenderer.load(resolve_path(config.tokenizer))


def run_decoder(folder: Path) -> Callable[[Sequence[int]], str] | None:
    """What decodes the tokens of a run: its model's tokenizer; None if it can't be loaded here."""
    try:
        engine = load_config(folder / CONFIG_FILE).engine
        name = engine.tokenizer if isinstance(engine, ServerConfig) else engine.model
        if name is None:
            return None
        from mem1.chat.hf import HFRenderer

        return HFRenderer.load(resolve_path(name)).decode
    except UserError:
        return None


def model_path(name: str) -> Path:
    """A model's folder or file. Raises: ModelError if it isn't one, without reading weights."""
    path = resolve_path(name)
    fits = (path / "config.json").exists() if path.is_dir() else path.suffix == ".gguf"
    if not fits:
        said = "isn't a model" if path.exists() else "no such file or folder"
        raise ModelError(
            f"model {name}: {said} (looked at {path.absolute()}): give a folder with config.json "
            "and safetensors, or a .gguf file"
        )
    return path


def resolve_path(name: str) -> Path:
    """A path; `package:NAME/FILE` is a file inside an installed package.

    Raises: ModelError if there is no such package.
    """
    if not name.startswith("package:"):
        return Path(name)
    package, _, file = name.removeprefix("package:").partition("/")
    try:
        # Found without importing it: some of these packages load a whole runtime.
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{name}: no package {package} is installed: install it, or name a path")
    return Path(spec.submodule_search_locations[0]) / file


def model_window(config: LocalConfig | ServerConfig | VLLMConfig) -> int | None:
    """The model's window in tokens, read without its weights; None if only the server knows."""
    if isinstance(config, ServerConfig):
        return config.window
    if isinstance(config, VLLMConfig) and config.window:
        return config.window
    path = model_path(config.model)
    if path.suffix == ".gguf":
        return _gguf_window(path)
    try:
        found = json.loads((path / "config.json").read_text("utf-8"))["max_position_embeddings"]
    except (OSError, ValueError, KeyError):
        return None
    return int(found)


def _gguf_window(path: Path) -> int | None:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise MissingExtraError("gguf", extra="local") from error
    fields = GGUFReader(path).fields
    found = [field for name, field in fields.items() if name.endswith(".context_length")]
    return int(found[0].parts[-1][0]) if found else None


def plan_jobs(
    config: RunConfig,
    *,
    tasks: Sequence[Task],
    engine: Engine,
    renderer: Renderer,
    make_env: MakeEnv,
) -> list[Job]:
    """One job for each context policy, task and sample.

    Raises: BudgetError for caps that don't fit the model's window, ConfigError for tasks without
    a number of turns.
    """
    reward = make_reward(config.run.reward)
    jobs: list[Job] = []
    for policy in config.policies():
        agent = Agent(
            engine=engine,
            renderer=renderer,
            context=policy,
            budget=config.budget,
            sampling=config.sampling,
            mode=config.run.mode,
        )
        agent.bound()
        turns = {n: config.run.turns_for(n) for n in sorted({len(t.objectives) for t in tasks})}
        agents = {number: replace(agent, max_turns=most) for number, most in turns.items()}
        jobs += [
            Job(
                task=task,
                sample=sample,
                agent=agents[len(task.objectives)].for_task(task),
                make_env=make_env,
                reward=reward,
            )
            for task in tasks
            for sample in range(config.run.samples)
        ]
    return jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What a dry run tells of one context policy and number of objectives."""

    context_policy: str
    num_objectives: int
    num_tasks: int
    max_turns: int
    bound: int | None
    """Certified largest context + reply, in tokens."""
    problem: str | None
    """Why this can't run with the model's window; None if it can."""


def plan_cells(config: RunConfig, *, tasks: Sequence[Task], window: int | None) -> list[Cell]:
    """What a run would do, from the caps alone."""
    counts: dict[int, int] = {}
    for task in tasks:
        counts[len(task.objectives)] = counts.get(len(task.objectives), 0) + 1
    return [
        Cell(
            context_policy=str(policy),
            num_objectives=number,
            num_tasks=count,
            max_turns=config.run.turns_for(number),
            bound=policy.bound(config.budget),
            problem=_problem(policy, config=config, window=window),
        )
        for policy in config.policies()
        for number, count in sorted(counts.items())
    ]


def _problem(policy: ContextPolicy, *, config: RunConfig, window: int | None) -> str | None:
    try:
        check_window(policy, budget=config.budget, window=window)
    except BudgetError as error:
        return str(error)
    return None
