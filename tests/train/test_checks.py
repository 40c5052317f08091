"""What can't be trained exactly is refused, and the message names task, sample, value and fix."""

from dataclasses import replace

import pytest
from ledger_runs import groups

from mem1.errors import DataError
from mem1.train.checks import check_mode, check_sampled, check_vocabulary
from mem1.types import Completion, Trajectory

SOUND = groups(2)


def last_with(**changes) -> list[Trajectory]:
    """The same, but the last turn's completion of the last trajectory has these."""
    *others, last = SOUND
    turn = last.turns[-1]
    completion: Completion = replace(turn.completion, **changes)
    return [*others, replace(last, turns=(*last.turns[:-1], replace(turn, completion=completion)))]


def check(trajectories) -> None:
    check_sampled(trajectories, mode="reencode", temperature=1.0)


def test_what_was_sampled_as_the_run_says_passes():
    check(SOUND)
    check_vocabulary(SOUND, size=512)


@pytest.mark.parametrize("changes", [{"exact": False}, {"logprobs": None}])
def test_ids_or_probabilities_that_are_not_the_engines_own_are_refused(changes):
    with pytest.raises(DataError, match="task t1, sample 1: its token ids or log-probabilities"):
        check(last_with(**changes))


def test_another_temperature_is_refused():
    message = r"task t1, sample 1 was sampled at temperature 0.7, this run has .* 1.0: sample it"
    with pytest.raises(DataError, match=message):
        check(last_with(temperature=0.7))


def test_another_mode_is_refused():
    *others, last = SOUND
    with pytest.raises(DataError, match="task t1, sample 1 was sampled with mode = 'carry'"):
        check_mode([*others, replace(last, mode="carry")], mode="reencode")


def test_another_vocabulary_is_refused():
    with pytest.raises(DataError, match="task t1, sample 1: token 512, but the model's vocabulary"):
        check_vocabulary(last_with(token_ids=(1, 512)), size=512)
    check_vocabulary(last_with(token_ids=(1, 511)), size=512)
