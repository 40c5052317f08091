"""RunConfig -> a run of the trainer.

    [engine] the policy, which samples its own episodes; [tasks], [validation] what it works on
    [train]  how it learns

Started by torchrun, all processes call `train_policy` alike, and the first one writes and tells.

>>> import mem1                                                                   # doctest: +SKIP
>>> config = mem1.load_config("configs/learn.toml")                               # doctest: +SKIP
>>> mem1.train_policy(config, folder="runs/learn")                                # doctest: +SKIP
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mem1.config import LocalConfig, RunConfig, VLLMConfig, save_config
from mem1.engines import Engine, ScriptedEngine
from mem1.errors import ConfigError, DataError
from mem1.evals.run import TRAJECTORIES_FILE
from mem1.rollout import Job
from mem1.rollout.store import read_trajectories
from mem1.settings import dump_toml, to_table
from mem1.train.checks import check_mode, check_vocabulary
from mem1.train.config import TrainConfig
from mem1.train.curriculum import Level, levels_of
from mem1.train.launch import team_size
from mem1.types import Task, Trajectory
from mem1.wiring import model_path, open_vllm, plan_jobs
from mem1.worlds import MakeEnv, compose_tasks, open_tools, open_world

if TYPE_CHECKING:
    from mem1.chat.hf import HFRenderer
    from mem1.engines.local import LocalEngine
    from mem1.engines.vllm import VLLMEngine
    from mem1.train.policy import Policy
    from mem1.train.snapshot import Snapshot
    from mem1.train.sources import Demonstrations, Expert, Rollouts
    from mem1.train.team import Team
    from mem1.train.trainer import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainWatcher:
    """Is told how training goes."""

    on_step: Callable[[int, Mapping[str, float]], None] = lambda step, metrics: None
    """Each step's number and metrics; step 0 is the evaluation of the policy as it came."""
    on_done: Callable[[Trajectory], None] | None = None
    """Each new episode."""
    on_index: Callable[[int, int], None] | None = None
    """Passages indexed so far, and how many there are."""
    warn: Callable[[str], None] = lambda text: None


def train_policy(
    config: RunConfig, *, folder: Path | str, watcher: TrainWatcher | None = None
) -> Path:
    """Train a policy as the config says; goes on where an earlier run in the folder ended.

    Gives the folder of the trained policy, an ordinary Hugging Face folder.
    Raises: ConfigError for what doesn't fit together, StoreError if the folder belongs to a run
    with other settings, TrainingError for a loss or gradient that isn't finite, for too little
    memory, and for a lost process.
    """
    from mem1.train.trainer import train

    with open_run(config, folder=Path(folder), watcher=watcher or TrainWatcher()) as run:
        return train(run)


@contextmanager
def open_run(config: RunConfig, *, folder: Path, watcher: TrainWatcher) -> Iterator["Run"]:
    """Load what a config names and put it together, as `train_policy` does; `replace` a part of it
    to train in another way."""
    settings, engine_config = check_trainable(config)
    path = model_path(engine_config.model)
    from mem1.chat.hf import HFRenderer
    from mem1.train.export import export_policy
    from mem1.train.team import open_team
    from mem1.train.trainer import Run
    from mem1.train.update import Learner

    timeout_s = settings.distributed.timeout_s
    with ExitStack() as stack:
        team = stack.enter_context(open_team(device=engine_config.device, timeout_s=timeout_s))
        if team.is_first:
            save_config(config, folder)
        else:
            watcher = TrainWatcher()
        renderer = HFRenderer.load(path)
        policy, copied = _load(config, path=path, team=team)
        if settings.algorithm == "sft":
            make = _expert if settings.data.expert else _demonstrations
            source, forget_computed = make(config, settings, renderer), _nothing
        else:
            runner = stack.enter_context(asyncio.Runner())
            sampled = copied.policy if copied else policy
            engine = runner.run(_sampler(config, policy=sampled, renderer=renderer))
            stack.callback(lambda: runner.run(engine.close()))
            tools = open_tools(config.tools)
            toolbox = runner.run(tools.__aenter__())
            stack.callback(lambda: runner.run(tools.__aexit__(None, None, None)))
            with team.first_in_turn():
                make_env = open_world(config, toolbox=toolbox, on_progress=watcher.on_index)
            plan = _Plan(config, engine, renderer, make_env, on_done=watcher.on_done)
            source = _rollouts(config, folder=folder, plan=plan, runner=runner, team=team)

            forget_computed = _forgetting(engine, copied)
            if settings.staleness:
                from mem1.train.ahead import Ahead

                last, refresh = settings.steps, forget_computed
                source = Ahead(source=source, last_step=last, refresh=refresh)
                stack.callback(source.close)
                forget_computed = _nothing
        yield Run(
            folder=folder,
            learner=Learner.create(policy, config=settings, team=team),
            source=source,
            levels=run_levels(config, settings),
            export=partial(
                export_policy, policy=policy, renderer=renderer, card=_model_card(config), team=team
            ),
            forget_computed=forget_computed,
            on_step=watcher.on_step,
            warn=watcher.warn,
        )


def check_trainable(config: RunConfig) -> tuple[TrainConfig, LocalConfig | VLLMConfig]:
    """What a training run needs of a config. Raises: ConfigError for what is missing or doesn't
    fit together."""
    settings, engine = config.train, config.engine
    if settings is None:
        raise ConfigError("train is missing: add  [train]  with an algorithm and steps")
    if not isinstance(engine, LocalConfig | VLLMConfig):
        raise ConfigError(
            f"engine.kind = {engine.kind!r}: what is trained is sampled in this process or by "
            "servers that take its weights, set engine.kind = 'local' or 'vllm'"
        )
    if len(config.context.policies) != 1:
        raise ConfigError(
            f"context.policies = {list(config.context.policies)}: name the one to train with"
        )
    if settings.algorithm != "sft":
        _check_rollouts(config, settings)
    elif settings.data.expert and config.tasks.kind != "ledger":
        raise ConfigError(
            f"train.data.expert with tasks.kind = {config.tasks.kind!r}: the expert knows the "
            "ledger only, set tasks.kind = 'ledger'"
        )
    return settings, engine


def _check_rollouts(config: RunConfig, settings: TrainConfig) -> None:
    size = team_size()
    if settings.batch_size % size:
        raise ConfigError(
            f"train.batch_size = {settings.batch_size} with {size} processes: each collects as "
            f"many tasks, set a multiple of {size} or start another number of them"
        )
    if size > 1 and not isinstance(config.engine, LocalConfig):
        raise ConfigError(
            f"engine.kind = 'vllm' with {size} processes: they would all push weights to the same "
            "servers. Set engine.kind = 'local', or start one process"
        )
    if config.sampling.temperature <= 0:
        raise ConfigError(
            f"sampling.temperature = {config.sampling.temperature}: greedy rollouts are all alike, "
            "give more than 0"
        )
    if settings.eval_every and config.validation is None:
        raise ConfigError("train.eval_every needs held-out tasks: add  [validation]")
    if config.validation and config.validation.kind != config.tasks.kind:
        raise ConfigError(
            f"validation.kind = {config.validation.kind!r}: held-out tasks are of the world of the "
            f"others, tasks.kind = {config.tasks.kind!r}"
        )
    for level in run_levels(config, settings):
        if level.num_objectives is not None:
            config.run.turns_for(level.num_objectives)
    (policy,) = config.policies()
    bound = policy.bound(config.budget)
    if bound is not None and bound > settings.row_tokens:
        raise ConfigError(
            f"train.row_tokens = {settings.row_tokens}, but a turn of {policy} takes up to {bound} "
            "tokens: raise it or lower the budget"
        )


def run_levels(config: RunConfig, settings: TrainConfig) -> tuple[Level, ...]:
    """The levels of a run's curriculum. Raises: ConfigError for ones that don't fit together."""
    return levels_of(
        settings.curriculum,
        num_objectives=config.tasks.num_objectives,
        internal_state=config.budget.internal_state,
    )


def _nothing() -> None:
    pass


def _load(config: RunConfig, *, path: Path, team: "Team") -> tuple["Policy", "Snapshot | None"]:
    """What is trained, with several processes a part of it in each; and the copy that episodes are
    sampled from, None if they are from the policy itself."""
    from mem1.train.policy import load_policy
    from mem1.train.snapshot import Snapshot

    settings, engine = check_trainable(config)
    if team.size == 1:
        policy = load_policy(path, config=settings, device=engine.device, dtype=engine.dtype)
        device = policy.device
        return policy, Snapshot.begin(policy.model, device=device) if settings.staleness else None
    from mem1.train.distributed import load_sharded

    policy = load_sharded(path, config=settings, dtype=engine.dtype, team=team)
    return policy, policy.snapshot


def _forgetting(
    engine: "LocalEngine | VLLMEngine", copied: "Snapshot | None"
) -> Callable[[], None]:
    """What is to be done once weights have changed, or have been loaded."""

    def forget() -> None:
        if copied:
            copied.take()
        engine.forget()

    return forget


async def _sampler(
    config: RunConfig, *, policy: "Policy", renderer: "HFRenderer"
) -> "LocalEngine | VLLMEngine":
    """An engine that samples from the very weights that are trained, or is given them."""
    settings = config.engine
    if isinstance(settings, VLLMConfig):
        from mem1.train.served import PolicyWeights

        weights = PolicyWeights(policy=policy)
        return await open_vllm(settings, renderer, weights=weights, sampling=config.sampling)
    from mem1.engines.local import LocalEngine

    assert isinstance(settings, LocalConfig)
    return LocalEngine(
        policy.sampled_model,
        codec=renderer,
        eos_ids=renderer.eos_ids,
        max_batch=settings.max_batch,
        prefix_cache_tokens=settings.prefix_cache_tokens,
        lookahead=settings.lookahead,
    )


class _Plan:
    """Makes the jobs of some tasks, as `mem1.train.sources.Plan` wants them."""

    def __init__(
        self,
        config: RunConfig,
        engine: Engine,
        renderer: "HFRenderer",
        make_env: MakeEnv,
        *,
        on_done: Callable[[Trajectory], None] | None,
    ) -> None:
        self._config, self._engine, self._renderer = config, engine, renderer
        self._make_env = make_env
        self.on_done = on_done

    def __call__(
        self,
        tasks: Sequence[Task],
        *,
        samples: int,
        seed: int,
        greedy: bool,
        internal_state: int | None,
    ) -> list[Job]:
        config = self._config
        cap = internal_state or config.budget.internal_state
        sampling = replace(config.sampling, seed=seed)
        config = replace(
            config,
            budget=replace(config.budget, internal_state=cap),
            sampling=replace(sampling, temperature=0.0) if greedy else sampling,
            run=replace(config.run, samples=samples),
        )
        return plan_jobs(
            config,
            tasks=tasks,
            engine=self._engine,
            renderer=self._renderer,
            make_env=self._make_env,
        )


def _rollouts(
    config: RunConfig, *, folder: Path, plan: _Plan, runner: asyncio.Runner, team: "Team"
) -> "Rollouts":
    from mem1.train.sources import Rollouts

    settings = config.train
    assert settings is not None
    tasks = compose_tasks(config.tasks)
    for level in run_levels(config, settings):
        if (found := len(level.pick(tasks))) < settings.batch_size:
            raise ConfigError(
                f"train.batch_size = {settings.batch_size}, but there are {found} tasks"
                + (f" of {level.num_objectives} objectives" if level.num_objectives else "")
            )
    return Rollouts(
        folder=folder,
        tasks=tasks,
        validation_tasks=compose_tasks(config.validation) if config.validation else (),
        plan=plan,
        mode=config.run.mode,
        temperature=config.sampling.temperature,
        config=settings,
        concurrency=config.run.concurrency,
        runner=runner,
        on_done=plan.on_done,
        team=team,
    )


def _demonstrations(
    config: RunConfig, settings: TrainConfig, renderer: "HFRenderer"
) -> "Demonstrations":
    """Trajectories and transcripts of the files that `train.data` names."""
    from mem1.train.sources import Demonstrations, worth_imitating
    from mem1.train.transcripts import played, read_transcripts

    (context,) = config.policies()
    found: list[Trajectory] = []
    for name in settings.data.trajectories:
        path = Path(name) / TRAJECTORIES_FILE if Path(name).is_dir() else Path(name)
        if not path.exists():
            raise DataError(f"train.data.trajectories: {path}: no such file")
        found += [t for t in read_trajectories(path) if t.context_policy == str(context)]
    for name in settings.data.transcripts:
        transcripts = read_transcripts(Path(name))
        told = asyncio.run(
            played(transcripts, renderer=renderer, context=context, budget=config.budget)
        )
        # Nobody sampled them: they are what the run's mode makes of them.
        found += [replace(trajectory, mode=config.run.mode) for trajectory in told]
    kept = worth_imitating(found, least_reward=settings.data.least_reward)
    check_mode(kept, mode=config.run.mode)
    check_vocabulary(kept, size=renderer.vocab_size)
    return Demonstrations(trajectories=kept, config=settings)


def _expert(config: RunConfig, settings: TrainConfig, renderer: "HFRenderer") -> "Expert":
    """The ledger's own expert, on the run's tasks."""
    from mem1.train.demonstrations import demonstrations
    from mem1.train.sources import Expert

    faults = settings.data.expert
    assert faults is not None
    # What the expert says is in no mode; afterwards it's in the run's.
    run = replace(config.run, samples=1, mode="reencode", reward="em")
    planned = replace(config, run=run)
    engine, make_env = ScriptedEngine((), codec=renderer), open_world(config)

    def show(tasks: Sequence[Task], seed: int) -> list[Trajectory]:
        jobs = plan_jobs(planned, tasks=tasks, engine=engine, renderer=renderer, make_env=make_env)
        shown = asyncio.run(demonstrations(jobs, faults=faults, seed=seed))
        return [replace(trajectory, mode=config.run.mode) for trajectory in shown]

    return Expert(tasks=compose_tasks(config.tasks), show=show, config=settings)


def _model_card(config: RunConfig) -> str:
    assert config.train is not None
    assert isinstance(config.engine, LocalConfig | VLLMConfig)
    return f"""---
library_name: transformers
base_model: {config.engine.model}
tags: [mem1, reinforcement-learning, agents]
---

# A policy trained with mem1

Trained from `{config.engine.model}` with {config.train.algorithm}, {config.train.steps} steps, on
contexts of the policy `{config.context.policies[0]}`. Run it with  `mem1 run "question" --set
engine.model=FOLDER`  and the budget below, or with any server that loads Hugging Face folders.

```toml
{dump_toml(to_table(config))}```
"""
