"""WHAT THE MODEL SEES NEXT. Each policy is a file; nothing else asks which one runs."""

from collections.abc import Mapping

from mem1.context.base import Budget, ContextPolicy, Parts, check_window
from mem1.context.full import Full
from mem1.context.internal_state import InternalState
from mem1.context.window import Window

POLICIES: Mapping[str, type[ContextPolicy]] = {
    "internal_state": InternalState,
    "full": Full,
    "window": Window,
}
"""Names that configs use."""

__all__ = [
    "POLICIES",
    "Budget",
    "ContextPolicy",
    "Full",
    "InternalState",
    "Parts",
    "Window",
    "check_window",
]
