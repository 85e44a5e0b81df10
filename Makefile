# Two commands, each complete on a fresh machine with Python 3.11 or newer and make:
#   make run    installs Roofcast into .venv, forecasts Llama 3 8B on an H100, draws roofline.png
#   make test   installs the test tools too; runs the tests, the linter and the type checker
# EXTRAS=torch,onnx,keras,dask,web,browser adds PyTorch, ONNX, Keras, Dask, the explorer and tests of pages; PYTHON=python3.12 chooses the Python.
# For contributors: make types (type checker), make docs (refresh the documents), make clean.
PYTHON ?= python3
EXTRAS ?=
VENV ?= .venv
comma := ,
BIN := $(VENV)/bin
PLUS := $(if $(EXTRAS),-$(EXTRAS))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
NO_PIP := { echo "The installation failed: pip needs a network connection or a configured package index. Fix that, then run make again."; exit 2; }
NO_VENV := { rm -rf $(VENV); echo "$(PYTHON) cannot create an environment: its venv module is missing (on Debian: apt install python3-venv)."; exit 2; }

.PHONY: help run test types docs clean
help:
	@sed -n '1,5s/^# \{0,1\}//p' Makefile

run: $(VENV)/.installed$(PLUS)
	$(BIN)/roofcast predict llama-3-8b --on h100-sxm5
	@echo
	$(BIN)/roofcast roofline llama-3-8b --on h100-sxm5 -o roofline.png
	@echo
	@echo "The command is $(BIN)/roofcast; for help: $(BIN)/roofcast --help"

# worksteal: a worker takes tests that stand together, and shares what they share; processes that the
# tests start find modules compiled
test: $(VENV)/.tested$(PLUS)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist worksteal
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory types

# mypy does not read package-dir: links under build/types give it the package's real layout
types: $(VENV)/.tested$(PLUS)
	@mkdir -p build/types/roofcast
	@for folder in hwdb simulator scenarios reports api/*.py api/py.typed; do \
		ln -sfn "$(CURDIR)/$$folder" "build/types/roofcast/$$(basename $$folder)"; done
	$(BIN)/mypy

# quoted outputs, tables and pictures of README.md and docs/, about a minute
docs: $(VENV)/.tested$(PLUS)
	$(BIN)/roofcast validate --write docs/accuracy.md
	$(BIN)/roofcast validate --write docs/method.md
	$(BIN)/python -m roofcast.scenarios.fits.scaling --write docs/scaling.md
	$(BIN)/roofcast validate --plot docs/accuracy.png > /dev/null
	$(BIN)/python -m roofcast.scenarios.measured.ratios --write docs/formats.md
	$(BIN)/python tests/reports/test_readme.py
	$(BIN)/python tests/reports/test_notebook.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Roofcast needs Python 3.11 or newer; $(PYTHON) is $$({ command -v $(PYTHON) >/dev/null && $(PYTHON) -V 2>&1 || echo missing; } | head -1). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@echo "creating an environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || $(NO_VENV)

$(VENV)/.installed$(PLUS): $(BIN)/python pyproject.toml
	@echo "installing Roofcast$(if $(EXTRAS), with $(EXTRAS)) into $(VENV); this may take a minute"
	@$(PIP) -e '.$(if $(EXTRAS),[$(EXTRAS)])' || $(NO_PIP)
	@touch '$@'

$(VENV)/.tested$(PLUS): $(BIN)/python pyproject.toml
	@echo "installing Roofcast and its test tools$(if $(EXTRAS), with $(EXTRAS)) into $(VENV); this may take a minute"
	@$(PIP) --no-compile -e '.[test$(if $(EXTRAS),$(comma)$(EXTRAS))]' || $(NO_PIP)
	@touch '$@' '$(VENV)/.installed$(PLUS)'

clean:
	rm -rf $(VENV) build *.egg-info
