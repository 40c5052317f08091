"""The layers of pyproject.toml hold, and would not hold if a row imported one above it."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINT = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    paths = {"PYTHONPATH": str(folder / "src"), "PATH": "/usr/bin:/bin"}
    return subprocess.run(LINT, cwd=folder, env=paths, capture_output=True, text=True, check=False)


def test_each_row_imports_only_rows_below_it():
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout


def test_an_import_upwards_breaks_the_contract(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src")
    with (tmp_path / "src/mem1/text.py").open("a") as file:
        file.write("\nimport mem1.rollout\n")
    result = lint(tmp_path)
    assert result.returncode == 1
    assert "mem1.text -> mem1.rollout" in result.stdout
