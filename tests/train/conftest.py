"""A policy of some ten thousand parameters, as a folder: made once for all tests."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    from mem1.train.tiny import make_tiny

    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(folder, seed=0, hidden=16, layers=2)
    return folder
