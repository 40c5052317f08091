"""RunConfig, Machine -> Plan, as it stands: no advice yet.

What is counted is the largest that can be: contexts at their bound, all rows of the engine in use,
rows of the trainer full.
"""

from dataclasses import replace

from mem1.config import LocalConfig, RunConfig, ServerConfig, VLLMConfig
from mem1.context import Budget, check_window
from mem1.errors import BudgetError, ConfigError
from mem1.plan.machine import Machine
from mem1.plan.memory import Sampling, Training, Use, host_bytes, items, peak
from mem1.plan.result import Plan, StepTokens
from mem1.plan.shape import Shape
from mem1.train.config import TrainConfig

_SIZES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


def estimate(config: RunConfig, machine: Machine, *, shape: Shape | None, fill: float) -> Plan:
    """Args: `shape`, of the model, None if a server has it; `fill`, share of their caps that
    contexts and replies are expected to take. Raises: ConfigError where nothing runs here."""
    engine = config.engine
    if isinstance(engine, ServerConfig) or shape is None:
        raise ConfigError(
            "engine.kind = 'openai': a server samples and nothing is trained, there is nothing to "
            "plan here"
        )
    settings = config.train
    window = (engine.window if isinstance(engine, VLLMConfig) else None) or shape.window
    # A CPU that trains is given float32, whatever it has (`train/policy.py`).
    narrow = machine.kind == "gpu" or (settings is None and machine.bfloat16)
    dtype = engine.dtype or ("bfloat16" if narrow else "float32")
    processes = machine.devices if settings and isinstance(engine, LocalConfig) else 1
    bounds = [policy.bound(config.budget) for policy in config.policies()]
    bound = None if None in bounds else max(size for size in bounds if size)
    most = bound or window or config.budget.prompt + config.budget.reply
    tokens = _step_tokens(config, settings, most=bound or window, fill=fill) if settings else None
    row = _row_tokens(settings, tokens=tokens, most=most) if settings else None
    use = Use(
        itemsize=_SIZES[dtype],
        processes=processes,
        on_gpu=machine.kind == "gpu",
        training=_training(config, settings, shape=shape, row=row, processes=processes)
        if settings and row
        else None,
        sampling=_sampling(config, most=most, processes=processes),
    )
    found = items(shape, use)
    adapters = use.training.adapters if use.training else None
    return Plan(
        model=engine.model,
        dtype=dtype,
        parameters=shape.parameters,
        trained=0 if settings is None else adapters or shape.parameters,
        critic=_critic_parameters(use.training, shape),
        context_policies=tuple(str(policy) for policy in config.policies()),
        bound=bound,
        window=window,
        step_tokens=tokens,
        row_tokens=row,
        machine=machine,
        processes=processes,
        places=tuple(_places(config, machine, processes=processes)),
        items=tuple(found),
        phases=peak(found, phases=use.phases),
        host=host_bytes(shape, use, found=found) if use.on_gpu else 0,
        problems=tuple(_problems(config, machine, bound=bound, window=window)),
    )


def _critic_parameters(training: Training | None, shape: Shape) -> int:
    if training is None or not training.valued:
        return 0
    return (training.critic.parameters if training.critic else 0) + shape.hidden + 1


def _critic(settings: TrainConfig, shape: Shape) -> Shape | None:
    """Of a critic that is a model of its own."""
    critic = settings.critic
    if critic is None or critic.kind != "separate":
        return None
    return replace(shape, layers=critic.layers_of(shape.layers))


def _turns(config: RunConfig) -> int:
    """Most turns of an episode."""
    numbers = config.tasks.num_objectives
    most = config.run.max_turns
    if isinstance(most, int):
        return most
    return (
        max(config.run.turns_for(number) for number in numbers) if numbers else max(most.values())
    )


def _step_tokens(
    config: RunConfig, settings: TrainConfig, *, most: int | None, fill: float
) -> StepTokens:
    """Of one optimizer step: a mini-batch of tasks, a group of episodes each."""
    tasks = settings.mini_batch_size or settings.batch_size
    group = 1 if settings.algorithm == "sft" else settings.group_size
    turns = _turns(config)
    caps = {name: getattr(config.budget, name) for name in Budget.__dataclass_fields__}
    filled = Budget(**{name: max(1, round(fill * cap)) for name, cap in caps.items()})
    bound = config.policies()[0].bound(filled)
    # Without a bound a context only grows: each turn adds its reply and what came back.
    added = turns * (filled.reply + filled.observation)
    beyond = added if bound is None else turns * (bound - filled.prompt)
    expected = tasks * (filled.prompt + group * beyond)
    return StepTokens(
        most=None if most is None else tasks * group * turns * most, expected=expected
    )


def _row_tokens(settings: TrainConfig, *, tokens: StepTokens | None, most: int) -> int:
    """Of the longest row (`packing.pack`)."""
    limits = [settings.row_tokens]
    limits += [most] if settings.microbatch == "branch" else []
    limits += [tokens.most] if tokens and tokens.most else []
    return min(limits)


def _training(
    config: RunConfig, settings: TrainConfig, *, shape: Shape, row: int, processes: int
) -> Training:
    lora = settings.lora
    return Training(
        row_tokens=row,
        adapters=shape.adapters(rank=lora.rank, targets=lora.targets) if lora else None,
        adapter_rank=lora.rank if lora else 0,
        adapter_targets=lora.targets if lora else (),
        valued=settings.critic is not None,
        critic=_critic(settings, shape),
        reference=bool(settings.loss.kl) and settings.algorithm != "sft",
        copied=processes > 1 or bool(settings.staleness),
        overlapped=bool(settings.staleness),
        checkpointing=settings.gradient_checkpointing,
        offload=settings.distributed.cpu_offload and processes > 1,
    )


def _sampling(config: RunConfig, *, most: int, processes: int) -> Sampling | None:
    """None where nothing is sampled in this process."""
    engine, settings = config.engine, config.train
    if not isinstance(engine, LocalConfig) or (settings and settings.algorithm == "sft"):
        return None
    # A validation isn't limited to the episodes of a batch.
    episodes = config.run.concurrency
    if settings and not settings.eval_every:
        own = -(-settings.batch_size // processes) * settings.group_size
        episodes = min(episodes, own)
    carried = config.run.mode == "carry"
    return Sampling(
        rows=engine.max_batch,
        joining=min(engine.max_batch, episodes),
        context=most,
        prompt=most - config.budget.reply,
        stored=episodes * most if carried else engine.prefix_cache_tokens,
        guesses=engine.lookahead,
        nucleus=config.sampling.top_p < 1,
    )


def _places(config: RunConfig, machine: Machine, *, processes: int) -> list[str]:
    engine, kind = config.engine, machine.kind.upper()
    where = f"{processes} {kind}s" if processes > 1 else f"one {kind}"
    if isinstance(engine, VLLMConfig):
        servers = engine.urls or engine.devices or ("a GPU it finds",)
        served = f"vLLM servers sample: {', '.join(servers)} (they plan their own memory)"
        return [f"{where} trains", served] if config.train else [served]
    if config.train is None:
        return [f"{where} samples"]
    if config.train.algorithm == "sft":
        doing = "trains" if processes == 1 else "train"
    else:
        doing = "samples and trains" if processes == 1 else "sample and train"
    found = [f"{where} {doing}"]
    if processes > 1:
        found.append(f"torchrun --nproc-per-node {processes} -m mem1 train CONFIG")
    return found


def _problems(
    config: RunConfig, machine: Machine, *, bound: int | None, window: int | None
) -> list[str]:
    found: list[str] = []
    settings, budget = config.train, config.budget
    for policy in config.policies():
        try:
            check_window(policy, budget=budget, window=window)
        except BudgetError as error:
            found.append(str(error))
    if settings is None:
        return found
    if bound is not None and bound > settings.row_tokens and settings.algorithm != "sft":
        found.append(
            f"train.row_tokens = {settings.row_tokens}, but a turn takes up to {bound} tokens: "
            "raise it or lower the budget"
        )
    several = machine.devices > 1 and isinstance(config.engine, LocalConfig)
    if several and settings.algorithm != "sft" and settings.batch_size % machine.devices:
        found.append(
            f"train.batch_size = {settings.batch_size} with {machine.devices} processes: set a "
            f"multiple of {machine.devices} or another number of devices"
        )
    return found
