"""What the paper reports on multi-objective questions, to stand beside figures of the same tasks.

Source: MEM1, arXiv 2506.15841 (ICLR 2026), multi-objective QA; questions of NQ and HotpotQA.
"""

from dataclasses import dataclass

from mem1.types import Task

SOURCES = frozenset({"nq", "hotpotqa"})
"""Data sets of whose questions the paper's tasks are composed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperRow:
    """An agent at one number of objectives."""

    agent: str
    num_objectives: int
    em: float
    """Sum over the objectives."""
    f1: float | None = None
    """Likewise; None: not reported."""
    peak_tokens: float
    """Without the task prompt, over solved tasks only, in the tokenizer of gpt-4o-mini."""
    seconds: float | None = None
    """A task; None: not reported."""


def _row(agent: str, size: int, em: float, peak: float, **others: float) -> PaperRow:
    return PaperRow(agent=agent, num_objectives=size, em=em, peak_tokens=peak, **others)


_LARGE = "Qwen2.5-14B-Instruct, full context"
_SMALL = "Qwen2.5-7B-Instruct, full context"
MEM1 = "MEM1-QA 7B"

PAPER = (
    _row(_LARGE, 2, 0.732, 1560),
    _row(_SMALL, 2, 0.268, 1960),
    _row("7B + A-MEM", 2, 0.286, 1410),
    _row("7B truncated context", 2, 0.262, 828),
    _row("DeepResearcher", 2, 0.536, 2200),
    _row(MEM1, 2, 0.709, 640),
    _row(_LARGE, 8, 1.55, 4470),
    _row(_SMALL, 8, 0.87, 4950),
    _row("7B + A-MEM", 8, 1.13, 1860),
    _row("7B truncated context", 8, 0.97, 1180),
    _row("DeepResearcher", 8, 0.73, 5180),
    _row(MEM1, 8, 1.87, 801),
    _row(_LARGE, 16, 0.567, 3840, f1=0.703, seconds=29.7),
    _row(_SMALL, 16, 0.165, 4330, f1=0.213, seconds=15.5),
    _row("7B + A-MEM", 16, 0.730, 1880, seconds=91.2),
    _row("7B truncated context", 16, 0.396, 1330, seconds=22.1),
    _row("Search-R1 (retrained on N = 2)", 16, 0.520, 2480, f1=0.647, seconds=23.4),
    _row("DeepResearcher", 16, 0.071, 4890, f1=0.106, seconds=15.8),
    _row(MEM1, 16, 1.97, 1040, f1=2.39, seconds=8.70),
)


def is_like_the_papers(task: Task) -> bool:
    """Whether a task is composed of questions of the paper's data sets."""
    return set(task.source.split("+")) <= SOURCES and len(task.objectives) > 1
