"""Questions answered with tools: the world of MEM1's QA tasks.

Task -> prompt;  search -> passages;  answer -> done
"""

import re
from collections.abc import Sequence

from mem1.envs.base import Observation
from mem1.envs.prompts import QA_PROMPT
from mem1.errors import ConfigError
from mem1.tasks import question_text
from mem1.text import ANSWER_TAG, HINT_TAG, OBSERVATION_TAG, STATE_TAG, TOOL_TAG, neutralise
from mem1.tools import Tool, Toolbox
from mem1.types import Action, Fault, Task

_OWN_TAGS = frozenset({STATE_TAG, ANSWER_TAG, OBSERVATION_TAG, TOOL_TAG, HINT_TAG.lower()})

NO_ACTION = (
    "Your last reply had no valid action. Write your notes between think tags, then one action: "
    "{actions}."
)


class QAEnv:
    """An `Env`: the agent calls tools until it answers all questions at once."""

    def __init__(
        self,
        task: Task,
        *,
        tools: Sequence[Tool] = (),
        toolbox: Toolbox | None = None,
        prompt: str = QA_PROMPT,
    ) -> None:
        """Args: `toolbox`, tools with parameters; `prompt`, with `{question}` where the questions
        go and, if wanted, `{tools}` for the toolbox's manual, `{max_turns}`, and `{state_tokens}`
        for the cap on the internal state.

        Raises: ConfigError for a prompt without question, and for tools whose names clash.
        """
        if "{question}" not in prompt:
            raise ConfigError(f"the prompt has no {{question}}: {prompt[:80]!r}")
        self._tools = {tool.name: tool for tool in tools}
        for name in self._tools:
            if name in _OWN_TAGS or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ConfigError(
                    f"tool name {name!r}: use lower-case letters, digits and _, and none of "
                    f"{', '.join(sorted(_OWN_TAGS))}"
                )
        if len(self._tools) < len(tools):
            raise ConfigError(f"two tools have one name: {[tool.name for tool in tools]}")
        self._task = task
        self._toolbox = toolbox
        self._prompt = prompt

    @property
    def actions(self) -> tuple[str, ...]:
        return (*self._tools, *([TOOL_TAG] if self._toolbox else []), ANSWER_TAG)

    async def start(self, *, max_turns: int, state_tokens: int) -> str:
        prompt = self._prompt.replace("{max_turns}", str(max_turns))
        prompt = prompt.replace("{state_tokens}", str(state_tokens))
        manual = self._toolbox.manual() if self._toolbox else ""
        prompt = prompt.replace("{tools}", neutralise(manual, tags=self.actions))
        question = neutralise(question_text(self._task), tags=self.actions)
        return prompt.replace("{question}", question)

    async def step(self, action: Action | None, *, faults: tuple[Fault, ...]) -> Observation:
        if action is None:
            return Observation(text=NO_ACTION.format(actions=" or ".join(self.actions)))
        if action.name == ANSWER_TAG:
            return Observation(text="", done=True)
        _, _, named = action.name.partition(":")
        if named and self._toolbox:
            return Observation(text=await self._toolbox.call(named, action.argument))
        return Observation(text=await self._tools[action.name].call(action.argument))

    async def close(self) -> None:
        pass
