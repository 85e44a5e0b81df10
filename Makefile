# Two commands, each complete on a fresh machine with Python 3.11+ and make:
#   make run    makes an environment in .venv, installs Roofcast, forecasts Llama 3 8B on an H100 and leaves roofline.png
#   make test   makes the same environment with the test tools, passes the tests and checks the style
# EXTRAS=torch,onnx adds optional parts to either, PYTHON=python3.12 chooses the Python.
PYTHON ?= python3
EXTRAS ?=
VENV ?= .venv
comma := ,
BIN := $(VENV)/bin
PLUS := $(if $(EXTRAS),-$(EXTRAS))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
NO_PIP := { echo "The installation failed: pip needs a network, or a package index that it knows. Mend that and make again."; exit 2; }
NO_VENV := { rm -rf $(VENV); echo "$(PYTHON) cannot make an environment: its venv module is missing (on Debian: apt install python3-venv)."; exit 2; }

.PHONY: help run test types clean
help:
	@sed -n '1,4s/^# \{0,1\}//p' Makefile

run: $(VENV)/.installed$(PLUS)
	$(BIN)/roofcast predict llama-3-8b --on h100-sxm5
	@echo
	$(BIN)/roofcast roofline llama-3-8b --on h100-sxm5 -o roofline.png
	@echo
	@echo "The command is $(BIN)/roofcast; what it can do: $(BIN)/roofcast --help"

test: $(VENV)/.tested$(PLUS)
	$(BIN)/python -m pytest -n auto
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory types

# the type checker sees the package through links, as package-dir maps its folders
types: $(VENV)/.tested$(PLUS)
	@mkdir -p build/types/roofcast
	@for folder in hwdb simulator scenarios reports api/__init__.py api/py.typed; do \
		ln -sfn "$(CURDIR)/$$folder" "build/types/roofcast/$$(basename $$folder)"; done
	$(BIN)/mypy

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Roofcast needs Python 3.11 or newer; $(PYTHON) is $$({ command -v $(PYTHON) >/dev/null && $(PYTHON) -V 2>&1 || echo missing; } | head -1). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@echo "making an environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || $(NO_VENV)

$(VENV)/.installed$(PLUS): $(BIN)/python pyproject.toml
	@echo "installing Roofcast$(if $(EXTRAS), with $(EXTRAS)) into $(VENV), which may take a minute"
	@$(PIP) -e '.$(if $(EXTRAS),[$(EXTRAS)])' || $(NO_PIP)
	@touch '$@'

$(VENV)/.tested$(PLUS): $(BIN)/python pyproject.toml
	@echo "installing Roofcast and its test tools$(if $(EXTRAS), with $(EXTRAS)) into $(VENV), which may take a minute"
	@$(PIP) -e '.[test$(if $(EXTRAS),$(comma)$(EXTRAS))]' || $(NO_PIP)
	@touch '$@' '$(VENV)/.installed$(PLUS)'

clean:
	rm -rf $(VENV) build *.egg-info
