"""What every ContextPolicy keeps to: the prompt stays, the bound holds, nothing is hidden state."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mem1.chat import ByteRenderer
from mem1.context import POLICIES, Budget, ContextPolicy, Parts, TaskPolicy
from mem1.tasks.ledger import LedgerConfig, ledger_task
from mem1.types import Context, Segment, SegmentKind, num_tokens

BUDGET = Budget(prompt=5, internal_state=60, action=7, observation=11)
TASK = ledger_task(LedgerConfig(), num_objectives=2, number=0)
PROMPT: Context = (Segment(kind=SegmentKind.PROMPT, turn=0, token_ids=(1,) * 5, text="p"),)


@pytest.fixture(params=list(POLICIES))
def policy(request) -> ContextPolicy:
    made = POLICIES[request.param]()
    assert isinstance(made, ContextPolicy)
    if isinstance(made, TaskPolicy):
        return made.of(TASK, renderer=ByteRenderer(), budget=BUDGET)
    return made


def parts(turn: int, *, state: int | None, action: int | None, page: int) -> Parts:
    """Parts of so many tokens; None: the reply had none."""

    def made(kind: SegmentKind, size: int) -> Segment:
        return Segment(kind=kind, turn=turn, token_ids=(turn,) * size, text=f"{kind} {turn}")

    return Parts(
        reply=made(SegmentKind.REPLY, (state or 0) + (action or 0)),
        internal_state=None if state is None else made(SegmentKind.INTERNAL_STATE, state),
        action=None if action is None else made(SegmentKind.ACTION, action),
        observation=made(SegmentKind.OBSERVATION, page),
        hint=made(SegmentKind.HINT, 2),
    )


def play(policy: ContextPolicy, turns: list[Parts]) -> list[Context]:
    contexts = [PROMPT]
    for added in turns:
        contexts.append(policy.update(contexts[-1], added))
    return contexts


SIZES = st.tuples(
    st.none() | st.integers(0, BUDGET.internal_state),
    st.none() | st.integers(0, BUDGET.action),
    st.integers(0, BUDGET.observation - 2),
)


def made(sizes: list[tuple[int | None, int | None, int]]) -> list[Parts]:
    return [
        parts(turn, state=state, action=action, page=page)
        for turn, (state, action, page) in enumerate(sizes, start=1)
    ]


@given(sizes=st.lists(SIZES, max_size=6))
def test_the_bound_holds_whatever_the_turns_are(sizes):
    for name, kind in POLICIES.items():
        policy = kind()
        if isinstance(policy, TaskPolicy):
            policy = policy.of(TASK, renderer=ByteRenderer(), budget=BUDGET)
        bound = policy.bound(BUDGET)
        largest = max(num_tokens(context) + BUDGET.reply for context in play(policy, made(sizes)))
        assert bound is None or largest <= bound, name


FULL_TURNS = made([(60, 7, 9)] * 4)


def test_the_prompt_stays_first_and_the_hint_last(policy):
    for context in play(policy, FULL_TURNS)[1:]:
        assert context[0] == PROMPT[0]
        assert context[-1].kind is SegmentKind.HINT


def test_a_context_follows_from_the_one_before_and_the_turn_alone(policy):
    contexts = play(policy, FULL_TURNS)
    again = [policy.update(c, p) for c, p in zip(contexts, FULL_TURNS, strict=False)]
    assert again == contexts[1:]


def test_what_is_kept_is_whole_and_in_order(policy):
    contexts = play(policy, FULL_TURNS)
    for old, new in pairwise(contexts):
        assert [s for s in new if s in old] == [s for s in old if s in new]


def test_its_name_is_the_one_in_configs(policy):
    assert str(policy).partition("(")[0] in POLICIES
