"""POLICY -> AN ORDINARY HUGGING FACE FOLDER, whole or not there."""

import shutil
from pathlib import Path

from safetensors import SafetensorError

from mem1.chat.hf import HFRenderer
from mem1.errors import StoreError
from mem1.files import atomic_write
from mem1.train.policy import Policy
from mem1.train.team import Team


def export_policy(
    folder: Path, *, policy: Policy, renderer: HFRenderer, card: str, team: Team
) -> None:
    """Write weights, tokenizer and model card; called by all of a team, the first one writes.

    Raises: StoreError if it can't be written (disk full, say).
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    try:
        if team.is_first:
            shutil.rmtree(unfinished, ignore_errors=True)
        policy.export(unfinished)
        if team.is_first:
            renderer.save(unfinished)
            atomic_write(unfinished / "README.md", card)
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"{folder}: the policy can't be written: {error}. Make room and start the run again: "
            "it has its checkpoints"
        ) from error
    finally:
        if team.is_first:
            shutil.rmtree(unfinished, ignore_errors=True)
    team.wait()
