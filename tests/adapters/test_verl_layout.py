"""Whole groups in every optimizer step, as many steps whatever the turns, all ranks as busy."""

import random

import pytest

from mem1.adapters.verl.layout import Layout, RowKey, lay_out, num_steps, steps_of


def rows(turns: list[list[int]]) -> list[RowKey]:
    """The rows of some groups: for each, how many turns each of its rollouts took."""
    return [
        RowKey(group=f"g{group}", session=session, turn=turn)
        for group, sizes in enumerate(turns)
        for session, size in enumerate(sizes)
        for turn in range(size)
    ]


def lay(found: list[RowKey], *, groups_per_step: int, num_ranks: int) -> Layout:
    return lay_out(
        [row.group for row in found],
        lengths=[10 + row.turn for row in found],
        groups_per_step=groups_per_step,
        num_ranks=num_ranks,
    )


def test_the_example_of_the_module():
    found = lay(rows([[2], [4]]), groups_per_step=1, num_ranks=2)
    assert found.order == (1, 6, 5, 2, 0, 7, 4, 3)
    assert found.steps().tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


def test_a_key_of_verl_is_read_from_its_end():
    assert RowKey.read("0e7c-11_3_12") == RowKey(group="0e7c-11", session=3, turn=12)


def test_every_row_is_in_one_place_and_padding_fills_the_rest():
    found = lay(rows([[1, 3], [2, 2], [5, 1]]), groups_per_step=1, num_ranks=4)
    assert sorted(found.order) == list(range(24))
    assert (found.num_rows, found.num_steps) == (14, 3)


@pytest.mark.parametrize("seed", range(20))
def test_a_group_and_so_a_trajectory_is_never_in_two_steps(seed):
    rng = random.Random(seed)
    count, ranks, per_step = rng.randint(1, 9), rng.randint(1, 5), rng.randint(1, 4)
    keys = rows([[rng.randint(1, 7) for _ in range(3)] for _ in range(count)])
    rng.shuffle(keys)
    found = lay(keys, groups_per_step=per_step, num_ranks=ranks)
    steps: dict[str, set[int]] = {}
    for row, step in zip(found.order, found.steps().tolist(), strict=True):
        if row < found.num_rows:
            steps.setdefault(keys[row].group, set()).add(step)
    assert [len(of_group) for of_group in steps.values()] == [1] * count
    assert found.num_steps == num_steps([key.group for key in keys], groups_per_step=per_step)


@pytest.mark.parametrize("turns", [1, 2, 20])
def test_the_number_of_steps_counts_groups_not_turns(turns):
    found = lay(rows([[turns, 1]] * 6), groups_per_step=2, num_ranks=2)
    assert found.num_steps == 3


def test_each_rank_has_as_many_rows_in_each_step_and_about_as_many_tokens():
    keys = rows([[9, 7], [1, 2]])
    lengths = [100 * (row.turn + 1) for row in keys]
    found = lay_out([k.group for k in keys], lengths=lengths, groups_per_step=1, num_ranks=2)
    size = len(found.order) // 2
    ranks = [found.order[:size], found.order[size:]]
    tokens = [sum(lengths[row] for row in rank if row < found.num_rows) for rank in ranks]
    assert abs(tokens[0] - tokens[1]) <= 200
    assert steps_of(4, num_steps=2, num_ranks=1).tolist() == [0, 0, 1, 1]
