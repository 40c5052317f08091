"""TRAJECTORIES -> NUMBERS."""

from mem1.evals.cells import Cell
from mem1.evals.horizon import HorizonReport, build_horizon, write_horizon
from mem1.evals.memory import MemoryTrace, trace
from mem1.evals.metrics import Estimate, aggregate, measure
from mem1.evals.report import EvalReport, build_report, read_report, write_report

__all__ = [
    "Cell",
    "Estimate",
    "EvalReport",
    "HorizonReport",
    "MemoryTrace",
    "aggregate",
    "build_horizon",
    "build_report",
    "measure",
    "read_report",
    "trace",
    "write_horizon",
    "write_report",
]
