"""A (tiny, random) model in this process, evaluated: whatever it says, the books balance."""

from pathlib import Path

import pytest

from mem1.cli import run_command
from mem1.evals.run import TRAJECTORIES_FILE
from mem1.rollout import read_trajectories
from mem1.types import StopReason

pytest.importorskip("torch")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A Llama of two layers that knows nothing, and a byte-level tokenizer trained on one line."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["the capital of France is Paris"], trainer)
    folder = tmp_path / "model"
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        eos_token_id=fast.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_an_eval_of_a_local_model_is_exact_and_within_its_bound(config, model, tmp_path, capfd):
    local = tmp_path / "local.toml"
    local.write_text(f'[engine]\nkind = "local"\nmodel = "{model}"\ndtype = "float32"\n')
    caps = ["prompt=4000", "internal_state=20", "action=10", "observation=150"]
    overrides = [part for cap in caps for part in ("--set", f"budget.{cap}")]
    arguments = ["eval", config, str(local), "--out", "run", "--limit", "2", *overrides]
    assert run_command(arguments) == 0
    played = list(read_trajectories(Path("run") / TRAJECTORIES_FILE))
    assert len(played) == 2 * 2
    for trajectory in played:
        assert trajectory.stop_reason is StopReason.MAX_TURNS
        assert trajectory.exact
        sizes = [len(t.prompt_ids) + t.completion.num_tokens for t in trajectory.turns]
        assert trajectory.bound is None or max(sizes) <= trajectory.bound
