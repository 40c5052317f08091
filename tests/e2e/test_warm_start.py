"""The demo's start: what is shipped, and a few steps of the recipe it came from."""

import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from transformers import AutoModelForCausalLM  # noqa: E402

from mem1.train.logbook import METRICS_FILE, read_metrics  # noqa: E402

ROOT = Path(__file__).parents[2]
FEW = ("train.steps=8", "train.batch_size=8", "tasks.count=8", "train.optimizer.warmup=0")


def recipe():
    spec = importlib.util.spec_from_file_location("warm_start", ROOT / "benchmarks/warm_start.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shape(folder: Path) -> dict[str, torch.Size]:
    """Of all weights but the words: what is shipped knows those of the ledger it was trained on."""
    model = AutoModelForCausalLM.from_pretrained(str(folder))
    words = model.get_input_embeddings().weight
    return {name: p.shape for name, p in model.named_parameters() if p is not words}


def test_a_few_steps_of_the_recipe_lower_the_loss_stage_by_stage(tmp_path):
    made = recipe().warm_start("internal_state", folder=tmp_path, overrides=FEW)
    stages = [tmp_path / f"internal_state-{name}" for name in ("short", "mixed-1", "long-2")]
    losses = [[m["loss"] for m in read_metrics(stage / METRICS_FILE)] for stage in stages]
    assert losses[0][0] > 6  # as good as chance over the vocabulary
    assert losses[0][-1] < losses[0][0] - 1
    assert losses[2][-1] < losses[1][0] - 0.5
    assert shape(made) == shape(ROOT / "data/ledger/internal_state")


@pytest.mark.parametrize("context", ["internal_state", "full"])
def test_what_is_shipped_is_small_and_ordinary(context):
    folder = ROOT / "data/ledger" / context
    assert (folder / "model.safetensors").stat().st_size < 1.5e6
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors", ".md", ".jinja"}
