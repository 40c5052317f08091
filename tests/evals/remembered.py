"""Episodes made by hand for figures of memory: each turn says its state, its query and the page."""

from mem1.context import Budget, ContextPolicy, InternalState, Parts
from mem1.types import (
    Action,
    Completion,
    Context,
    Objective,
    Segment,
    SegmentKind,
    StopReason,
    Task,
    Trajectory,
    Turn,
)

BUDGET = Budget(prompt=9, internal_state=9, action=9, observation=9)


def ledger(
    *questions: str, pages: dict[str, str], memory: list[dict[str, str]], name: str = "t"
) -> Task:
    return Task(
        id=name,
        objectives=tuple(
            Objective(question=question, answers=(answer,))
            for question, answer in zip(questions, memory[-1].values(), strict=True)
        ),
        metadata={"num_values": 128, "queries": list(pages), "pages": pages, "memory": memory},
    )


LOOKUP = ledger(
    "kami",
    "lone",
    pages={"kami": "found kami 100", "lone": "found lone 101"},
    memory=[{}, {"kami": "100"}, {"kami": "100", "lone": "101"}],
)
UPDATE = ledger(
    "kami",
    "lone",
    pages={"kami": "found kami 100", "lone": "found lone 101 now kami 107"},
    memory=[{}, {"kami": "100"}, {"kami": "107", "lone": "101"}],
)


def question(*answers: str, name: str = "q") -> Task:
    return Task(
        id=name,
        objectives=tuple(Objective(question="Who?", answers=(answer,)) for answer in answers),
    )


def episode(
    task: Task,
    *said: tuple[str, str],
    context: ContextPolicy | None = None,
    pages: dict[str, str] | None = None,
) -> Trajectory:
    """An episode of turns (state, query), "" for none; `=x; y` for a query is the answer.

    Queries show the task's own pages unless others are given.
    """
    policy, shown = context or InternalState(), pages or task.metadata.get("pages", {})
    seen: Context = (_segment(SegmentKind.PROMPT, 0, "prompt"),)
    turns: list[Turn] = []
    for number, (state, query) in enumerate(said, start=1):
        page = f"<information>{shown.get(query, 'nothing')}</information>"
        turns.append(_turn(seen, state=state, query=query, page=page))
        seen = policy.update(seen, _parts(turns[-1], number=number, state=state, page=page))
    last = turns[-1].action if turns else None
    answer = last.argument if last and last.name == "answer" else None
    return Trajectory(
        task=task,
        sample=0,
        context_policy=str(policy),
        turns=tuple(turns),
        stop_reason=StopReason.MAX_TURNS if answer is None else StopReason.ANSWERED,
        answer=answer,
        reward=0.0,
        reward_parts={},
        bound=policy.bound(BUDGET),
        seconds=1.0,
    )


def _turn(context: Context, *, state: str, query: str, page: str) -> Turn:
    name = "answer" if query.startswith("=") else "search"
    action = Action(name=name, argument=query.removeprefix("=")) if query else None
    thought = f"<think>{state}</think>" if state else ""
    return Turn(
        context=context,
        completion=Completion(
            token_ids=(7, 7),
            logprobs=(-1.0, -1.0),
            temperature=1.0,
            text=thought + (f"<{name}>{action.argument}</{name}>" if action else ""),
            finish_reason="stop",
        ),
        action=action,
        faults=(),
        observation=None if name == "answer" else page,
        engine_s=0.0,
        env_s=0.0,
    )


def _parts(turn: Turn, *, number: int, state: str, page: str) -> Parts:
    reply = turn.completion.text
    thought, action = f"<think>{state}</think>", reply.partition("</think>")[2] or reply
    return Parts(
        reply=_segment(SegmentKind.REPLY, number, reply),
        internal_state=_segment(SegmentKind.INTERNAL_STATE, number, thought) if state else None,
        action=_segment(SegmentKind.ACTION, number, action) if turn.action else None,
        observation=_segment(SegmentKind.OBSERVATION, number, page),
        hint=_segment(SegmentKind.HINT, number, "hint"),
    )


def _segment(kind: SegmentKind, turn: int, text: str) -> Segment:
    return Segment(kind=kind, turn=turn, token_ids=(7,) * len(text.split()), text=text)
