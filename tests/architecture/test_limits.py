"""The house's limits: sizes, what may be caught, what may be printed, what imports load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
MODULES = sorted(SOURCE.rglob("*.py"))
WALL_CLOCK = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "date.today"}
"""Clocks that differ between machines, and go back."""
MAY_TELL_TIME = {"engines/openai.py"}
MAY_CATCH_ALL = {"rollout/episode.py"}


def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text("utf-8"))))


def breaches(path: Path) -> list[str]:
    """Every rule that a module breaks, in words."""
    name = str(path.relative_to(SOURCE / "mem1")) if SOURCE in path.parents else path.name
    found = []
    if (lines := len(path.read_text("utf-8").splitlines())) > 400:
        found.append(f"{name} has {lines} lines")
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            arguments = node.args
            count = len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs)
            count -= bool(arguments.args and arguments.args[0].arg in ("self", "cls"))
            if length > 60:
                found.append(f"{name}: {node.name} has {length} lines")
            if count > 7:
                found.append(f"{name}: {node.name} has {count} parameters")
        if isinstance(node, ast.ExceptHandler) and name not in MAY_CATCH_ALL:
            caught = ast.unparse(node.type) if node.type else "everything"
            if caught in ("everything", "Exception"):
                found.append(f"{name}:{node.lineno} catches {caught}")
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "print"
            and not name.startswith("cli/")
        ):
            found.append(f"{name}:{node.lineno} prints")
        is_clock = isinstance(node, ast.Attribute) and ast.unparse(node) in WALL_CLOCK
        if is_clock and name not in MAY_TELL_TIME:
            found.append(f"{name}:{node.lineno} tells the time")
    return found


def test_modules_keep_to_the_limits():
    assert [breach for path in MODULES for breach in breaches(path)] == []


def test_the_limits_would_catch_a_breach(tmp_path):
    body = "\n".join(f"    x = {i}" for i in range(61))
    bad = tmp_path / "bad.py"
    bad.write_text(
        f"def long():\n{body}\n\ndef wide(a, b, c, d, e, f, g, h): print(a)\n\n"
        "try:\n    pass\nexcept Exception:\n    pass\nnow = time.time\n" + "#\n" * 400
    )
    assert [breach.split(" ", 1)[1].split(" ")[0] for breach in breaches(bad)] == [
        "has",
        "long",
        "wide",
        "catches",
        "tells",
        "prints",
    ]


def test_every_module_says_what_it_is():
    silent = [path for path in MODULES if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert silent == []


HEAVY_HOMES = {
    *(f"mem1.adapters.verl.{name}" for name in ("agent_loop", "credit", "losses", "plugin")),
    "mem1.adapters.verl.trainer",
    "mem1.engines.batch",
    "mem1.engines.kernels",
    "mem1.engines.kv",
    "mem1.engines.passes",
    "mem1.engines.slots",
    *(
        f"mem1.train.{name}"
        for name in (
            *("ahead", "attention", "checkpoint", "distributed", "experience", "export", "losses"),
            *("memory", "merge", "optimizer", "policy", "scoring", "served", "shards", "snapshot"),
            *("sources", "team", "trainer", "update", "verify"),
        )
    ),
}
"""Modules that are imported only once a model runs."""


@pytest.mark.parametrize("heavy", ["torch", "transformers"])
def test_nothing_loads_a_model_library_until_a_model_is_loaded(heavy):
    # Importing a command runs it, and it ends with 0.
    modules = [path for path in MODULES if path.stem != "__main__"]
    names = [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in modules]
    wanted = sorted({name.removesuffix(".__init__") for name in names} - HEAVY_HOMES)
    code = f"import importlib, sys; [importlib.import_module(n) for n in {wanted}]"
    check = f"{code}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
