"""An expert of questions with a search engine: what a model that knows no search imitates.

    [Job] -> shown -> FOLDER/trajectories.jsonl, which  train.data.trajectories  reads

It searches for each question by its own words, in order, and knows the gold answers; but it notes
one only if the passages it was shown say it, and else that it's unknown. So what is imitated is to
search, to copy out of what was found, and to carry on; nothing is told that a context didn't hold.

    <think>Known: 1. Jane Austen; 2. unknown.</think>
    <answer>Jane Austen; unknown</answer>
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mem1.chat import Renderer
from mem1.engines import Request, ScriptedEngine
from mem1.evals.run import run_jobs
from mem1.rollout import Job
from mem1.text import (
    ANSWER_TAG,
    OBSERVATION_TAG,
    STATE_TAG,
    close_tag,
    normalise_answer,
    open_tag,
)
from mem1.train.transcripts import Teller
from mem1.types import Objective, Task, Trajectory

UNKNOWN, SEARCH = "unknown", "search"


@dataclass(slots=True)
class Expert:
    """Replies for one episode."""

    task: Task
    renderer: Renderer
    notes: list[str] = field(default_factory=list[str])
    """What it found for each question so far."""
    searched: bool = False
    """Whether the context shows passages about the next question."""

    def __call__(self, request: Request) -> str:
        objectives = self.task.objectives
        if self.searched:
            context = self.renderer.decode(request.prompt_ids)
            _, _, rest = context.rpartition(open_tag(OBSERVATION_TAG))
            passages, _, _ = rest.partition(close_tag(OBSERVATION_TAG))
            self.notes.append(found(objectives[len(self.notes)], passages=passages))
        self.searched = len(self.notes) < len(objectives)
        listed = "; ".join(f"{number}. {note}" for number, note in enumerate(self.notes, start=1))
        known = f"Known: {listed or 'nothing'}."
        if self.searched:
            asked = objectives[len(self.notes)].question
            notes = f"{known} I search for {len(self.notes) + 1}."
            return f"{_tagged(STATE_TAG, notes)}\n{_tagged(SEARCH, asked)}"
        return f"{_tagged(STATE_TAG, known)}\n{_tagged(ANSWER_TAG, '; '.join(self.notes))}"


def found(objective: Objective, *, passages: str) -> str:
    """The first of its answers that the passages hold, word by word."""
    words = f" {normalise_answer(passages)} "
    answers = [answer for answer in objective.answers if normalise_answer(answer)]
    held = (answer for answer in answers if f" {normalise_answer(answer)} " in words)
    return next((answer for answer in held if ";" not in answer), UNKNOWN)


async def shown(jobs: Sequence[Job], *, folder: Path, concurrency: int) -> list[Trajectory]:
    """Let the expert do the jobs in the place of their engine; those of the folder are done."""
    return await run_jobs(
        [replace(job, agent=replace(job.agent, engine=_engine(job))) for job in jobs],
        folder=folder,
        concurrency=concurrency,
    )


def _engine(job: Job) -> Teller:
    renderer = job.agent.renderer
    return Teller(ScriptedEngine(Expert(job.task, renderer), codec=renderer))


def _tagged(tag: str, text: str) -> str:
    return f"{open_tag(tag)}{text}{close_tag(tag)}"
