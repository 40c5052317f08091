"""`mem1 run --mcp`: a model behind a server calls a tool of another server."""

import json
import sys
from pathlib import Path

import pytest
from chat_server import chat_server

from mem1.cli import run_command

pytest.importorskip("mcp_server_time", reason="pip install mcp-server-time")
TIME = f"{sys.executable} -m mcp_server_time --local-timezone UTC"
CALL = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}


def convert_then_answer(messages: list[dict[str, str]]) -> str:
    if len(messages) == 1:
        return f'<think>-</think><tool name="convert_time">{json.dumps(CALL)}</tool>'
    return "<think>-</think><answer>nine hours</answer>"


def test_run_calls_a_tool_of_an_mcp_server(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with chat_server(convert_then_answer) as server:
        Path("run.toml").write_text(
            f'[engine]\nkind = "openai"\nbase_url = "{server.url}"\nmodel = "parrot"\n'
            'mode = "chat"\n[budget]\nprompt = 2000\naction = 120\n'
        )
        arguments = ["run", "How far ahead is Tokyo?", "--config", "run.toml", "--mcp", TIME]
        assert run_command([*arguments, "--json"]) == 0
    record = json.loads(capfd.readouterr().out)
    first = record["turns"][0]
    assert first["action"]["name"] == "tool:convert_time"
    assert '"time_difference": "+9.0h"' in first["observation"]
    assert "convert_time: Convert time between timezones" in server.chats[0][0]["content"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (f"tools.mcp={json.dumps([TIME, TIME])}", "two tools have one name"),
        ('tools.mcp=["no-such-command"]', "MCP server 'no-such-command' doesn't answer"),
        ('tools.functions=["json:nothing"]', "tools.functions json:nothing"),
        ('tools.functions=["nobodys"]', "no installed package has an entry point of this name"),
        ('tools.functions=["os:sep"]', "os:sep is neither a function nor a TypedTool"),
        ("tools.timeout=3", "unknown setting tools.timeout: did you mean timeout_s?"),
    ],
)
def test_tools_that_cannot_be_had_are_named(config, capfd, setting, message):
    assert run_command(["run", "What?", "--config", config, "--set", setting]) == 2
    assert message in capfd.readouterr().err
