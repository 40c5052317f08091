"""What a plan says; plain data, as `mem1 plan --json` prints it."""

from dataclasses import dataclass
from typing import Any

from mem1.plan.machine import Machine
from mem1.plan.memory import Item, Phase

_KEPT_FREE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTokens:
    """Tokens that an optimizer step learns from, over all processes."""

    most: int | None
    """Every turn of every episode at the bound, nothing shared; None without a bound."""
    expected: int
    """Caps filled to a share, all turns taken, what a task's rollouts share computed once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A setting, and the value with which the run fits."""

    setting: str
    value: Any
    """None: a table of its own, with its defaults."""

    def __str__(self) -> str:
        if self.value is None:
            return self.setting
        value = str(self.value).lower() if isinstance(self.value, bool) else repr(self.value)
        return f"{self.setting} {'' if self.setting.startswith('--') else '= '}{value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will run where."""

    model: str
    dtype: str
    parameters: int
    trained: int
    """Parameters that get a gradient, those of a critic not counted."""
    critic: int
    """Parameters of the critic; 0 without one."""
    context_policies: tuple[str, ...]
    bound: int | None
    """Certified largest context + reply of all policies, in tokens; None: one has none."""
    window: int | None
    """Most tokens the model takes; None: not known."""
    step_tokens: StepTokens | None
    """None for a run that doesn't train."""
    row_tokens: int | None
    """Tokens of the longest row that goes through the model at once."""
    machine: Machine
    processes: int
    """How many of the devices compute, a process on each."""
    places: tuple[str, ...]
    """What runs where, in words."""
    items: tuple[Item, ...]
    """Memory on each of these devices."""
    phases: dict[Phase, int]
    """Bytes on a device while sampling, in the update, in the optimizer's step, while merging
    adapters; those that there are."""
    host: int
    """Most bytes of the machine's own memory that processes on GPUs take together, while they
    start or with what is offloaded; of a single process, which loads to its GPU, 0."""
    problems: tuple[str, ...]
    """Why it can't run, but for memory."""
    advice: tuple[tuple[Change, ...], ...] = ()
    """If memory is short: ways to fit, each a few settings to change together; the first ones leave
    what is learned as it is."""

    @property
    def peak(self) -> int:
        """Most bytes on a device."""
        return max(self.phases.values(), default=0)

    @property
    def kept_free(self) -> int:
        """Bytes of a device that aren't planned with: its driver's, and gaps between tensors."""
        return int(_KEPT_FREE * self.machine.memory)

    @property
    def has_room(self) -> bool:
        return self.peak + self.kept_free <= self.machine.memory

    @property
    def fits(self) -> bool:
        return self.has_room and not self.problems
