"""The world of ledger tasks: a search for a name shows its page.

Task -> prompt;  search -> page;  answer -> done
"""

from mem1.envs.base import Observation
from mem1.tasks.ledger import FOUND, SEARCH, ledger_of
from mem1.text import ANSWER_TAG
from mem1.types import Action, Fault, Task

LEDGER_PROMPT = "Find the values of {question}\n"
"""Short: what a policy of a hundred thousand parameters reads at every turn."""
LEDGER_BUDGET_PROMPT = "Find the values of {question} with notes of {state_tokens} tokens\n"
"""States the cap on the internal state, its two tags included."""

NOTHING = f"{FOUND} nothing"
NO_ACTION = "no action"


class LedgerEnv:
    """An `Env` without tools and without chance: pages never change."""

    def __init__(self, task: Task, *, prompt: str = LEDGER_PROMPT) -> None:
        """Args: `prompt`, with `{question}` where the questions go and, if wanted, `{max_turns}`,
        and `{state_tokens}` for the cap on the internal state.

        Raises: DataError if it's not a task of the ledger.
        """
        self._ledger = ledger_of(task)
        self._prompt = prompt

    @property
    def actions(self) -> tuple[str, ...]:
        return SEARCH, ANSWER_TAG

    async def start(self, *, max_turns: int, state_tokens: int) -> str:
        return self._prompt.format(
            question=" ".join(self._ledger.questions),
            max_turns=max_turns,
            state_tokens=state_tokens,
        )

    async def step(self, action: Action | None, *, faults: tuple[Fault, ...]) -> Observation:
        if action is None:
            return Observation(text=NO_ACTION)
        if action.name == ANSWER_TAG:
            return Observation(text="", done=True)
        return Observation(text=self._ledger.pages.get(action.argument, NOTHING))

    async def close(self) -> None:
        pass
