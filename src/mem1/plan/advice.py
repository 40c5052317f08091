"""WHICH SETTINGS TO CHANGE if a run doesn't fit, and the values that fit.

One setting, if one is enough: of a number the largest that fits. Else all sizes are halved until it
fits, alone and along with a setting that costs more, or two, and what needn't change is taken back.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass, replace
from itertools import combinations, product
from typing import Any

from mem1.config import LocalConfig, RunConfig
from mem1.errors import ConfigError
from mem1.plan.estimate import estimate
from mem1.plan.machine import Machine
from mem1.plan.result import Change, Plan
from mem1.plan.shape import Shape, read_shape
from mem1.train.config import LoraConfig

_MOST_DEVICES = 64
_MOST_HALVINGS = 17


def plan_run(config: RunConfig, machine: Machine, *, fill: float = 0.5) -> Plan:
    """What will run where, and how to make it fit if it doesn't.

    Args: `fill`, share of their caps that contexts and replies are expected to take.
    Raises: ConfigError where nothing runs here, ModelError for a model that can't be planned.
    """
    if not 0 < fill <= 1:
        raise ConfigError(f"--fill {fill}: give more than 0, at most 1")
    model = getattr(config.engine, "model", "")
    shape = read_shape(model) if config.engine.kind != "openai" else None
    plan = estimate(config, machine, shape=shape, fill=fill)
    if plan.has_room or shape is None:
        return plan
    state = _State(config=config, machine=machine, shape=shape)
    alone = [change for knob in _knobs(state) if (change := _first_fitting(state, knob))]
    found = [(change,) for change in alone] or list(_together(state))
    ways = [tuple(change.told for change in changes) for changes in found]
    return replace(plan, advice=tuple(dict.fromkeys(ways)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """A run on a machine."""

    config: RunConfig
    machine: Machine
    shape: Shape

    def has_room(self) -> bool:
        return estimate(self.config, self.machine, shape=self.shape, fill=1.0).has_room


@dataclass(frozen=True, slots=True, kw_only=True)
class _Knob:
    """A setting, and values for it, from the one that changes least to the one that saves most."""

    setting: str
    values: Sequence[Any]
    turn: Callable[[_State, Any], _State]
    """Raises: ConfigError for a value that doesn't go with the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turned:
    """A knob, and the value it was given."""

    knob: _Knob
    value: Any

    @property
    def told(self) -> Change:
        if is_dataclass(self.value):
            return Change(setting=f"[{self.knob.setting}]", value=None)
        return Change(setting=self.knob.setting, value=self.value)


def _knobs(state: _State) -> list[_Knob]:
    return [*_switches(state), *_sizes(state), *_dear(state)]


def _switches(state: _State) -> Iterator[_Knob]:
    """Cost time only."""
    train = state.config.train
    if train and not train.gradient_checkpointing:
        yield _setting("train.gradient_checkpointing", [True])
    if train and train.staleness:
        yield _setting("train.staleness", [0])


def _sizes(state: _State) -> Iterator[_Knob]:
    """Cost time only."""
    train, engine = state.config.train, state.config.engine
    if train:
        bounds = [policy.bound(state.config.budget) for policy in state.config.policies()]
        least = max((bound for bound in bounds if bound), default=1024)
        yield _setting("train.row_tokens", range(train.row_tokens - 1, least - 1, -1))
    if isinstance(engine, LocalConfig) and not (train and train.algorithm == "sft"):
        yield _setting("engine.max_batch", range(engine.max_batch - 1, 0, -1))
        yield _setting("engine.prefix_cache_tokens", range(engine.prefix_cache_tokens - 1, -1, -1))


def _dear(state: _State) -> Iterator[_Knob]:
    """Cost devices, much time, or change what is learned."""
    train, machine = state.config.train, state.machine
    if train is None:
        return
    several = machine.kind == "gpu" and isinstance(state.config.engine, LocalConfig)
    if several:
        more = range(machine.devices + 1, _MOST_DEVICES + 1)
        alike = train.algorithm == "sft"
        counts = [count for count in more if alike or train.batch_size % count == 0]
        yield _Knob(setting="--devices", values=counts, turn=_on_devices)
    if several and machine.devices > 1 and not train.distributed.cpu_offload:
        yield _setting("train.distributed.cpu_offload", [True])
    if train.critic and train.critic.kind == "separate":
        yield _setting("train.critic.kind", ["head"])
    if train.lora is None:
        yield _setting("train.lora", [LoraConfig()])


def _setting(path: str, values: Sequence[Any]) -> _Knob:
    def turn(state: _State, value: Any) -> _State:
        return replace(state, config=_changed(state.config, path.split("."), value))

    return _Knob(setting=path, values=values, turn=turn)


def _changed(settings: Any, path: Sequence[str], value: Any) -> Any:
    """The settings with one of them changed."""
    name, *rest = path
    changed = _changed(getattr(settings, name), rest, value) if rest else value
    return replace(settings, **{name: changed})


def _on_devices(state: _State, count: int) -> _State:
    return replace(state, machine=replace(state.machine, devices=count))


def _fits(state: _State, changes: Sequence[_Turned]) -> bool:
    try:
        for change in changes:
            state = change.knob.turn(state, change.value)
    except ConfigError:
        return False
    return state.has_room()


def _first_fitting(state: _State, knob: _Knob) -> _Turned | None:
    """The first value that fits; None if none does. Memory falls along the values."""
    low, high = 0, len(knob.values)
    while low < high:
        middle = (low + high) // 2
        if _fits(state, [_Turned(knob=knob, value=knob.values[middle])]):
            high = middle
        else:
            low = middle + 1
    return None if low == len(knob.values) else _Turned(knob=knob, value=knob.values[low])


def _together(state: _State) -> Iterator[list[_Turned]]:
    """Settings to change at once: without a dear one, and with as few of those as it takes."""
    if cheap := _with(state, []):
        yield cheap
    for count in (1, 2):
        ways = [_first_way(state, knobs) for knobs in combinations(_dear(state), count)]
        yield from filter(None, ways)
        if any(ways):
            return


def _first_way(state: _State, dear: Sequence[_Knob]) -> list[_Turned]:
    """Of all values of some dear settings the first ones with which it fits; empty if none do."""
    for values in product(*(knob.values for knob in dear)):
        told = [_Turned(knob=knob, value=value) for knob, value in zip(dear, values, strict=True)]
        if found := _with(state, told):
            return found
    return []


def _with(state: _State, dear: Sequence[_Turned]) -> list[_Turned]:
    """Fewest halvings of all sizes with which the run fits; empty if it never does."""
    switched = [_Turned(knob=knob, value=knob.values[-1]) for knob in _switches(state)]
    for times in range(_MOST_HALVINGS):
        halved = [_halved(knob, times) for knob in _sizes(state) if times and knob.values]
        changes = [*dear, *switched, *halved]
        if _fits(state, changes):
            return _needed(state, changes)
    return []


def _halved(knob: _Knob, times: int) -> _Turned:
    """Args: `knob`, of a size: its values fall by 1 from the one below that of now."""
    value = max((knob.values[0] + 1) >> times, knob.values[-1])
    return _Turned(knob=knob, value=value)


def _needed(state: _State, changes: list[_Turned]) -> list[_Turned]:
    """Without those that it fits without, the last first."""
    for change in reversed(changes):
        fewer = [other for other in changes if other is not change]
        if _fits(state, fewer):
            changes = fewer
    return changes
