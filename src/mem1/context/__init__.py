"""WHAT THE MODEL SEES NEXT. Each policy is a file; nothing else asks which one runs."""

from collections.abc import Mapping

from mem1.context.base import Budget, ContextPolicy, Parts, TaskPolicy, check_window
from mem1.context.closed_book import ClosedBook
from mem1.context.full import Full
from mem1.context.internal_state import InternalState
from mem1.context.last_observation import LastObservation
from mem1.context.oracle import Oracle
from mem1.context.window import Window

POLICIES: Mapping[str, type[ContextPolicy]] = {
    "internal_state": InternalState,
    "full": Full,
    "window": Window,
    "last_observation": LastObservation,
    "closed_book": ClosedBook,
    "oracle": Oracle,
}
"""Names that configs use. The last three are controls."""

__all__ = [
    "POLICIES",
    "Budget",
    "ClosedBook",
    "ContextPolicy",
    "Full",
    "InternalState",
    "LastObservation",
    "Oracle",
    "Parts",
    "TaskPolicy",
    "Window",
    "check_window",
]
