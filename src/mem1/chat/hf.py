"""Chat templates and tokenizers of Hugging Face models.

    folder or .gguf file -> HFRenderer.load -> render, encode, decode

Two encoders share a vocabulary. The tokenizer's own, in which `<|im_end|>` is a control token, is
for what the chat template writes. The plain one, in which it is ten characters, is for
everything else: what a message or a passage says of control tokens stays text.
"""

import copy
import re
from collections.abc import Callable, Sequence
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mem1.errors import MissingExtraError, ModelError
from mem1.files import derived_folder
from mem1.text import RESERVED_TAGS, STATE_TAG, close_tag, open_tag
from mem1.types import Message

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_SHORT = 64
"""Characters of a text that is remembered with its ids."""

_PRIVATE_USE = range(0xE000, 0xF900)
"""Code points without a meaning, out of which one is chosen to mark a place."""

_OWN_TAGS = frozenset(tag(name) for tag in (open_tag, close_tag) for name in RESERVED_TAGS)
_OPENED_STATE = re.compile(rf"{open_tag(STATE_TAG)}\s*(?:{close_tag(STATE_TAG)}\s*)?\Z")


class HFRenderer:
    """A `Renderer` over a fast tokenizer of transformers."""

    def __init__(self, tokenizer: "PreTrainedTokenizerFast") -> None:
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, path: Path) -> "HFRenderer":
        """Load the tokenizer of a model folder or a `.gguf` file.

        Raises: ModelError if there is none.
        """
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise MissingExtraError("transformers", extra="local") from error
        if not path.exists():
            raise ModelError(f"tokenizer {path}: no such file or folder")
        try:
            if path.suffix == ".gguf":
                path = _unpacked(path)
            tokenizer = AutoTokenizer.from_pretrained(
                str(path), local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{path}: no tokenizer that transformers can load: {error}") from error
        if not tokenizer.is_fast:
            raise ModelError(f"{path}: its tokenizer has no fast version (tokenizer.json)")
        return cls(tokenizer)

    def save(self, folder: Path) -> None:
        """Write the tokenizer as files of a Hugging Face model folder."""
        self._tokenizer.save_pretrained(str(folder))

    @property
    def vocab_size(self) -> int:
        """Ids are below it."""
        return len(self._tokenizer)

    @cached_property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end an assistant's turn: the tokenizer's, and the one its template writes there.

        They differ for base models: Qwen2.5 ends documents with one token, turns with another.
        """
        ends = [self._tokenizer.eos_token] if self._tokenizer.eos_token else []
        if self._tokenizer.chat_template is not None:
            mark = chr(_PRIVATE_USE[0])
            chat = [Message(role="user", content="q"), Message(role="assistant", content=mark)]
            _, found, after = self._template(chat, ["q", mark], reply=False).rpartition(mark)
            ends += self._control.findall(after)[:1] if found else []
        ids = self._tokenizer.convert_tokens_to_ids([str(token) for token in ends])
        assert isinstance(ids, list)
        return tuple(dict.fromkeys(ids))

    def render(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids as `apply_chat_template` has them, wherever the contents forge no control token.

        A `<think>` that a template opens for the model is taken back: the model writes its own.
        """
        said = "".join(message.content for message in messages)
        mark = next(char for char in map(chr, _PRIVATE_USE) if char not in said)
        forged: list[str] = []

        def set_aside(found: re.Match[str]) -> str:
            forged.append(found[0])
            return f"{mark}{len(forged) - 1}{mark}"

        contents = [self._control.sub(set_aside, message.content) for message in messages]
        rendered = self._template(messages, contents, reply=True)
        ids: list[int] = []
        for index, part in enumerate(re.split(f"{mark}(\\d+){mark}", rendered)):
            if index % 2:
                ids.extend(self.encode(forged[int(part)]))
            else:
                ids.extend(self._tokenizer(part, add_special_tokens=False).input_ids)
        return tuple(ids)

    def encode(self, text: str) -> tuple[int, ...]:
        return self._remembered(text) if len(text) <= _SHORT else self._encode(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        if len(token_ids) == 1:
            return self._piece(token_ids[0])
        return self._decode(list(token_ids), skip_special_tokens=False)

    def _template(
        self, messages: Sequence[Message], contents: Sequence[str], *, reply: bool
    ) -> str:
        """The chat as text; with `reply`, up to where the assistant's next turn begins."""
        if self._tokenizer.chat_template is None:
            bos = str(self._tokenizer.bos_token) if self._adds_bos else ""
            return bos + "\n\n".join(contents) + "\n"
        chat = [
            {"role": message.role, "content": content}
            for message, content in zip(messages, contents, strict=True)
        ]
        rendered = self._tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=reply
        )
        assert isinstance(rendered, str)
        return _OPENED_STATE.sub("", rendered)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._plain.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _remembered(self) -> Callable[[str], tuple[int, ...]]:
        """Ids of texts that come again, as tags and hints do in every turn."""
        return lru_cache(maxsize=1024)(self._encode)

    @cached_property
    def _decode(self) -> Callable[..., str]:
        return self._tokenizer.backend_tokenizer.decode

    @cached_property
    def _piece(self) -> Callable[[int], str]:
        """Text of one id; there are no more than the vocabulary has."""
        return cache(lambda token_id: self._decode([token_id], skip_special_tokens=False))

    @cached_property
    def _control_tokens(self) -> tuple[str, ...]:
        """Longest first: special tokens, and tokens in brackets that are special in all but name
        (the roles of DeepSeek-R1, the tool tags of Qwen), but not the tags that agents write."""
        tokens = {
            token.content
            for token in self._tokenizer.added_tokens_decoder.values()
            if token.special or re.fullmatch(r"[<\[].+[>\]]", token.content)
        }
        return tuple(sorted(tokens - _OWN_TAGS, key=lambda token: (-len(token), token)))

    @cached_property
    def _control(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self._control_tokens)) or "(?!)")

    @cached_property
    def _plain(self) -> "Tokenizer":
        """A copy of the tokenizer that makes no control tokens and puts no blank before a text."""
        from tokenizers import AddedToken

        plain = copy.deepcopy(self._tokenizer.backend_tokenizer)
        plain.add_special_tokens(
            [AddedToken(token, normalized=False) for token in self._control_tokens]
        )
        added = self._tokenizer.added_tokens_decoder.values()
        own = [t.content for t in added if t.special and t.content in _OWN_TAGS]
        if own:
            plain.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in own])
            plain = copy.deepcopy(plain)  # only a copy takes note that they are not special now
        plain.encode_special_tokens = True
        plain.no_truncation()
        plain.no_padding()
        _drop_prefix(plain)
        return plain

    @cached_property
    def _adds_bos(self) -> bool:
        ids = self._tokenizer("").input_ids
        return bool(ids) and ids[0] == self._tokenizer.bos_token_id


def _drop_prefix(tokenizer: "Tokenizer") -> None:
    """Undo the blank that tokenizers in the way of sentencepiece put before a text: a segment of
    a context goes on where the last one ended."""
    from tokenizers import normalizers, pre_tokenizers

    splitter, normalizer = tokenizer.pre_tokenizer, tokenizer.normalizer
    if isinstance(splitter, pre_tokenizers.Metaspace):
        splitter.prepend_scheme = "never"
    if isinstance(splitter, pre_tokenizers.ByteLevel):
        splitter.add_prefix_space = False
    parts = normalizer if isinstance(normalizer, normalizers.Sequence) else [normalizer]
    kept = [part for part in parts if part and not isinstance(part, normalizers.Prepend)]
    if len(kept) < len(parts):
        tokenizer.normalizer = normalizers.Sequence(kept)


def _unpacked(gguf: Path) -> Path:
    """The folder of a GGUF file's tokenizer: reading it out takes long and is done once."""
    import transformers

    def build(folder: Path) -> None:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(gguf.parent), gguf_file=gguf.name, local_files_only=True, trust_remote_code=False
        )
        tokenizer.save_pretrained(str(folder))

    version = f"transformers {transformers.__version__}"
    return derived_folder(gguf, kind="tokenizers", version=version, build=build)
