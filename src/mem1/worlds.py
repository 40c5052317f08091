"""RunConfig -> tasks, and the worlds in which they are worked on.

[tasks]                     -> compose_tasks -> [Task]
[tools]                     -> open_tools    -> Toolbox
[tasks], [retriever], tools -> open_world    -> Task -> Env
"""

import inspect
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from mem1.config import (
    AnyTasks,
    BM25Config,
    CustomTasks,
    DocumentTasks,
    HTTPConfig,
    LedgerTasks,
    NeedleTasks,
    RunConfig,
    TasksConfig,
    ToolsConfig,
    WebShopTasks,
)
from mem1.envs import Env, QAEnv
from mem1.envs.document import DocumentEnv
from mem1.envs.ledger import LEDGER_BUDGET_PROMPT, LEDGER_PROMPT, LedgerEnv
from mem1.envs.prompts import (
    BUDGET_RULE,
    QA_BUDGET_PROMPT,
    QA_PROMPT,
    tools_prompt,
)
from mem1.envs.web import WEB_PROMPT
from mem1.envs.webshop import Shop, WebShopEnv
from mem1.errors import ConfigError
from mem1.settings import find_part, make_part
from mem1.tasks import compose, load_tasks
from mem1.tasks.documents import load_documents, needle_task
from mem1.tasks.ledger import ledger_tasks
from mem1.tasks.webshop import load_goals, open_products
from mem1.tools import (
    BM25Index,
    FunctionTool,
    HTTPRetriever,
    Retriever,
    SearchTool,
    Tool,
    Toolbox,
    TypedTool,
)
from mem1.tools.indexes import DenseConfig, HybridConfig, open_index
from mem1.tools.mcp import McpServer
from mem1.tools.web import WebConfig, web_tools
from mem1.types import Task

MakeEnv = Callable[[Task], Env]


def compose_tasks(config: AnyTasks, *, limit: int | None = None) -> list[Task]:
    """The tasks of a run.

    Args: `limit`, at most so many tasks for each number of objectives.
    Raises: ConfigError if no file is named, DataError for one that can't be used.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"a limit of {limit} tasks: give at least 1")
    sizes = dict.fromkeys(config.num_objectives)
    match config:
        case TasksConfig():
            return _questions(config, limit=limit)
        case LedgerTasks(count=count, start=start):
            most = min(count, limit or count)
            tasks = (
                ledger_tasks(config, num_objectives=size, count=most, start=start) for size in sizes
            )
            return [task for found in tasks for task in found]
        case NeedleTasks(count=count):
            numbers = range(min(count, limit or count))
            return [needle_task(config, num_objectives=n, number=k) for n in sizes for k in numbers]
        case DocumentTasks():
            return [task for file in config.files for task in load_documents(file)][:limit]
        case WebShopTasks():
            return load_goals(config, limit=limit)
        case CustomTasks():
            return _custom_tasks(config)[:limit]


def _questions(config: TasksConfig, *, limit: int | None) -> list[Task]:
    """Questions of files, composed for each N, or as the files have them."""
    if not config.files:
        raise ConfigError('tasks.files is empty: name question files, files = ["questions.jsonl"]')
    limits = [count for count in (config.per_cell, limit) if count is not None]
    if any(count < 1 for count in limits):
        raise ConfigError(f"a limit of {min(limits)} tasks: give at least 1")
    most = min(limits, default=None)
    loaded = [task for file in config.files for task in load_tasks(file)]
    if not config.num_objectives:
        return loaded[:most]
    return [
        task
        for number in dict.fromkeys(config.num_objectives)
        for task in compose(loaded, num_objectives=number, seed=config.seed, limit=most)
    ]


def _custom_tasks(config: CustomTasks) -> list[Task]:
    make = find_part(config.tasks, at="tasks.tasks")
    try:
        inspect.signature(make).bind(**config.settings)
    except TypeError as error:
        raise ConfigError(f"tasks.tasks {config.tasks} with tasks.settings: {error}") from error
    tasks = list(make(**config.settings))
    for task in tasks:
        if not isinstance(task, Task):
            raise ConfigError(f"tasks.tasks {config.tasks}: gives {task!r:.80}, which is no Task")
    return tasks


def _custom_env(spec: str) -> MakeEnv:
    make = find_part(spec, at="tasks.env")

    def checked(task: Task) -> Env:
        env = make(task)
        if not isinstance(env, Env):
            raise ConfigError(
                f"tasks.env {spec}: gives {env!r:.80}, which is no Env: it needs actions, start, "
                "step and close"
            )
        return env

    return checked


def _function(spec: str) -> TypedTool:
    found = make_part(spec, at="tools.functions")
    if isinstance(found, TypedTool):
        return found
    if not callable(found):
        raise ConfigError(
            f"tools.functions: {spec} is neither a function nor a TypedTool, which has name, "
            "description, parameters and run"
        )
    return FunctionTool(found)


@asynccontextmanager
async def open_tools(config: ToolsConfig) -> AsyncIterator[Toolbox | None]:
    """Load the functions and connect to the servers; None if the config names none.

    Raises: ConfigError for what can't be loaded, doesn't answer, or has the name of another.
    """
    tools = [_function(name) for name in config.functions]
    async with AsyncExitStack() as stack:
        for address in config.mcp:
            server = McpServer(address, call_s=config.timeout_s)
            tools += (await stack.enter_async_context(server)).tools
        yield Toolbox(tools, timeout_s=config.timeout_s) if tools else None


def open_world(
    config: RunConfig,
    *,
    toolbox: Toolbox | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> MakeEnv:
    """Make the environments of the config's tasks; opens the retriever they need.

    Args: `toolbox`, of `open_tools`.
    Raises: ConfigError if questions are asked and there's neither retriever nor tool, and for tools
    where none is called.
    """
    make_env = _own_world(config, on_progress=on_progress)
    if make_env is None:
        return question_world(config, toolbox=toolbox, on_progress=on_progress)
    if toolbox is not None:
        raise ConfigError(
            f"tools: tasks of kind {config.tasks.kind!r} have actions of their own, so no tool is "
            "called: leave [tools] out"
        )
    return make_env


def _own_world(
    config: RunConfig, *, on_progress: Callable[[int, int], None] | None
) -> MakeEnv | None:
    """The world that a kind of tasks brings; None for questions."""
    match config.tasks:
        case LedgerTasks():
            prompt = LEDGER_BUDGET_PROMPT if config.run.state_budget else LEDGER_PROMPT
            return partial(LedgerEnv, prompt=prompt)
        case DocumentTasks(chunk_chars=size) | NeedleTasks(chunk_chars=size):
            return partial(DocumentEnv, chunk_chars=size)
        case WebShopTasks(products=products, attributes=attributes):
            shop = Shop(open_products(products, attributes), on_progress=on_progress)
            return partial(WebShopEnv, shop=shop, observation_tokens=config.budget.observation)
        case CustomTasks(env=env) if env is not None:
            return _custom_env(env)
        case _:
            return None


def question_world(
    config: RunConfig,
    *,
    toolbox: Toolbox | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> MakeEnv:
    """Make environments in which questions are answered with the config's retriever and tools."""
    if config.retriever is None and toolbox is None:
        raise ConfigError(
            'retriever is missing: questions need one, add  [retriever]  with kind = "bm25" and a '
            "corpus, or [tools]"
        )
    tools: list[Tool] = []
    if isinstance(config.retriever, WebConfig):
        tools += web_tools(config.retriever, observation_tokens=config.budget.observation)
    elif config.retriever is not None:
        retriever = open_retriever(config.retriever, on_progress=on_progress)
        tools.append(SearchTool(retriever, top_k=config.retriever.top_k))
    return partial(QAEnv, tools=tools, toolbox=toolbox, prompt=_prompt(config, toolbox=toolbox))


def _prompt(config: RunConfig, *, toolbox: Toolbox | None) -> str:
    rules = BUDGET_RULE if config.run.state_budget else ""
    reads = isinstance(config.retriever, WebConfig) and config.retriever.read
    if toolbox is not None:
        return rules + tools_prompt(searches=config.retriever is not None, reads=reads)
    if reads:
        return rules + WEB_PROMPT
    return QA_BUDGET_PROMPT if config.run.state_budget else QA_PROMPT


def open_retriever(
    config: BM25Config | DenseConfig | HybridConfig | HTTPConfig,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Retriever:
    """Open the index, built first if this corpus has none yet, or a client of the server."""
    if isinstance(config, HTTPConfig):
        token = os.environ.get(config.token_env) if config.token_env else None
        if config.token_env and not token:
            raise ConfigError(
                f"retriever.token_env = {config.token_env!r}: put the token into that variable"
            )
        return HTTPRetriever(config.url, token=token)
    if isinstance(config, BM25Config):
        return BM25Index.open(Path(config.corpus), on_progress=on_progress)
    return open_index(config, on_progress=on_progress)
