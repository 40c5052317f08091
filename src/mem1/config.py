"""TOML FILES -> RunConfig: every setting of a run, composed of the components' own dataclasses.

    configs/demo.toml, "budget.observation=300" -> load_config -> RunConfig -> mem1.wiring
    RunConfig -> save_config -> runs/demo/config.toml, which loads as an equal RunConfig

Paths in a config are relative to the working directory, not to the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mem1.context import POLICIES, Budget, ContextPolicy
from mem1.engines.openai import OpenAIConfig
from mem1.engines.vllm import VLLMConfig
from mem1.errors import ConfigError, StoreError
from mem1.files import atomic_write
from mem1.rewards import REWARDS, Reward
from mem1.settings import build, differences, dump_toml, make_part, read_tables, to_table
from mem1.tasks.documents import NeedleConfig
from mem1.tasks.ledger import LedgerConfig
from mem1.tasks.webshop import WebShopConfig
from mem1.tools.indexes import DenseConfig, HybridConfig
from mem1.tools.web.config import WebConfig
from mem1.train.config import TrainConfig
from mem1.types import Sampling, SamplingMode

CONFIG_FILE = "config.toml"

_SAME_RESULTS = frozenset(
    {
        "run.concurrency",
        "retriever.mode",
        "engine.max_batch",
        "engine.prefix_cache_tokens",
        "engine.lookahead",
        "engine.concurrency",
        "engine.timeout_s",
        "engine.urls",
        "engine.devices",
        "engine.command",
        "engine.serve_args",
        "engine.served_name",
        "engine.start_timeout_s",
        "engine.retries",
        "engine.work_dir",
        "engine.weights_gap",
        "train.row_tokens",
        "train.microbatch",
        "train.gradient_checkpointing",
        "train.distributed.cpu_offload",
        "train.distributed.timeout_s",
    }
)
"""Settings that a continued run may change: they say how fast and in what memory, not what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalConfig:
    """`[engine] kind = "local"`: a Hugging Face causal language model in this process."""

    kind: Literal["local"] = "local"
    model: str
    """A folder with safetensors, a `.gguf` file, or `package:NAME/FILE` inside a Python package."""
    dtype: Literal["float32", "bfloat16", "float16", "float64"] | None = None
    """None: bfloat16 where the hardware has it, else float32."""
    device: str | None = None
    """A torch device; None: a GPU if there is one."""
    max_batch: int = 16
    """Most replies sampled at once."""
    prefix_cache_tokens: int = 65_536
    """How many tokens' keys and values are kept, so that what sequences share is computed once."""
    lookahead: int = 8
    """Most tokens that are guessed from a reply's own text and computed with its next one: it then
    takes fewer passes, and says the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig(OpenAIConfig):
    """`[engine] kind = "openai"`: any OpenAI-compatible server."""

    kind: Literal["openai"] = "openai"
    tokenizer: str | None = None
    """The model's tokenizer, a folder or `.gguf` file. None (chat mode only): token counts are
    estimates on the safe side."""

    def __post_init__(self) -> None:
        if self.mode == "completions" and self.tokenizer is None:
            raise ConfigError(
                "engine.tokenizer is missing: mode 'completions' sends token ids, so name the "
                "model's tokenizer folder, or set engine.mode = 'chat'"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BM25Config:
    """`[retriever] kind = "bm25"`: an index over a corpus file, in this process."""

    kind: Literal["bm25"] = "bm25"
    corpus: str
    """JSONL or JSONL.gz with `id` and `contents`."""
    top_k: int = 3
    """Passages an observation shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPConfig:
    """`[retriever] kind = "http"`: a server with the `/retrieve` wire API."""

    kind: Literal["http"] = "http"
    url: str
    token_env: str | None = None
    """Environment variable that holds the server's token; None: it wants none."""
    top_k: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolsConfig:
    """`[tools]`: what the agent may call besides the search engine."""

    functions: tuple[str, ...] = ()
    """Python functions with type hints, or tools of your own (`TypedTool`): `package.module:name`,
    with settings as in `context.policies`, or the name of an entry point in group `mem1`."""
    mcp: tuple[str, ...] = ()
    """MCP servers: command lines, or http(s) URLs."""
    timeout_s: float = 60.0
    """Seconds that a call may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextConfig:
    """`[context]`: the policies to run, each over all tasks."""

    policies: tuple[str, ...] = ("internal_state",)
    """Names with settings, for example `window(k=2)`; for your own `package.module:Class`, or the
    name of an entry point in group `mem1`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksConfig:
    """`[tasks]`: questions from files, answered with the retriever."""

    kind: Literal["questions"] = "questions"
    files: tuple[str, ...] = ()
    """Question files, or task files that `mem1 data compose` wrote."""
    num_objectives: tuple[int, ...] = ()
    """For each N, questions are composed into tasks of N; empty: tasks as the files have them."""
    per_cell: int | None = None
    """Most tasks of each N; None: all."""
    seed: int = 0
    """Of the composition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerTasks(LedgerConfig):
    """`[tasks] kind = "ledger"`: procedural tasks, for which only memory helps."""

    kind: Literal["ledger"] = "ledger"
    num_objectives: tuple[int, ...] = (2,)
    """For each N, tasks of N."""
    count: int = 1000
    """Tasks of each N."""
    start: int = 0
    """Number of the first one in the endless row: held-out tasks begin behind the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentTasks:
    """`[tasks] kind = "documents"`: questions about text files, which are read piece by piece."""

    kind: Literal["documents"] = "documents"
    files: tuple[str, ...]
    """JSONL of id, question, golden_answers, document (a path, from the file's own folder)."""
    chunk_chars: int = 1000
    """Characters of a piece; the observation's cap should hold them."""

    @property
    def num_objectives(self) -> tuple[int, ...]:
        return (1,)


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedleTasks(NeedleConfig):
    """`[tasks] kind = "needle"`: made-up texts of any length in which a few sentences matter."""

    kind: Literal["needle"] = "needle"
    num_objectives: tuple[int, ...] = (1,)
    """For each N, tasks of N."""
    count: int = 10
    """Tasks of each N."""
    chunk_chars: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class WebShopTasks(WebShopConfig):
    """`[tasks] kind = "webshop"`: things to buy in a web shop; `run.reward = "webshop"`."""

    kind: Literal["webshop"] = "webshop"

    @property
    def num_objectives(self) -> tuple[int, ...]:
        return (1,)


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomTasks:
    """`[tasks] kind = "custom"`: tasks, and a world for them, of your own."""

    kind: Literal["custom"] = "custom"
    tasks: str
    """Called with the settings, gives tasks: `package.module:function`, or the name of an entry
    point in group `mem1`."""
    env: str | None = None
    """Called with a task, gives its environment; None: the world of questions."""
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    num_objectives: tuple[int, ...] = ()
    """Numbers of objectives that the tasks have, for a curriculum."""


AnyTasks = TasksConfig | LedgerTasks | DocumentTasks | NeedleTasks | WebShopTasks | CustomTasks


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """`[run]`: how episodes are run."""

    max_turns: int | dict[int, int] = 6
    """Turns an episode may take; a table gives them by number of objectives: `{1 = 6, 8 = 20}`."""
    samples: int = 1
    """Episodes of each task and policy."""
    concurrency: int = 16
    """Episodes under way at once."""
    mode: SamplingMode = "reencode"
    """How contexts reach the model: encoded anew each turn, or each token once (`carry`: local
    engine only; the model's window then bounds all tokens of an episode)."""
    state_budget: bool = False
    """Whether the task prompt states the cap on the internal state."""
    reward: str = "em"
    """`em` or `f1`, summed over the objectives; `webshop`, or with settings
    `webshop(format_fault=-1)`; for your own as in `context.policies`."""

    def turns_for(self, num_objectives: int) -> int:
        """Raises ConfigError if the table has no entry for this number of objectives."""
        if isinstance(self.max_turns, int):
            return self.max_turns
        if num_objectives not in self.max_turns:
            raise ConfigError(
                f"run.max_turns = {self.max_turns} has no entry for tasks of {num_objectives} "
                f"objectives: add  {num_objectives} = …"
            )
        return self.max_turns[num_objectives]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Everything a run depends on."""

    engine: LocalConfig | ServerConfig | VLLMConfig
    retriever: BM25Config | DenseConfig | HybridConfig | HTTPConfig | WebConfig | None = None
    """None: for tasks without a search engine."""
    tools: ToolsConfig = field(default_factory=ToolsConfig)
    context: ContextConfig = field(default_factory=ContextConfig)
    budget: Budget = field(default_factory=Budget)
    sampling: Sampling = field(default_factory=Sampling)
    tasks: AnyTasks = field(default_factory=TasksConfig)
    validation: AnyTasks | None = None
    """Held-out tasks, for training."""
    run: RunSettings = field(default_factory=RunSettings)
    train: TrainConfig | None = None

    def __post_init__(self) -> None:
        counts = {
            "run.samples": self.run.samples,
            "run.concurrency": self.run.concurrency,
            "run.max_turns": self.run.max_turns,
            "retriever.top_k": self.retriever.top_k if self.retriever else 1,
        }
        for name, count in counts.items():
            least = min(count.values(), default=0) if isinstance(count, dict) else count
            if least < 1:
                raise ConfigError(f"{name} = {count}: give at least 1")
        if self.run.mode == "carry" and self.engine.kind != "local":
            raise ConfigError(
                f"run.mode = 'carry' with engine.kind = {self.engine.kind!r}: no server evicts "
                "keys and values between turns, set engine.kind = 'local' or run.mode = 'reencode'"
            )
        self.policies()
        make_reward(self.run.reward)

    def policies(self) -> tuple[ContextPolicy, ...]:
        """The context policies, made. Raises ConfigError for one that doesn't exist."""
        if not self.context.policies:
            raise ConfigError(f"context.policies is empty: name some of {', '.join(POLICIES)}")
        return tuple(parse_policy(spec) for spec in self.context.policies)


def load_config(*files: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config from TOML files, later over earlier, and `dotted.path=value` overrides.

    >>> load_config("configs/demo.toml", overrides=["run.concurrency=4"])  # doctest: +SKIP
    """
    return build(RunConfig, read_tables(files, overrides=overrides))


def parse_policy(spec: str) -> ContextPolicy:
    """Make the policy that `name`, `name(key=value, …)` or `package.module:Class(…)` says.

    Raises: ConfigError for an unknown name, setting or class.
    """
    policy = make_part(spec, known=POLICIES, at="context.policies")
    if not isinstance(policy, ContextPolicy):
        raise ConfigError(
            f"context.policies: {spec} has no bound and update: it's no ContextPolicy"
        )
    return policy


def make_reward(spec: str) -> Reward:
    """The reward that is named, as a policy is. Raises: ConfigError if there's none."""
    reward = make_part(spec, known=REWARDS, at="run.reward")
    if not isinstance(reward, Reward):
        raise ConfigError(f"run.reward: {spec} can't be called: it's no Reward")
    return reward


def save_config(config: RunConfig, folder: Path) -> None:
    """Write the resolved config into a run folder, or check that it's the one already there.

    Raises: StoreError naming the settings that differ from those the folder was started with.
    """
    path, table = folder / CONFIG_FILE, to_table(config)
    if path.exists():
        old = to_table(load_config(path))
        changed = [key for key in differences(old, table) if key not in _SAME_RESULTS]
        if changed:
            raise StoreError(
                f"{folder} holds a run with other settings ({', '.join(changed)}): "
                "name another folder with --out"
            )
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(path, dump_toml(table).encode())
