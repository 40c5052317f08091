"""The picture of a mask is the trainer's own layout, with the right name on every token."""

import random
from dataclasses import replace

import pytest
from episodes import random_group

from mem1.context import Full, InternalState, Window
from mem1.packing import pack
from mem1.viewer.layout import layout_view
from mem1.viewer.records import Record

LENGTHS = (40, 50, 9, 30)
"""Most tokens of prompt, state, action, observation: states long enough to be shared."""


def group(policy, mode, *, seed, size=3):
    return random_group(
        policy, rng=random.Random(seed), size=size, vocab=50, lengths=LENGTHS, mode=mode
    )


def records(trajectories):
    return [
        Record(number=10 + place, step=None, advantages=None, trajectory=trajectory)
        for place, trajectory in enumerate(trajectories)
    ]


def names_of(row):
    """(kind, turn, trajectory) of each place of a row."""
    return [
        (part["kind"], part["turn"], part["trajectory"])
        for part in row["parts"]
        for _ in range(part["stop"] - part["start"])
    ]


CASES = [(p, m) for p in (InternalState(), Full(), Window(k=1)) for m in ("reencode", "carry")]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("policy", "mode"), CASES)
def test_ranges_cover_the_row_and_see_what_the_trainer_says(policy, mode, seed):
    trajectories = group(policy, mode, seed=seed)
    (row,) = layout_view(records(trajectories))["rows"]
    (packed,) = pack(trajectories, row_tokens=10**6)
    stops = [part["stop"] for part in row["parts"]]
    assert [part["start"] for part in row["parts"]] == [0, *stops[:-1]]
    until = [p["until"] for p in row["parts"] for _ in range(p["stop"] - p["start"])]
    assert until == packed.visible_until.tolist()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("policy", "mode"), CASES)
def test_sampled_ranges_are_those_that_train(policy, mode, seed):
    trajectories = group(policy, mode, seed=seed)
    (row,) = layout_view(records(trajectories))["rows"]
    (packed,) = pack(trajectories, row_tokens=10**6)
    names = names_of(row)
    places = [place for place, name in enumerate(names) if name[0] == "sampled"]
    assert places == sorted(packed.targets.tolist())
    for place, trajectory in enumerate(trajectories):
        for number, turn in enumerate(trajectory.turns, start=1):
            size = names.count(("sampled", number, 10 + place))
            assert size == turn.completion.num_tokens


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("policy", [InternalState(), Full(), Window(k=1)])
def test_what_a_turn_saw_is_called_what_it_saw_it_as(policy, seed):
    """Unless it's shared with what another turn sampled, or saw first under another name."""
    (trajectory,) = group(policy, "reencode", seed=seed, size=1)
    (row,) = layout_view(records([trajectory]))["rows"]
    (packed,) = pack([trajectory], row_tokens=10**6)
    names, firsts = names_of(row), {}
    turns = zip(packed.targets[packed.index.argsort()], _turn_of(trajectory), strict=True)
    for place, number in turns:
        firsts.setdefault(number, int(place))
    taken = set()
    for number, turn in enumerate(trajectory.turns, start=1):
        saw = [(s.kind, s.turn, 10) for s in turn.context for _ in s.token_ids]
        place = firsts[number]
        for name in reversed(saw):
            place = int(packed.parent[place])
            if place not in taken and names[place][0] != "sampled":
                assert names[place] == name
            taken.add(place)
        assert packed.parent[place] == -1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("policy", [InternalState(), Full()])
def test_carried_observations_are_there_once_under_their_name(policy, seed):
    (trajectory,) = group(policy, "carry", seed=seed, size=1)
    (row,) = layout_view(records([trajectory]))["rows"]
    names = names_of(row)
    seen = {(s.kind, s.turn): len(s.token_ids) for t in trajectory.turns for s in t.context}
    wanted = {place: size for place, size in seen.items() if place[0] in ("prompt", "observation")}
    assert {place: names.count((*place, 10)) for place in wanted} == wanted


def _turn_of(trajectory):
    for number, turn in enumerate(trajectory.turns, start=1):
        yield from [number] * turn.completion.num_tokens


def test_one_trajectory_without_turns_is_no_layout():
    (trajectory,) = group(Full(), "reencode", seed=0, size=1)
    empty = records([replace(trajectory, turns=())])
    assert layout_view(empty) == {"rows": [], "group": [10]}
