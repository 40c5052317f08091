"""TRAJECTORIES -> NUMBERS."""

from mem1.evals.metrics import Estimate, aggregate, measure
from mem1.evals.report import Cell, EvalReport, build_report, read_report, write_report

__all__ = [
    "Cell",
    "Estimate",
    "EvalReport",
    "aggregate",
    "build_report",
    "measure",
    "read_report",
    "write_report",
]
