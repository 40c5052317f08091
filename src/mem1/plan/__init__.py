"""WHAT WILL RUN WHERE, and whether it fits: arithmetic alone, no model is loaded.

RunConfig, Machine -> plan_run -> Plan: parameters, bound, tokens of a step, memory, advice
"""

from mem1.plan.advice import plan_run
from mem1.plan.machine import Machine, parse_memory, this_machine
from mem1.plan.memory import Item
from mem1.plan.result import Change, Plan, StepTokens
from mem1.plan.shape import Shape, read_shape

__all__ = [
    "Change",
    "Item",
    "Machine",
    "Plan",
    "Shape",
    "StepTokens",
    "parse_memory",
    "plan_run",
    "read_shape",
    "this_machine",
]
