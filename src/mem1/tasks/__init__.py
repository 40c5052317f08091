"""WHERE PROBLEMS COME FROM."""

from mem1.tasks.compose import compose
from mem1.tasks.qa import load_tasks, question_text, write_tasks

__all__ = ["compose", "load_tasks", "question_text", "write_tasks"]
