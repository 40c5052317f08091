"""Every exception that mem1 raises on purpose.

    Mem1Error
    ├── UserError (also a ValueError)   something the user can fix; the text says what and how
    │   ├── ConfigError                 a wrong or unknown setting
    │   ├── DataError                   a file or a record that cannot be used (path and line named)
    │   ├── BudgetError                 token caps that do not fit the model's window
    │   ├── ModelError                  a model or tokenizer that cannot be loaded
    │   └── StoreError                  a run folder that is locked or of another run
    ├── TrainingError                   a loss or gradient that is no number: nothing was updated
    ├── EngineError                     an engine could not sample: the task stays owed
    └── ToolError                       a tool could not answer: likewise

`MissingExtraError` is a UserError that names the extra to install.
"""


class Mem1Error(Exception):
    """Root of all exceptions that mem1 raises on purpose."""


class UserError(Mem1Error, ValueError):
    """Something the user can fix; the message names the value and the fix."""


class ConfigError(UserError):
    """A wrong or unknown setting."""


class DataError(UserError):
    """A data file or a record of one that cannot be used."""


class BudgetError(UserError):
    """Token caps that do not fit together or do not fit the model's window."""


class ModelError(UserError):
    """A model or tokenizer that cannot be loaded."""


class StoreError(UserError):
    """A run folder that another process writes, or that belongs to another run."""


class MissingExtraError(UserError):
    """An optional dependency is not installed.

    Args: `package`, what could not be imported; `extra`, the extra of `mem1-rl` that brings it.
    """

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(f"{package} is not installed: run  pip install 'mem1-rl[{extra}]'")


class TrainingError(Mem1Error):
    """Training can't go on (loss or gradient not finite); the weights are those before it."""


class EngineError(Mem1Error):
    """An engine could not sample (server down, timeout, refused). Never becomes model text."""


class ToolError(Mem1Error):
    """A tool could not answer. Never becomes an observation."""
