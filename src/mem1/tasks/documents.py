"""LONG DOCUMENTS -> TASKS: what is asked of a text that is read piece by piece.

    documents.jsonl      -> load_documents -> [Task]   question and path of a text file
    NeedleConfig, number -> needle_task    -> Task     a made-up text of any length
    Task, size           -> read_chunks    -> pieces of at most so many characters

Records of documents have the form `{"id", "question", "golden_answers": […], "document": path}`. A
needle text is never held whole: it's made again, from its seed, each time it's read.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from mem1.errors import ConfigError, DataError
from mem1.files import read_lines
from mem1.tasks.ledger import NAMES, VALUES
from mem1.types import Objective, Task

DOCUMENT = "document"
"""Key of a task's metadata: where its text comes from."""

_SUBJECTS = ("The grass", "The harbour", "A lantern", "The old mill", "Rain", "The baker", "Snow")
_VERBS = ("follows", "covers", "passes", "remembers", "leaves", "touches", "waits for")
_OBJECTS = ("the road", "a quiet town", "the hill", "the last train", "a wooden door", "the sea")


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedleConfig:
    """Texts in which a few sentences matter, and everything else is filler."""

    num_chars: int = 100_000
    """Of the text, about; a token of most models is four of them."""
    num_needles: int = 4
    """Sentences of the form `The number of kami is 142.` in it."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_chars < 1:
            raise ConfigError(f"num_chars is {self.num_chars}: give at least 1")
        if not 1 <= self.num_needles <= len(NAMES):
            raise ConfigError(f"num_needles is {self.num_needles}: choose 1 to {len(NAMES)}")


def needle_task(config: NeedleConfig, *, num_objectives: int, number: int) -> Task:
    """A task that asks for some of a text's needles; the others are there to mislead.

    Raises: ConfigError for more objectives than needles.
    """
    if not 1 <= num_objectives <= config.num_needles:
        raise ConfigError(
            f"{num_objectives} objectives of {config.num_needles} needles: raise num_needles"
        )
    rng = random.Random(f"needles/{config.seed}/{number}")
    names = rng.sample(NAMES, config.num_needles)
    needles = {name: rng.choice(VALUES) for name in names}
    places = sorted(rng.random() for _ in needles)
    asked = rng.sample(names, num_objectives)
    return Task(
        id=f"needle-n{num_objectives}-c{config.num_chars}-s{config.seed}-{number:06d}",
        objectives=tuple(
            Objective(question=f"What is the number of {name}?", answers=(needles[name],))
            for name in asked
        ),
        source="needle",
        metadata={
            DOCUMENT: {
                "num_chars": config.num_chars,
                "seed": rng.randrange(1 << 32),
                "needles": [[*pair] for pair in zip(places, needles.items(), strict=True)],
            }
        },
    )


def load_documents(source: str | Path) -> list[Task]:
    """Read questions about text files.

    Raises: DataError naming the line of a record that is malformed.
    """
    tasks: list[Task] = []
    for number, line in read_lines(Path(source)):
        try:
            record = orjson.loads(line)
            answers = tuple(map(str, record["golden_answers"]))
            task = Task(
                id=str(record["id"]),
                objectives=(Objective(question=str(record["question"]), answers=answers),),
                source=str(source),
                metadata={DOCUMENT: str(Path(source).parent / record["document"])},
            )
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(
                f"{source}:{number}: write id, question, golden_answers, document: {error!r}"
            ) from error
        tasks.append(task)
    if not tasks:
        raise DataError(f"{source}: holds no question")
    return tasks


def read_chunks(task: Task, *, size: int) -> Iterator[str]:
    """The text of a task in pieces of at most `size` characters, cut between words.

    Raises: DataError for a task without a text, or a file that can't be read.
    """
    found: Any = task.metadata.get(DOCUMENT)
    if isinstance(found, str):
        return _packed(_words(Path(found)), size=size)
    if isinstance(found, dict):
        return _packed(_needle_text(**found), size=size)
    raise DataError(f"task {task.id} has no document: its metadata needs {DOCUMENT!r}")


def _words(path: Path) -> Iterator[str]:
    """The words of a text file, blanks behind them included."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                for word in line.split():
                    yield f"{word} "
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error}") from error


def _needle_text(
    *, num_chars: int, seed: int, needles: list[tuple[float, tuple[str, str]]]
) -> Iterator[str]:
    """Sentences of filler, and the needles at their places (shares of the length)."""
    rng, written, waiting = random.Random(seed), 0, list(needles)
    while written < num_chars or waiting:
        if waiting and written >= waiting[0][0] * num_chars:
            _, (name, value) = waiting.pop(0)
            sentence = f"The number of {name} is {value}. "
        else:
            words = (rng.choice(part) for part in (_SUBJECTS, _VERBS, _OBJECTS))
            sentence = f"{' '.join(words)}. "
        written += len(sentence)
        yield sentence


def _packed(pieces: Iterable[str], *, size: int) -> Iterator[str]:
    """Join pieces to chunks; one that is longer than a chunk is cut."""
    chunk = ""
    for piece in pieces:
        for start in range(0, len(piece), size):
            part = piece[start : start + size]
            if chunk and len(chunk) + len(part) > size:
                yield chunk.rstrip()
                chunk = ""
            chunk += part
    if chunk.strip():
        yield chunk.rstrip()
