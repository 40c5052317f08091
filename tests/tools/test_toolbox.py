"""Typed functions are tools; a wrong call gets a text that says why, a broken tool is an error."""

import asyncio
import json
import os
import time
from typing import Literal

import pytest

from mem1.errors import ConfigError, ToolError
from mem1.tools import FunctionTool, Toolbox


def add(a: int, b: int = 1) -> int:
    """Add two
    numbers."""
    return a + b


async def weather(*, city: str, unit: Literal["C", "F"] = "C") -> dict[str, object]:
    """The weather now."""
    if city == "Atlantis":
        raise ValueError("no such city")
    if city == "Hell":
        raise OSError("frozen")
    return {"city": city, "degrees": 7, "unit": unit}


def sleeps() -> str:
    time.sleep(0.3)
    return "late"


BOX = Toolbox([FunctionTool(add), FunctionTool(weather)])


def call(name, arguments, *, box=BOX):
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return asyncio.run(box.call(name, text))


def test_a_function_is_called_with_its_arguments():
    assert call("add", {"a": 2}) == "3"
    assert json.loads(call("weather", {"city": "Oslo", "unit": "F"})) == {
        "city": "Oslo",
        "degrees": 7,
        "unit": "F",
    }


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("add", {"a": "x"}, "add was not called: a: 'x' is not of type 'integer'"),
        ("add", {}, "add was not called: 'a' is a required property"),
        ("add", {"a": 1, "c": 2}, "'c' was unexpected"),
        ("add", [1], "[1] is not of type 'object'"),
        ("add", "{'a': 1}", "add was not called, its arguments are no JSON"),
        ("add", "[" * 100_000, "no JSON"),
        ("weather", {"city": "Oslo", "unit": "K"}, "'K' is not one of ['C', 'F']"),
        ("weather", {"city": "Atlantis"}, "weather failed: no such city"),
        ("answer", {}, "there is no tool answer: there is add, weather"),
    ],
)
def test_a_wrong_call_is_told_why(name, arguments, said):
    assert said in call(name, arguments)


def test_a_broken_tool_is_an_error_and_not_a_text():
    with pytest.raises(ToolError, match="weather failed: OSError"):
        call("weather", {"city": "Hell"})


def test_a_tool_that_hangs_is_an_error():
    box = Toolbox([FunctionTool(sleeps)], timeout_s=0.05)
    with pytest.raises(ToolError, match=r"sleeps took more than 0\.05 s"):
        call("sleeps", {}, box=box)


def test_the_manual_names_what_a_call_needs():
    first, second = BOX.manual().splitlines()
    assert first.startswith("add: Add two numbers. {")
    assert json.loads(first.partition(". ")[2]) == {
        "properties": {"a": {"type": "integer"}, "b": {"default": 1, "type": "integer"}},
        "required": ["a"],
        "type": "object",
    }
    assert '"enum": ["C", "F"]' in second


def test_a_parameter_may_be_called_title():
    def book(title: str) -> str:
        return title

    assert '"properties": {"title": {"type": "string"}}' in Toolbox([FunctionTool(book)]).manual()


def untyped(a):
    return a


def positional(a: int, /) -> int:
    return a


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FunctionTool(untyped), "give a type hint to a"),
        (lambda: FunctionTool(positional), "parameters need names"),
        (lambda: FunctionTool(os.getcwd), r"give them type hints: [^\n]*getcwd[^\n]*$"),
        (
            lambda: Toolbox([FunctionTool(add), FunctionTool(add)]),
            "two tools have one name, 'add': leave one of them out",
        ),
        (lambda: Toolbox([FunctionTool(add, name="a<b")]), "tool name 'a<b'"),
    ],
)
def test_what_is_no_tool_is_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()
