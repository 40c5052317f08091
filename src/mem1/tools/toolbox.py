"""TOOLS WITH PARAMETERS: what the agent calls by `<tool name="weather">{"city": "Oslo"}</tool>`.

    typed function -> FunctionTool | MCP server -> mem1.tools.mcp | your own TypedTool
    name, JSON text -> Toolbox.call -> text, foreign until proven otherwise

A call that is wrong is the model's mistake: it gets a text that says why, and the schema stands in
the prompt (`Toolbox.manual`).
"""

import asyncio
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from jsonschema import Draft202012Validator, SchemaError
from jsonschema.exceptions import best_match
from pydantic import PydanticUserError, TypeAdapter
from pydantic_core import ArgsKwargs, to_json

from mem1.errors import ConfigError, ToolError
from mem1.text import TOOL_NAME, neutralise

Schema = Mapping[str, Any]

MAX_ARGUMENTS = 100_000
"""Characters of a call's JSON."""
MAX_MANUAL = 1_000
"""Characters of the description and of the schema of one tool that the prompt shows."""
TIMEOUT_S = 60.0


@runtime_checkable
class TypedTool(Protocol):
    """A tool whose arguments have names and types.

    Raises `ToolError` if it can't answer: recorded, and never shown to the model. `ValueError` is
    the model's mistake, whose text it's shown.
    """

    @property
    def name(self) -> str:
        """Letters, digits, `_`, `.` and `-`; at most 64."""
        ...

    @property
    def description(self) -> str:
        """What it does, for the model."""
        ...

    @property
    def parameters(self) -> Schema:
        """JSON schema of its arguments, an object."""
        ...

    async def run(self, arguments: Mapping[str, Any]) -> str: ...


class FunctionTool:
    """A `TypedTool` of a Python function with type hints; its docstring is the description.

    >>> def add(a: int, b: int = 1) -> int:
    ...     \"\"\"Add two numbers.\"\"\"
    ...     return a + b
    >>> FunctionTool(add).parameters["required"]
    ['a']
    """

    def __init__(self, function: Callable[..., Any], *, name: str | None = None) -> None:
        """Args: `function`, sync (it runs in a thread) or async.

        Raises: ConfigError if a parameter has no type hint, or one that JSON can't say.
        """
        self.name = name or getattr(function, "__name__", type(function).__name__)
        self.description = inspect.getdoc(function) or ""
        missing = [
            parameter.name
            for parameter in inspect.signature(function).parameters.values()
            if parameter.annotation is inspect.Parameter.empty
        ]
        if missing:
            raise ConfigError(f"tool {self.name}: give a type hint to {', '.join(missing)}")
        try:
            self._adapter = TypeAdapter[Any](function)  # pyright: ignore[reportArgumentType]
            self.parameters: Schema = self._adapter.json_schema()
        except (PydanticUserError, TypeError) as error:
            said = str(error).partition("\n")[0]
            raise ConfigError(
                f"tool {self.name}: JSON can't say its parameters, give them type hints: {said}"
            ) from error
        if self.parameters.get("type") != "object":
            raise ConfigError(
                f"tool {self.name}: parameters need names, write  def f(*, city: str)"
            )

    async def run(self, arguments: Mapping[str, Any]) -> str:
        call = ArgsKwargs((), dict(arguments))
        result = await asyncio.to_thread(self._adapter.validate_python, call)
        if inspect.isawaitable(result):
            result = await result
        return result if isinstance(result, str) else to_json(result, fallback=str).decode()


class Toolbox:
    """Calls typed tools by name."""

    def __init__(self, tools: Sequence[TypedTool], *, timeout_s: float = TIMEOUT_S) -> None:
        """Args: `timeout_s`, seconds after which a call has failed.

        Raises: ConfigError for two tools of one name, and for a schema that is none.
        """
        self._tools = {tool.name: tool for tool in tools}
        self._timeout_s = timeout_s
        for name in self._tools:
            if not re.fullmatch(TOOL_NAME, name):
                raise ConfigError(f"tool name {name!r}: use at most 64 letters, digits, _ . and -")
        if len(self._tools) < len(tools):
            names = [tool.name for tool in tools]
            double = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"two tools have one name, {double!r}: leave one of them out")
        self._validators: dict[str, Draft202012Validator] = {}
        for name, tool in self._tools.items():
            try:
                Draft202012Validator.check_schema(tool.parameters)
            except SchemaError as error:
                raise ConfigError(f"tool {name}: no JSON schema: {error.message}") from error
            self._validators[name] = Draft202012Validator(tool.parameters)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tools)

    def manual(self) -> str:
        """What the prompt tells of the tools, a line each: name, description, schema. Servers wrote
        it, so it's foreign text."""
        lines = (
            f"{tool.name}: {' '.join(tool.description.split())[:MAX_MANUAL]} "
            f"{json.dumps(_shown(tool.parameters))[:MAX_MANUAL]}"
            for tool in self._tools.values()
        )
        return neutralise("\n".join(lines))

    async def call(self, name: str, argument: str) -> str:
        """Run a tool. Raises: ToolError if it fails or takes too long."""
        tool = self._tools.get(name)
        if tool is None:
            return f"there is no tool {name}: there is {', '.join(self._tools)}"
        try:
            arguments = json.loads(argument[:MAX_ARGUMENTS])
        except (ValueError, RecursionError) as error:
            return f"{name} was not called, its arguments are no JSON: {error}"
        wrong = best_match(self._validators[name].iter_errors(arguments))
        if wrong is not None:
            place = wrong.json_path.removeprefix("$").removeprefix(".")
            return f"{name} was not called: {place and place + ': '}{wrong.message}"
        try:
            return await asyncio.wait_for(tool.run(arguments), self._timeout_s)
        except TimeoutError as error:
            raise ToolError(f"tool {name} took more than {self._timeout_s:g} s") from error
        except ValueError as error:
            return f"{name} failed: {error}"
        except (OSError, ArithmeticError, LookupError, TypeError, RuntimeError) as error:
            raise ToolError(f"tool {name} failed: {error!r}") from error


_NOT_SHOWN = frozenset({"title", "$schema", "additionalProperties"})


def _shown(schema: Any) -> Any:
    """A schema without what a model has no use for."""
    if isinstance(schema, list):
        return [_shown(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: {name: _shown(one) for name, one in value.items()}
        if key == "properties"
        else _shown(value)
        for key, value in schema.items()
        if key not in _NOT_SHOWN
    }
