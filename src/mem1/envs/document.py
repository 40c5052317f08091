"""A document read piece by piece: the world of MemAgent's task (arXiv 2507.02259).

Task -> prompt;  next -> the next piece;  answer -> done
"""

from collections.abc import Iterator

from mem1.envs.base import Observation
from mem1.errors import ConfigError
from mem1.tasks import question_text
from mem1.tasks.documents import read_chunks
from mem1.text import ANSWER_TAG, neutralise
from mem1.types import Action, Fault, Task

NEXT = "next"
END = "The document has ended. Answer now."
DOCUMENT_PROMPT = """\
Answer questions about a document that you read piece by piece. Every reply has two parts: your \
notes in <think> and </think>, then one action: <next>go on</next> for the next piece or \
<answer>short answer</answer>. Older pieces are forgotten: repeat in the notes every fact you \
need. Several answers are separated by ;

Question: {question}"""


class DocumentEnv:
    """An `Env`: whatever the agent replies, short of an answer, shows the next piece."""

    def __init__(
        self,
        task: Task,
        *,
        chunk_chars: int,
        prompt: str = DOCUMENT_PROMPT,
    ) -> None:
        """Args: `chunk_chars`, most characters of a piece: what exceeds the observation's cap is
        not seen; `prompt`, with `{question}`, and if wanted `{max_turns}` and `{state_tokens}`."""
        if chunk_chars < 1:
            raise ConfigError(f"chunk_chars is {chunk_chars}: give at least 1")
        self._task, self._prompt = task, prompt
        self._chunk_chars = chunk_chars
        self._chunks: Iterator[str] = iter(())

    @property
    def actions(self) -> tuple[str, ...]:
        return NEXT, ANSWER_TAG

    async def start(self, *, max_turns: int, state_tokens: int) -> str:
        """Raises: ConfigError for a document that isn't read in so many turns."""
        needed = sum(1 for _ in self._read()) + 2
        if needed > max_turns:
            raise ConfigError(
                f"the document of task {self._task.id} takes {needed} turns, run.max_turns = "
                f"{max_turns}: raise it, or tasks.chunk_chars = {self._chunk_chars}"
            )
        self._chunks = self._read()
        question = neutralise(question_text(self._task), tags=self.actions)
        return self._prompt.format(
            question=question, max_turns=max_turns, state_tokens=state_tokens
        )

    async def step(self, action: Action | None, *, faults: tuple[Fault, ...]) -> Observation:
        if action is not None and action.name == ANSWER_TAG:
            return Observation(text="", done=True)
        return Observation(text=next(self._chunks, END))

    async def close(self) -> None:
        pass

    def _read(self) -> Iterator[str]:
        return read_chunks(self._task, size=self._chunk_chars)
