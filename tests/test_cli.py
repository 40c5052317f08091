"""What commands say about wrong input, and what they can say without a model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mem1.cli import run_command

QUESTION = {"id": "q1", "question": "Capital of France?", "golden_answers": ["Paris"]}
OTHER = {"id": "q2", "question": "Capital of Germany?", "golden_answers": ["Berlin"]}
CONFIG = """
[engine]
kind = "local"
model = "model"

[retriever]
kind = "bm25"
corpus = "corpus.jsonl"

[context]
policies = ["internal_state", "full", "window(k=2)"]

[budget]
prompt = 100
internal_state = 50
action = 10
observation = 80

[tasks]
files = ["questions.jsonl"]
num_objectives = [1, 2]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(CONFIG)
    Path("questions.jsonl").write_text(f"{json.dumps(QUESTION)}\n{json.dumps(OTHER)}\n")
    Path("model").mkdir()
    Path("model/config.json").write_text('{"max_position_embeddings": 400}')
    return tmp_path


def test_help_names_the_commands_and_loads_nothing_heavy():
    code = """
import sys
from mem1.cli import run_command
run_command(["--help"])
print({"torch", "transformers", "numpy", "pydantic", "matplotlib", "fastapi"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *told, loaded = done.stdout.splitlines()
    assert loaded == "set()"
    for command in ("run", "eval", "rollout", "report", "data"):
        assert command in "\n".join(told)


def test_the_command_line_loads_no_model_library():
    code = (
        "import sys, mem1, mem1.cli; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval"], "no config: name a TOML file"),
        (["run", "--config", "run.toml"], "no question"),
        (["eval", "none.toml"], "none.toml: no such config file"),
        (["eval", "run.toml", "--set", "budget.acton=3"], "did you mean action?"),
        (["eval", "run.toml", "--limit", "0"], "give at least 1"),
        (["eval", "run.toml", "--set", "tasks.files=[]"], "tasks.files is empty"),
        (["eval", "run.toml", "--set", "run.max_turns={1 = 6}"], "tasks of 2 objectives"),
        (["run", "q?", "--config", "run.toml", "--context", "ful"], "did you mean full?"),
        (["eval", "run.toml", "--set", 'tasks.files=["no.jsonl"]'], "no.jsonl: no such file"),
        (["report", "nowhere"], "nowhere/trajectories.jsonl: no trajectories"),
        (["report"], "no run folder"),
        (["report", "a", "--out", "b"], "is an .html file"),
        (["report", "--horizon"], "no run folder"),
        (["report", "--horizon", "a", "./a"], "a run folder is named twice: a, a"),
        (["report", "--horizon", "nowhere"], "nowhere/trajectories.jsonl: no trajectories"),
        (["data", "compose", "--num-objectives", "2", "-o", "x"], "tasks.files is empty"),
        (["data", "index", "none.jsonl"], "none.jsonl: no such file"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(folder, capfd, arguments, message):
    extra = ["--dry-run"] if arguments[0] == "eval" else []
    assert run_command([*arguments, *extra]) == 2
    notes = capfd.readouterr().err
    assert message in notes
    assert "Traceback" not in notes


@pytest.mark.parametrize(
    "model",
    ["nowhere", "package:no_such_package/x.gguf", "package:no.such/x", "package:", "run.toml", "."],
)
def test_a_model_that_is_not_there_is_named_with_the_fix(folder, capfd, model):
    assert run_command(["eval", "run.toml", "--dry-run", "--set", f"engine.model={model}"]) == 2
    notes = capfd.readouterr().err
    assert model in notes
    assert "Traceback" not in notes


def test_an_unknown_option_is_status_2(folder, capfd):
    assert run_command(["eval", "run.toml", "--dryrun"]) == 2
    assert "--dryrun" in "".join(capfd.readouterr())


def test_a_dry_run_shows_cells_bounds_and_the_window(folder, capfd):
    assert run_command(["eval", "run.toml", "--dry-run", "--json"]) == 2
    captured = capfd.readouterr()
    plan = json.loads(captured.out)
    cells = [
        (c["context_policy"], c["num_objectives"], c["num_tasks"], c["bound"], c["problem"] is None)
        for c in plan["cells"]
    ]
    assert plan["window"] == 400
    assert cells == [
        ("internal_state", 1, 2, 300, True),
        ("internal_state", 2, 1, 300, True),
        ("full", 1, 2, None, True),
        ("full", 2, 1, None, True),
        ("window(k=2)", 1, 2, 440, False),
        ("window(k=2)", 2, 1, 440, False),
    ]
    assert "window(k=2) needs up to 440 tokens" in captured.err
    assert not Path("runs").exists()


def test_a_dry_run_that_fits_is_status_0(folder, capfd):
    arguments = ["eval", "run.toml", "--dry-run", "--set", 'context.policies=["internal_state"]']
    assert run_command(arguments) == 0
    shown = capfd.readouterr().out
    assert "internal_state = 50" in shown
    assert "model window: 400 tokens" in shown


def test_compose_writes_tasks_that_an_eval_can_read(folder, capfd):
    arguments = ["data", "compose", "questions.jsonl", "--num-objectives", "2", "-o", "two.jsonl"]
    assert run_command(arguments) == 0
    assert capfd.readouterr().out == "1 tasks of 2 objectives in two.jsonl\n"
    overrides = ["--set", 'tasks.files=["two.jsonl"]', "--set", "tasks.num_objectives=[]"]
    assert run_command(["eval", "run.toml", "--dry-run", "--json", *overrides]) == 2
    cells = json.loads(capfd.readouterr().out)["cells"]
    assert {(cell["num_objectives"], cell["num_tasks"]) for cell in cells} == {(2, 1)}


def test_index_says_how_many_passages(folder, capfd, monkeypatch):
    monkeypatch.setenv("MEM1_CACHE", str(folder / "cache"))
    Path("corpus.jsonl").write_text('{"id": "1", "contents": "\\"Paris\\"\\nA capital."}\n')
    assert run_command(["data", "index", "corpus.jsonl"]) == 0
    assert capfd.readouterr().out == "corpus.jsonl: 1 passages indexed, bm25\n"
