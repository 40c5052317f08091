"""A policy of some ten thousand parameters, as a folder: made once for all tests."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    from safetensors.torch import load_file, save_file

    from mem1.train.tiny import make_tiny

    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(folder, seed=0, hidden=16, layers=2)
    # Its last token ends a reply: likelier, so that replies are of many lengths.
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.embed_tokens.weight"][-1] *= 60
    save_file(tensors, file, metadata={"format": "pt"})
    return folder
