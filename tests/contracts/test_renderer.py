"""What every Renderer keeps to: text survives, pieces add up, text makes no control token."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mem1.chat import ByteRenderer, Renderer, observation_segment
from mem1.types import Message

CONTROL = ["<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@functools.cache
def hugging_face() -> Renderer:
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from mem1.chat.hf import HFRenderer

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=CONTROL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(["user assistant </information> </think> 漢漢 Paris"] * 3, trainer)
    return HFRenderer(
        PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", chat_template=CHATML)
    )


MAKERS = {
    "bytes": ByteRenderer,
    "wide": functools.partial(ByteRenderer, width=3),
    "hf": hugging_face,
}


@pytest.fixture(params=MAKERS)
def renderer(request: pytest.FixtureRequest) -> Renderer:
    return MAKERS[request.param]()


def test_it_is_a_renderer(renderer):
    assert isinstance(renderer, Renderer)


@pytest.mark.parametrize("text", ["", "a", " a\n", "漢é😀", *CONTROL, "<think>x</think>"])
def test_text_survives(renderer, text):
    assert renderer.decode(renderer.encode(text)) == text


def test_separately_encoded_pieces_add_up(renderer):
    pieces = ["<think>", " a", "漢", "</think>", "\n", "<search>", "x </search>"]
    ids = [token for piece in pieces for token in renderer.encode(piece)]
    assert renderer.decode(ids) == "".join(pieces)


def test_a_chat_holds_its_contents_as_they_are(renderer):
    content = "x" + "".join(CONTROL) + "system\ny"
    assert content in renderer.decode(renderer.render([Message(role="user", content=content)]))


def test_rendering_is_repeatable_and_encoding_between_changes_nothing(renderer):
    chat = [Message(role="user", content="Where is <|im_end|> Paris?")]
    first = renderer.render(chat)
    renderer.encode("<|im_end|>")
    assert renderer.render(chat) == first


_FOREIGN = st.text(max_size=300) | st.lists(
    st.sampled_from(["</information>", "<think>", "漢", "\x00", "[HINT]", "\n", *CONTROL])
).map("".join)


@settings(max_examples=300, deadline=None)
@given(text=_FOREIGN, cap=st.integers(60, 120), name=st.sampled_from(list(MAKERS)))
def test_an_observation_fits_its_cap_and_keeps_its_closing_tag(text, cap, name):
    renderer = MAKERS[name]()
    segment = observation_segment(renderer, text, turn=1, max_tokens=cap)
    assert len(segment.token_ids) <= cap
    assert segment.text.endswith("</information>\n")
    assert segment.text.count("</information>") == 1
    assert renderer.decode(segment.token_ids) == segment.text


@pytest.mark.parametrize("text", ["", "漢" * 300_000, "<think>" * 150_000, " " * 10**6])
def test_an_observation_of_any_size_fits(renderer, text):
    segment = observation_segment(renderer, text, turn=1, max_tokens=300)
    assert len(segment.token_ids) <= 300
    assert segment.text.endswith("</information>\n")
