"""Trained = run: packed log-probabilities and gradients against one plain forward per turn."""

import random
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from episodes import make_trajectory, random_group  # noqa: E402
from models import CONFIGS, VOCAB, random_model  # noqa: E402

from mem1.context import Full, InternalState, Window  # noqa: E402
from mem1.errors import DataError  # noqa: E402
from mem1.packing import pack, sampled_tokens  # noqa: E402
from mem1.train.scoring import hidden_states, score  # noqa: E402
from mem1.train.verify import verify  # noqa: E402
from mem1.types import Trajectory  # noqa: E402

LENGTHS = (60, 20, 6, 40)
POLICIES = [InternalState(), Full(), Window(k=2)]


def group(policy, *, mode="reencode", seed=0, size=4) -> list[Trajectory]:
    rng = random.Random(seed)
    return random_group(policy, rng=rng, size=size, vocab=VOCAB, lengths=LENGTHS, mode=mode)


@pytest.mark.parametrize("mode", ["reencode", "carry"])
@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("kind", CONFIGS)
def test_packed_equals_one_forward_per_turn(kind, policy, mode):
    report = verify(random_model(kind), group(policy, mode=mode), row_tokens=700)
    # The figures of choices: fp32 max 5e-5 nats, mean 5e-6, gradient 1e-5.
    assert report.exact, report
    assert report.num_packed < report.num_unpacked or mode == "carry"


@pytest.mark.parametrize("backend", ["merge", "dense"])
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_in_float64_nothing_is_left_but_rounding(policy, backend):
    model = random_model("qwen2", dtype=torch.float64)
    report = verify(model, group(policy), row_tokens=700, backend=backend)
    assert report.packed.max_abs <= 1e-9
    assert report.gradient_error <= 1e-9


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_flex_attention_gives_the_same_log_probabilities(policy):
    model, trajectories = random_model("qwen3"), group(policy)
    for row in pack(trajectories, row_tokens=700):
        at = torch.ones(len(row.targets))
        with torch.no_grad():
            flex, dense = (
                score(model, row, temperature_T=at, backend=backend).logprobs_T
                for backend in ("flex", "dense")
            )
        assert (flex - dense).abs().max() < 5e-5


def test_several_tasks_share_rows_and_stay_exact():
    trajectories = [*group(InternalState(), seed=1), *group(InternalState(), seed=2)]
    assert verify(random_model("llama"), trajectories, row_tokens=900).exact


def changed(row, place: int):
    token_ids = row.token_ids.copy()
    token_ids[place] = (token_ids[place] + 1) % VOCAB
    return type(row)(
        **{name: getattr(row, name) for name in row.__slots__} | {"token_ids": token_ids}
    )


@pytest.mark.parametrize("mode", ["reencode", "carry"])
def test_a_token_moves_exactly_the_predictions_that_may_see_it(mode):
    model = random_model("qwen2", dtype=torch.float64)
    (row,) = pack(group(InternalState(), mode=mode, size=2), row_tokens=5000)
    places, reads = np.arange(row.num_tokens), row.parent[row.targets]
    seen = (places <= places[:, None]) & (places[:, None] < row.visible_until)
    with torch.no_grad():
        before = hidden_states(model, row)
        for place in random.Random(0).sample(range(row.num_tokens), 25):
            moved = (hidden_states(model, changed(row, place)) - before).abs().amax(-1) > 1e-12
            reached = places == place
            for _ in range(model.config.num_hidden_layers):
                # Each layer carries a change from the tokens seen to those that see them.
                reached = (seen & reached).any(1)
            assert moved.tolist() == reached[reads].tolist()


def apart(model, row, trajectories, **faults) -> float:
    """Largest difference to the plain log-probabilities when a part of the row is wrong."""
    wrong = type(row)(**{name: getattr(row, name) for name in row.__slots__} | faults)
    tokens = sampled_tokens(trajectories)
    at = torch.ones(len(row.targets))
    with torch.no_grad():
        found = score(model, wrong, temperature_T=at).logprobs_T
        right = score(model, row, temperature_T=at).logprobs_T
    assert len(found) == tokens.num_tokens
    return float((found - right).abs().max())


def test_the_faults_of_others_are_seen():
    model, trajectories = random_model("qwen2"), group(InternalState(), size=2, seed=3)
    assert max(trajectory.num_turns for trajectory in trajectories) >= 3
    (row,) = pack(trajectories, row_tokens=5000)
    places = np.arange(row.num_tokens)
    # Positions that run on over the row; nothing forgotten; logits read at the token before.
    assert apart(model, row, trajectories, positions=places) > 0.01
    assert apart(model, row, trajectories, visible_until=np.full(len(places), len(places))) > 0.01
    assert apart(model, row, trajectories, parent=places - 1) > 0.01


def test_an_earlier_state_that_is_hidden_is_seen():
    model, trajectories = random_model("qwen2"), group(InternalState(), size=1, seed=3)
    (row,) = pack(trajectories, row_tokens=5000)
    first_state = slice(len(trajectories[0].turns[0].prompt_ids), row.targets[5])
    visible_until = row.visible_until.copy()
    visible_until[first_state] = row.targets[5]
    assert apart(model, row, trajectories, visible_until=visible_until) > 0.01


def test_a_mask_of_zeros_and_ones_hides_nothing_and_is_seen():
    model, trajectories = random_model("llama"), group(Full(), size=1)
    turn = trajectories[0].turns[0]
    ids = torch.tensor([turn.prompt_ids + turn.completion.token_ids])
    zeros_and_ones = torch.ones(ids.shape[1], ids.shape[1]).tril()[None, None]
    with torch.no_grad():
        right = model(input_ids=ids).logits
        wrong = model(input_ids=ids, attention_mask=zeros_and_ones).logits
    assert (right - wrong).abs().max() > 0.1


def test_a_turn_that_was_tokenised_again_is_seen():
    model = random_model("llama")
    sampled = make_trajectory(
        InternalState(), prompt=[1, 2], replies=[([3, 4], [5])], observations=[]
    )
    again = make_trajectory(InternalState(), prompt=[1, 2], replies=[([34], [5])], observations=[])
    found = []
    for trajectory in (sampled, again):
        (row,) = pack([trajectory], row_tokens=50)
        with torch.no_grad():
            found.append(score(model, row, temperature_T=torch.ones(len(row.targets))).logprobs_T)
    # The same text in other tokens: the probability of what follows is another one.
    assert abs(float(found[0][-1] - found[1][-1])) > 0.01


def test_a_token_of_another_vocabulary_is_named():
    strange = make_trajectory(
        Full(), prompt=[1], replies=[([VOCAB], [2])], observations=[], sample=3
    )
    with pytest.raises(DataError, match=f"task t, sample 3: token {VOCAB}, but the model's"):
        verify(random_model("llama"), [strange])


def test_a_trajectory_of_tokens_made_from_text_is_named():
    trajectory = make_trajectory(Full(), prompt=[1], replies=[([3], [2])], observations=[])
    (turn,) = trajectory.turns
    made = replace(turn, completion=replace(turn.completion, exact=False))
    with pytest.raises(DataError, match="task t, sample 0: its token ids were made from"):
        verify(random_model("llama"), [replace(trajectory, turns=(made,))])
