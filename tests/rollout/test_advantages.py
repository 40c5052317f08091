"""The advantages of a step come back token by token, and damage is never taken for numbers."""

from dataclasses import replace

import pytest
from episodes import make_trajectory

from mem1.context import InternalState
from mem1.errors import DataError
from mem1.rollout.advantages import (
    advantages_file,
    advantages_of,
    read_advantages,
    write_advantages,
)
from mem1.types import StopReason


def sampled(*sizes: int, sample: int = 0):
    """A trajectory whose turns sampled so many tokens."""
    return make_trajectory(
        InternalState(),
        prompt=[1],
        replies=[([7] * (size - 1), [8]) for size in sizes],
        observations=[[9]] * len(sizes),
        sample=sample,
    )


FIRST, SECOND = sampled(2, 3), sampled(2, sample=1)


@pytest.fixture
def rollouts(tmp_path):
    """The path of a file of rollouts whose advantages were kept."""
    path = tmp_path / "rollouts/step-000007.jsonl"
    values = [0.5, -0.25, 1.0, 1.0, 1.0, -0.000123456, 2.0]
    write_advantages(advantages_file(path), [FIRST, SECOND], advantages=values)
    return path


def test_each_token_has_its_number_in_three_digits_and_no_sign_is_lost(rollouts):
    stored = read_advantages(rollouts)
    assert advantages_of(FIRST, stored=stored) == ((0.5, -0.25), (1.0, 1.0, 1.0))
    assert advantages_of(SECOND, stored=stored) == ((-0.000123, 2.0),)


def test_a_turn_whose_tokens_are_all_alike_takes_one_number(rollouts):
    line = advantages_file(rollouts).read_bytes().splitlines()[0]
    assert line.endswith(b'"turns":[[0.5,-0.25],1.0]}')


def test_what_was_not_learned_from_has_none(rollouts):
    stored = read_advantages(rollouts)
    failed = replace(FIRST, stop_reason=StopReason.ENGINE_ERROR)
    others = [sampled(2, 3, sample=2), sampled(2, sample=0), sampled(3, sample=1), failed]
    assert [advantages_of(other, stored=stored) for other in others] == [None] * 4


def test_a_run_that_kept_none_has_none(tmp_path):
    assert read_advantages(tmp_path / "rollouts/step-000001.jsonl") == {}


def test_a_torn_last_line_loses_only_itself(rollouts):
    path = advantages_file(rollouts)
    path.write_bytes(path.read_bytes()[:-5])
    assert list(read_advantages(rollouts)) == [("t", 0, "internal_state")]


@pytest.mark.parametrize("line", [b"{}\n", b"[1]\n", b"no json\n", b'{"schema_version":9}\n'])
def test_another_damaged_line_is_named(rollouts, line):
    path = advantages_file(rollouts)
    path.write_bytes(line + path.read_bytes())
    with pytest.raises(DataError, match=r"step-000007\.jsonl:1: not advantages"):
        read_advantages(rollouts)


def test_another_version_is_refused(rollouts):
    path = advantages_file(rollouts)
    path.write_bytes(path.read_bytes().replace(b'"schema_version":1', b'"schema_version":2'))
    with pytest.raises(DataError, match="schema_version 2, this mem1 reads 1"):
        read_advantages(rollouts)


def test_a_number_too_many_is_our_mistake(tmp_path):
    with pytest.raises(AssertionError, match="one advantage for each sampled token"):
        write_advantages(tmp_path / "step-000001.jsonl", [SECOND], advantages=[1.0, 2.0, 3.0])
