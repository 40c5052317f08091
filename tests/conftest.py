"""What all tests have in common."""

import gc
from collections.abc import Iterator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Torch and all else that test modules import lives to the end: a million objects, which
    garbage collection needn't look at while they are made, nor later on."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
