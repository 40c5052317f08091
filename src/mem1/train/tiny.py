"""A policy small enough to learn on one CPU core, as an ordinary Hugging Face folder.

    make_tiny(folder) -> config.json, model.safetensors, tokenizer.json

Its tokenizer has a token for every word of the ledger, the tags and the hint, and bytes for all
other text: nothing is unknown, every text survives.
"""

from typing import TYPE_CHECKING

from mem1.envs.ledger import LEDGER_PROMPT, NO_ACTION, NOTHING
from mem1.rollout.episode import hint_text
from mem1.tasks.ledger import FOUND, MOST, NAMES, NEXT, NOW, SEARCH, UNKNOWN, VALUES
from mem1.text import ANSWER_TAG, OBSERVATION_TAG, STATE_TAG, close_tag, open_tag

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END = "<|end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m.content }}"
    "{% if m.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
)
_PIECES = r"\[/?HINT\]|</?[a-z]+>| ?[A-Za-z]+| ?[0-9]+|[^A-Za-z0-9]"
"""Tags, words and numbers with the blank before them, single other characters."""
_MOST_TURNS = 64


def tiny_tokenizer() -> "PreTrainedTokenizerFast":
    """A word-level tokenizer over bytes, of 600-odd tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokens = dict.fromkeys(sorted(pre_tokenizers.ByteLevel.alphabet()))
    for text in _world_texts():
        tokens |= dict.fromkeys(piece for piece, _ in splitter.pre_tokenize_str(text))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    # Without merges a piece is either a token or its bytes.
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    backend.pre_tokenizer = splitter
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(END, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END, pad_token=END, chat_template=CHAT_TEMPLATE
    )


def _world_texts() -> list[str]:
    """Texts that hold every word the tiny world can say."""
    tags = (STATE_TAG, SEARCH, ANSWER_TAG, OBSERVATION_TAG)
    own = "".join(tag(name) for name in tags for tag in (open_tag, close_tag))
    words = "".join(f" {word}" for word in (*NAMES, *VALUES, NOW, NEXT, MOST, UNKNOWN))
    hints = [hint_text(turns) for turns in range(_MOST_TURNS + 1)]
    return [own, words, *hints, LEDGER_PROMPT.format(question=""), FOUND, NOTHING, NO_ACTION]
