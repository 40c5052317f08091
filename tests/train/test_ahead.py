"""A step ahead: when episodes are sampled, from which weights, and what stops them."""

import signal
import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from ledger_runs import figures, outcome, run_config, train_run  # noqa: E402

from mem1.errors import ConfigError  # noqa: E402
from mem1.train.ahead import Ahead  # noqa: E402
from mem1.train.config import DemonstrationsConfig, OptimizerConfig  # noqa: E402
from mem1.train.curriculum import Level  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


class Slow:
    """Collects step 2 only once it may, as if it took long."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.may_end = threading.Event()

    def own(self, step: int, *, level: Level) -> list[int]:
        self.told.append(("collect", step))
        assert step < 2 or self.may_end.wait(20)
        return [step]

    def whole(self, step: int, *, own: list[int]) -> list[int]:
        return own

    def validate(self, step: int, *, level: Level) -> list[int]:
        self.told.append(("validate", step))
        return []

    def stop(self) -> None:
        self.told.append("stop")


def ahead(source: Any, *, last_step: int = 2) -> Ahead:
    refresh = lambda: source.told.append("refresh")  # noqa: E731
    return Ahead(source=source, last_step=last_step, refresh=refresh)


def test_the_next_step_is_collected_while_this_one_is_learned_from():
    source = Slow()
    made = ahead(source)
    assert made.batch(1, level=Level()) == [1]
    source.told.append("update")
    source.may_end.set()
    assert made.batch(2, level=Level()) == [2]
    made.close()
    assert [what for what in source.told if what != "update"] == [
        "refresh",
        ("collect", 1),
        "refresh",
        ("collect", 2),
        "stop",
    ]


def test_weights_are_brought_up_to_date_only_while_nothing_is_sampled():
    source = Slow()
    made = ahead(source)
    made.batch(1, level=Level())
    threading.Timer(0.1, source.may_end.set).start()
    made.validate(1, level=Level())
    assert source.may_end.is_set()
    assert source.told[-2:] == ["refresh", ("validate", 1)]


def test_the_same_seed_gives_the_same_run(tiny, tmp_path):
    for name in ("a", "b"):
        train_run(run_config(tiny, staleness=1), tmp_path / name)
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")


def test_what_is_sampled_ahead_is_of_the_weights_one_step_before(tiny, tmp_path):
    optimizer = OptimizerConfig(lr=1e-2)
    for age in (0, 1):
        train_run(run_config(tiny, staleness=age, optimizer=optimizer), tmp_path / str(age))
    now, before = ([line["logprob_gap"] for line in figures(tmp_path / age)] for age in "01")
    assert max(now) < 1e-5
    assert before[0] < 1e-5
    assert min(before[1:]) > 1e-3


def test_where_nothing_is_learned_it_makes_no_difference(tiny, tmp_path):
    optimizer = OptimizerConfig(lr=0.0)
    for age in (0, 1):
        train_run(run_config(tiny, staleness=age, optimizer=optimizer), tmp_path / str(age))
    assert figures(tmp_path / "0") == figures(tmp_path / "1")


def test_ctrl_c_stops_what_is_sampled_ahead_and_the_run_goes_on(tiny, tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    config = run_config(tiny, staleness=1)

    def interrupt(step: int, metrics: Any) -> None:
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt):
            train_run(config, tmp_path, on_step=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    train_run(config, tmp_path)
    assert [line["step"] for line in figures(tmp_path)] == [1, 2, 3, 4]


def test_supervised_training_has_no_episodes_to_sample_ahead(tiny):
    with pytest.raises(ConfigError, match=r"train\.staleness: sft"):
        run_config(tiny, "sft", staleness=1, data=DemonstrationsConfig(trajectories=("x",)))
