"""A model's shape and size, before it is loaded."""

import json
import struct
from pathlib import Path

import pytest

from mem1.errors import ModelError
from mem1.plan import read_shape
from mem1.plan.shape import KNOWN

SIZES = {
    "Qwen2.5-0.5B": 494_032_768,
    "Qwen2.5-1.5B": 1_543_714_304,
    "Qwen2.5-3B": 3_085_938_688,
    "Qwen2.5-7B": 7_615_616_512,
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49_152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
"""Of SmolLM2-135M."""


def written(folder: Path, **changes: object) -> str:
    (folder / "config.json").write_text(json.dumps(LLAMA | changes))
    return str(folder)


def test_known_models_have_their_published_sizes():
    assert {name: read_shape(f"models/{name}").parameters for name in KNOWN} == SIZES


def test_variants_are_known_by_their_models_name():
    assert read_shape("models/Qwen2.5-7B-Instruct") == KNOWN["Qwen2.5-7B"]


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, 134_515_008),
        (
            {
                "hidden_size": 960,
                "intermediate_size": 2560,
                "num_hidden_layers": 32,
                "num_attention_heads": 15,
                "num_key_value_heads": 5,
            },
            361_821_120,
        ),
        (
            {
                "hidden_size": 2048,
                "intermediate_size": 8192,
                "num_hidden_layers": 24,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
            },
            1_711_376_384,
        ),
    ],
    ids=["135M", "360M", "1.7B"],
)
def test_smollm2_has_its_published_sizes(tmp_path, changes, size):
    assert read_shape(written(tmp_path, **changes)).parameters == size


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False, "head_dim": 32}])
def test_parameters_are_those_of_the_model_itself(tmp_path, family, changes):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    written(tmp_path, model_type=family, num_hidden_layers=2, **changes)
    with torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(tmp_path)
        model = transformers.AutoModelForCausalLM.from_config(config)
    size = sum(parameter.numel() for parameter in model.parameters())
    assert read_shape(str(tmp_path)).parameters == size


@pytest.mark.parametrize("targets", [(), ("q_proj", "v_proj")])
def test_adapters_are_those_of_the_model_itself(tmp_path, targets):
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    written(tmp_path, num_hidden_layers=2)
    settings = peft.LoraConfig(
        r=4, target_modules=list(targets) or "all-linear", task_type="CAUSAL_LM"
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
        adapted = peft.get_peft_model(model, settings)
    trained, _ = adapted.get_nb_trainable_parameters()
    assert read_shape(str(tmp_path)).adapters(rank=4, targets=targets) == trained


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type = 'gpt2' can't be planned"),
        ({"hidden_size": None}, "no usable config.json"),
        ({"num_attention_heads": 0}, "no usable config.json"),
    ],
)
def test_a_config_that_says_too_little_is_refused(tmp_path, changes, message):
    with pytest.raises(ModelError, match=message):
        read_shape(written(tmp_path, **changes))


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(ModelError, match=r"models/Qwen9: no config\.json .* Qwen2\.5-7B"):
        read_shape("models/Qwen9")


def test_weights_of_another_model_are_refused(tmp_path):
    header = json.dumps({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(12))
    with pytest.raises(ModelError, match=r"hold 3 parameters, .* describes 134,515,008"):
        read_shape(written(tmp_path))


def test_a_broken_file_of_weights_is_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\x05")
    with pytest.raises(ModelError, match=r"model\.safetensors: no safetensors file"):
        read_shape(written(tmp_path))
