"""The seam for anything an agent may call.

argument (text between the tool's tags) -> Tool.call -> text, foreign until proven otherwise
"""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Tool(Protocol):
    """Something the agent can call by writing `<name>argument</name>`.

    Raises `ToolError` if it can't answer, after its own retries; the error is recorded, and never
    shown to the model.
    """

    @property
    def name(self) -> str:
        """Its tag: lower-case letters, digits and `_`; not one that mem1 uses itself."""
        ...

    async def call(self, argument: str) -> str: ...
