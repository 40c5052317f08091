"""A policy small enough to learn on one CPU core, as an ordinary Hugging Face folder.

    make_tiny(folder) -> config.json, model.safetensors, tokenizer.json

A Llama of some 0.1 M parameters: of a Llama, transformers reads tokenizer.json as it is; of a
Qwen2 it puts Qwen's own word splitting in its place. The tokenizer has a token for every word of
the ledger, the tags and the hint, and bytes for all other text: nothing is unknown.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from mem1.envs.ledger import LEDGER_BUDGET_PROMPT, LEDGER_PROMPT, NO_ACTION, NOTHING
from mem1.errors import ConfigError, MissingExtraError
from mem1.rollout.episode import hint_text
from mem1.tasks.ledger import (
    COUNT,
    FOUND,
    MOST,
    NAMES,
    NEXT,
    NOW,
    SEARCH,
    SUM,
    UNKNOWN,
    VALUES,
)
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


def make_tiny(
    folder: Path,
    *,
    seed: int,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 2,
    window: int = 2048,
) -> None:
    """Write a policy that knows nothing yet: random weights, the same ones for the same seed.

    Args: `hidden`, width of the residual stream, a multiple of twice `heads`; `window`, most tokens
    of context and reply.
    Raises: ConfigError for a width that the heads don't divide, MissingExtraError.
    """
    if hidden < 1 or heads < 1 or hidden % (2 * heads):
        raise ConfigError(f"hidden is {hidden}: choose a multiple of {2 * heads} for {heads} heads")
    try:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        raise MissingExtraError("torch and transformers", extra="local") from error
    tokenizer = tiny_tokenizer()
    end = len(tokenizer) - 1
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=window,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=end,
        # The usual 0.02 suits models many times as wide.
        initializer_range=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


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
    """Texts that hold every word the tiny world can say. A new word comes last, so that those
    before it keep their ids."""
    tags = (STATE_TAG, SEARCH, ANSWER_TAG, OBSERVATION_TAG)
    own = "".join(tag(name) for name in tags for tag in (open_tag, close_tag))
    words = "".join(f" {word}" for word in (*NAMES, *VALUES, NOW, NEXT, MOST, UNKNOWN))
    hints = [hint_text(turns) for turns in range(_MOST_TURNS + 1)]
    blank = dict.fromkeys(("question", "max_turns", "state_tokens"), "")
    prompts = [prompt.format(**blank) for prompt in (LEDGER_PROMPT, LEDGER_BUDGET_PROMPT)]
    return [own, words, *hints, *prompts, FOUND, NOTHING, NO_ACTION, f" {SUM} {COUNT}"]
