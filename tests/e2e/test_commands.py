"""The commands from end to end, over a real (if simple-minded) server and a real index."""

import json
from pathlib import Path

import pytest

from mem1.cli import run_command
from mem1.rollout import latest
from mem1.types import StopReason

TRAJECTORIES = Path("runs/small/trajectories.jsonl")


def test_run_shows_each_turn_and_the_answer(config, capfd):
    assert run_command(["run", "Capital of France?", "--config", config]) == 0
    shown, notes = capfd.readouterr()
    for text in ("turn 1", "I know nothing yet.", "capital of France", "Doc 1", "turn 2", "Paris"):
        assert text in shown
    assert "runs/questions/trajectories.jsonl" in notes


def test_run_as_json_prints_the_trajectory_alone(config, capfd):
    assert run_command(["run", "Capital of France?", "--config", config, "--json"]) == 0
    record = json.loads(capfd.readouterr().out)
    assert (record["answer"], record["stop_reason"], len(record["turns"])) == (
        "Paris",
        "answered",
        2,
    )


def test_run_takes_another_policy_and_several_questions(config, capfd, server):
    arguments = ["run", "Capital of France?", "Of Germany?", "--config", config, "--json"]
    assert run_command([*arguments, "--context", "window(k=2)"]) == 0
    record = json.loads(capfd.readouterr().out)
    assert record["context_policy"] == "window(k=2)"
    assert "Capital of France?; Of Germany?" in server.chats[0][0]["content"]


def test_eval_writes_the_report_and_keeps_every_trajectory(config, capfd):
    assert run_command(["eval", config]) == 0
    keys = {(t.task.id, t.context_policy) for t in latest(TRAJECTORIES).values()}
    assert len(keys) == 6
    assert all(t.reward == 1.0 for t in latest(TRAJECTORIES).values())
    folder = TRAJECTORIES.parent
    assert {"config.toml", "report.json", "report.md"} <= {p.name for p in folder.iterdir()}
    assert "internal_state" in capfd.readouterr().out


def test_the_same_command_again_asks_the_model_nothing(config, capfd, server):
    run_command(["eval", config, "--limit", "1"])
    assert len(server.chats) == 2 * 2
    assert run_command(["eval", config]) == 0
    assert len(server.chats) == 3 * 2 * 2
    before = TRAJECTORIES.read_bytes()
    assert run_command(["eval", config, "--json"]) == 0
    assert len(server.chats) == 3 * 2 * 2
    assert TRAJECTORIES.read_bytes() == before
    captured = capfd.readouterr()
    assert "6 of 6 episodes are done already" in captured.err


def test_failed_episodes_are_told_and_owed_again(config, capfd, server):
    server.down = True
    assert run_command(["rollout", config]) == 1
    assert "6 of 6 episodes failed, the first with engine_error" in capfd.readouterr().err
    assert "out of parrots" not in str(server.chats)
    server.down = False
    assert run_command(["rollout", config]) == 0
    assert {t.stop_reason for t in latest(TRAJECTORIES).values()} == {StopReason.ANSWERED}


def test_other_settings_in_the_same_folder_are_refused(config, capfd):
    assert run_command(["rollout", config, "--limit", "1"]) == 0
    assert run_command(["rollout", config, "--set", "budget.action=50"]) == 2
    assert "runs/small holds a run with other settings (budget.action)" in capfd.readouterr().err


def test_rollout_as_json_says_where_the_trajectories_are(config, capfd):
    assert run_command(["rollout", config, "--limit", "1", "--json", "--out", "elsewhere"]) == 0
    assert json.loads(capfd.readouterr().out) == {
        "trajectories": "elsewhere/trajectories.jsonl",
        "count": 2,
    }


def test_report_is_written_again_from_the_trajectories(config, capfd):
    run_command(["eval", config])
    Path("runs/small/report.md").unlink()
    assert run_command(["report", "runs/small"]) == 0
    assert Path("runs/small/report.md").exists()


@pytest.mark.parametrize("port", ["1"])
def test_a_server_that_is_down_is_one_clear_line(config, capfd, port):
    overrides = [
        "--set",
        f"engine.base_url=http://127.0.0.1:{port}/v1",
        "--set",
        "engine.retries=0",
    ]
    assert run_command(["run", "q?", "--config", config, *overrides]) == 1
    notes = capfd.readouterr().err
    assert f"127.0.0.1:{port}" in notes
    assert "Traceback" not in notes


def test_an_interrupted_eval_says_how_to_go_on(config, capfd, monkeypatch, server):
    import signal
    import threading

    asked = threading.Event()
    original = server.chats.append

    def interrupt_once(chat):
        original(chat)
        if not asked.is_set():
            asked.set()
            signal.raise_signal(signal.SIGINT)

    server.chats = type("Chats", (list,), {"append": lambda self, chat: interrupt_once(chat)})()
    assert run_command(["eval", config]) == 130
    assert "the same command continues" in capfd.readouterr().err


def test_a_horizon_report_is_on_several_folders(config, capfd):
    run_command(["eval", config, "--out", "runs/b"])
    run_command(["eval", config, "--limit", "1", "--out", "runs/a"])
    capfd.readouterr()
    assert run_command(["report", "--horizon", "runs/b", "runs/a"]) == 0
    assert "report: runs/b/horizon.md" in capfd.readouterr().out
    assert {"horizon.json", "horizon.md", "horizon.svg"} <= {
        p.name for p in Path("runs/b").iterdir()
    }
    assert run_command(["report", "--horizon", "runs/a", "--out", "here", "--json"]) == 0
    (full, kept) = json.loads(capfd.readouterr().out)["cells"][::-1]
    assert (full["run"], full["cell"]["context_policy"]) == ("a", "full")
    assert kept["per_objective"]["em"]["mean"] == 1.0
    assert Path("here/horizon.svg").exists()
