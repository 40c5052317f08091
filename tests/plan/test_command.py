"""`mem1 plan`: what it prints, its exit codes, and what it doesn't load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mem1.cli import run_command

CONFIG = """
[engine]
kind = "local"
model = "models/Qwen2.5-1.5B"

[budget]
prompt = 400
internal_state = 100
action = 50
observation = 200

[train]
algorithm = "grpo"
steps = 1
batch_size = 4
row_tokens = 8192
group_size = 2
"""
BIG = ["--devices", "1", "--memory", "80GB"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(CONFIG)


def test_a_run_that_fits_is_shown_with_status_0(capfd):
    assert run_command(["plan", "run.toml", *BIG]) == 0
    told = capfd.readouterr().out
    for line in ("parameters     1,543,714,304", "one GPU samples and trains", "it has room"):
        assert line in told


def test_one_that_does_not_is_told_what_fits_with_status_2(capfd):
    assert run_command(["plan", "run.toml", "--memory", "48GB"]) == 2
    told = capfd.readouterr().out
    assert "too large" in told
    assert "fits with  train.gradient_checkpointing = true" in told


def test_json_is_the_plan_and_its_verdict(capfd):
    assert run_command(["plan", "run.toml", *BIG, "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert (told["parameters"], told["fits"], told["processes"]) == (1_543_714_304, True, 1)
    assert told["peak"] == max(told["phases"].values())
    assert told["items"][0] == {
        "name": "weights",
        "bytes": 2 * 1_543_714_304,
        "phases": ["sampling", "update", "step"],
        "on_host": False,
    }


def test_small_models_are_told_in_mib(capfd):
    Path("small").mkdir()
    facts = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "vocab_size": 99}
    facts |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    Path("small/config.json").write_text(json.dumps(facts))
    told = ["--set", "engine.model=small", "--set", "train.row_tokens=20000"]
    assert run_command(["plan", "run.toml", *BIG, *told]) == 0
    assert "in MiB" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "engine.model=models/Qwen9"], "models/Qwen9: no config.json there"),
        (["--memory", "lots"], "--memory lots: write it as  80GB  or  24GiB"),
        (["--memory", "80GB", "--devices", "0"], "--devices 0: give at least 1"),
        ([*BIG, "--fill", "2"], "--fill 2.0: give more than 0, at most 1"),
        (["--memory", "80GB", "--devices", "3"], "set a multiple of 3"),
        (["--set", "engine.kind=gpu"], "engine.kind"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(capfd, arguments, message):
    assert run_command(["plan", "run.toml", *arguments]) == 2
    notes = capfd.readouterr().err
    assert message in notes
    assert "Traceback" not in notes


def test_it_loads_no_model_library():
    code = """
import sys
from mem1.cli import run_command
run_command(["plan", "run.toml", "--memory", "80GB"])
print({"torch", "transformers", "peft"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
