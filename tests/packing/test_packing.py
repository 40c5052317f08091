import random

import numpy as np
import pytest
from episodes import make_trajectory, random_group, seen_and_sampled
from hypothesis import given
from hypothesis import strategies as st

from mem1.context import ContextPolicy, Full, InternalState, Window
from mem1.errors import BudgetError
from mem1.packing import PackedBatch, pack, sampled_tokens
from mem1.types import SamplingMode, Trajectory

POLICIES = [InternalState(), Full(), Window(k=1), Window(k=2)]


def unpacked(
    rows: list[PackedBatch], num_tokens: int, *, carried: bool
) -> list[tuple[tuple[int, ...], int]]:
    """What every sampled token's prediction sees, and the token, read off the rows alone."""
    found: list[tuple[tuple[int, ...], int] | None] = [None] * num_tokens
    for row in rows:
        places = np.arange(row.num_tokens)
        for target, index in zip(row.targets, row.index, strict=True):
            query = row.parent[target]
            seen = (places <= query) & (query < row.visible_until)
            assert found[index] is None
            assert row.positions[target] == row.positions[query] + 1
            # Encoded anew, a token stands where it stands in the context: a carried one further on.
            assert carried or row.positions[seen].tolist() == list(range(seen.sum()))
            found[index] = tuple(row.token_ids[seen].tolist()), int(row.token_ids[target])
    assert None not in found
    return [pair for pair in found if pair]


def check(
    trajectories: list[Trajectory], *, row_tokens: int, least_shared: int, one_branch: bool
) -> None:
    rows = pack(
        trajectories, row_tokens=row_tokens, least_shared=least_shared, one_branch=one_branch
    )
    expected = [pair for trajectory in trajectories for pair in seen_and_sampled(trajectory)]
    carried = trajectories[0].mode == "carry"
    assert unpacked(rows, len(expected), carried=carried) == expected
    assert sampled_tokens(trajectories).token_ids.tolist() == [token for _, token in expected]
    assert all(row.num_tokens <= row_tokens for row in rows)
    if one_branch and not carried:
        assert all((row.visible_until == row.num_tokens).all() for row in rows)


@given(
    seed=st.integers(0, 10_000),
    policy=st.sampled_from(POLICIES),
    mode=st.sampled_from(["reencode", "carry"]),
    vocab=st.sampled_from([2, 3, 50]),
    least_shared=st.sampled_from([1, 4, 32]),
    row_tokens=st.sampled_from([250, 1000]),
    one_branch=st.booleans(),
)
def test_unpacking_gives_back_every_turn(
    seed: int,
    policy: ContextPolicy,
    mode: SamplingMode,
    vocab: int,
    least_shared: int,
    row_tokens: int,
    one_branch: bool,
) -> None:
    rng = random.Random(seed)
    groups = [
        random_group(
            policy, rng=rng, size=3, vocab=vocab, lengths=(40, 6, 3, 9), max_turns=6, mode=mode
        )
        for _ in range(2)
    ]
    check(
        [t for group in groups for t in group],
        row_tokens=row_tokens,
        least_shared=least_shared,
        one_branch=one_branch,
    )


def lay(trajectories: list[Trajectory]) -> PackedBatch:
    (row,) = pack(trajectories, row_tokens=1000, least_shared=1)
    return row


def test_a_context_that_grows_is_a_chain() -> None:
    row = lay(
        [
            make_trajectory(
                Full(), prompt=[1, 2], replies=[([3], [4]), ([6], [7])], observations=[[5]]
            )
        ]
    )
    assert row.token_ids.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert row.positions.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert row.visible_until.tolist() == [7] * 7
    assert row.parent.tolist() == [-1, 0, 1, 2, 3, 4, 5]
    assert row.targets.tolist() == [2, 3, 5, 6]
    assert row.num_unpacked == 4 + 7


def test_a_rewritten_context_opens_a_new_branch() -> None:
    row = lay(
        [
            make_trajectory(
                InternalState(),
                prompt=[1, 2],
                replies=[([3], [4]), ([6], [7]), ([9], [10])],
                observations=[[5], [8]],
            )
        ]
    )
    # Turns 1 and 2 are one branch, turn 3 begins with a copy of what turn 2 sampled.
    assert row.token_ids.tolist() == [1, 2, 3, 4, 5, 6, 7, 6, 7, 8, 9, 10]
    assert row.positions.tolist() == [0, 1, 2, 3, 4, 5, 6, 2, 3, 4, 5, 6]
    assert row.visible_until.tolist() == [12, 12, 7, 7, 7, 7, 7, 12, 12, 12, 12, 12]
    assert row.parent.tolist() == [-1, 0, 1, 2, 3, 4, 5, 1, 7, 8, 9, 10]
    assert row.targets.tolist() == [2, 3, 5, 6, 10, 11]


def test_a_carried_episode_holds_each_token_once() -> None:
    row = lay(
        [
            make_trajectory(
                InternalState(),
                prompt=[1, 2],
                replies=[([3], [4]), ([6], [7]), ([9], [10])],
                observations=[[5], [8]],
                mode="carry",
            )
        ]
    )
    assert row.token_ids.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert row.positions.tolist() == list(range(10))
    # What turn 2 has seen of turn 1 is evicted before the observation 8 comes in.
    assert row.visible_until.tolist() == [10, 10, 7, 7, 7, 10, 10, 10, 10, 10]


def test_a_group_shares_its_prompt_and_no_sampled_token() -> None:
    same = {"prompt": [1, 2], "replies": [([3], [4])], "observations": []}
    row = lay([make_trajectory(Full(), **same, sample=sample) for sample in range(2)])
    assert row.token_ids.tolist() == [1, 2, 3, 4, 3, 4]
    assert row.visible_until.tolist() == [6, 6, 4, 4, 6, 6]
    assert row.parent.tolist() == [-1, 0, 1, 2, 1, 4]
    assert row.index.tolist() == [0, 1, 2, 3]


def test_a_saving_below_least_shared_is_not_worth_a_branch() -> None:
    group = [
        make_trajectory(Full(), prompt=[1, 2], replies=[([3], [4])], observations=[], sample=sample)
        for sample in range(2)
    ]
    (row,) = pack(group, row_tokens=100, least_shared=3)
    assert row.token_ids.tolist() == [1, 2, 3, 4, 1, 2, 3, 4]
    assert row.visible_until.tolist() == [4] * 4 + [8] * 4


def test_a_full_row_ends_between_turns() -> None:
    trajectory = make_trajectory(
        InternalState(),
        prompt=[1, 2],
        replies=[([3], [4]), ([6], [7]), ([9], [10])],
        observations=[[5], [8]],
    )
    rows = pack([trajectory], row_tokens=7, least_shared=1)
    assert [row.token_ids.tolist() for row in rows] == [
        [1, 2, 3, 4, 5, 6, 7],
        [1, 2, 6, 7, 8, 9, 10],
    ]


def test_one_branch_a_row_keeps_what_only_grew_in_one() -> None:
    trajectory = make_trajectory(
        InternalState(),
        prompt=[1, 2],
        replies=[([3], [4]), ([6], [7]), ([9], [10])],
        observations=[[5], [8]],
    )
    rows = pack([trajectory], row_tokens=100, least_shared=1, one_branch=True)
    assert [row.token_ids.tolist() for row in rows] == [
        [1, 2, 3, 4, 5, 6, 7],
        [1, 2, 6, 7, 8, 9, 10],
    ]
    grown = make_trajectory(
        Full(), prompt=[1, 2], replies=[([3], [4]), ([6], [7])], observations=[[5]]
    )
    assert len(pack([grown], row_tokens=100, one_branch=True)) == 1


def test_a_turn_longer_than_a_row_is_named() -> None:
    trajectory = make_trajectory(
        Full(), prompt=[1] * 9, replies=[([3], [4])], observations=[], sample=5
    )
    with pytest.raises(BudgetError, match="turn 1 of task t, sample 5, has 11 tokens, a row takes"):
        pack([trajectory], row_tokens=10)


def test_what_stands_behind_something_new_is_computed_again() -> None:
    class Reversed(Full):
        def update(self, context, parts):
            return (context[0], parts.observation, parts.reply)

    row = lay(
        [
            make_trajectory(
                Reversed(),
                prompt=[1],
                replies=[([2], [3]), ([5], [6])],
                observations=[[4]],
                mode="carry",
            )
        ]
    )
    assert row.token_ids.tolist() == [1, 2, 3, 4, 2, 3, 5, 6]
    assert row.visible_until.tolist() == [8, 3, 3, 8, 8, 8, 8, 8]
    assert row.targets.tolist() == [1, 2, 6, 7]


def test_nothing_packs_to_nothing() -> None:
    assert pack([], row_tokens=10) == []
    assert sampled_tokens([]).num_tokens == 0
