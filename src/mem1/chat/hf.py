"""Chat templates and tokenizers of Hugging Face models.

    folder or .gguf file -> HFRenderer.load -> render, encode, decode

Only the template makes control tokens: what a message or a passage says of them is plain text.
Assistant turns are never rendered, so templates that rewrite or strip `<think>` have nothing to
rewrite; a `<think>` that a template opens for the model is taken back.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mem1.errors import MissingExtraError, ModelError
from mem1.text import STATE_TAG, open_tag
from mem1.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_PAD = "\u2003"
_MARK = f"{_PAD}\ue000{{}}\ue001{_PAD}"
"""Stands for the content of message number {}, in Unicode's private use area. The blanks around it
tell whether the template trims contents."""


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
        folder, gguf = (path.parent, path.name) if path.suffix == ".gguf" else (path, None)
        if not path.exists():
            raise ModelError(f"tokenizer {path}: no such file or folder")
        options = {"gguf_file": gguf} if gguf else {}
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, **options
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{path}: no tokenizer that transformers can load: {error}") from error
        if not tokenizer.is_fast:
            raise ModelError(f"{path}: its tokenizer has no fast version (tokenizer.json)")
        return cls(tokenizer)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end an assistant's turn, as far as the tokenizer tells."""
        eos = self._tokenizer.eos_token_id
        return () if eos is None else (eos,)

    def render(self, messages: Sequence[Message]) -> tuple[int, ...]:
        ids: list[int] = []
        for piece, is_control in self._pieces(messages):
            if is_control:
                ids.append(self._tokenizer.convert_tokens_to_ids(piece))  # type: ignore[arg-type]
            else:
                ids.extend(self.encode(piece))
        return tuple(ids)

    def encode(self, text: str) -> tuple[int, ...]:
        if not text:
            return ()
        backend = self._tokenizer.backend_tokenizer
        # Set every time: transformers sets it back in calls of its own.
        backend.encode_special_tokens = True
        return tuple(backend.encode(text, add_special_tokens=False).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(
            list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    def _pieces(self, messages: Sequence[Message]) -> list[tuple[str, bool]]:
        """The rendered chat as (text, whether it is a control token), contents never split."""
        rendered = self._template(
            [_MARK.format(number) for number in range(len(messages))], messages
        )
        pieces: list[tuple[str, bool]] = []
        run = ""
        for part in re.split(f"({_PAD}?\ue000\\d+\ue001{_PAD}?)", rendered):
            if "\ue000" in part:
                content = messages[int(part.strip(f"{_PAD}\ue000\ue001"))].content
                run += content if part.startswith(_PAD) else content.strip()
                continue
            for text in self._control.split(part):
                if text in self._control_tokens:
                    pieces += [(run, False), (text, True)] if run else [(text, True)]
                    run = ""
                else:
                    run += text
        run = run.removesuffix(f"{open_tag(STATE_TAG)}\n")
        return [*pieces, (run, False)]

    def _template(self, contents: Sequence[str], messages: Sequence[Message]) -> str:
        if self._tokenizer.chat_template is None:
            bos = self._tokenizer.bos_token if self._adds_bos else ""
            return (bos or "") + "\n\n".join(contents) + "\n"
        chat = [
            {"role": message.role, "content": content}
            for message, content in zip(messages, contents, strict=True)
        ]
        rendered = self._tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True
        )
        assert isinstance(rendered, str)
        return rendered

    @cached_property
    def _control_tokens(self) -> frozenset[str]:
        added = self._tokenizer.added_tokens_decoder.values()
        return frozenset(token.content for token in added if token.special)

    @cached_property
    def _control(self) -> re.Pattern[str]:
        longest_first = sorted(self._control_tokens, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")

    @cached_property
    def _adds_bos(self) -> bool:
        ids = self._tokenizer("").input_ids
        return bool(ids) and ids[0] == self._tokenizer.bos_token_id
