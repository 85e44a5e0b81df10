# Two commands, each complete on a fresh machine with Python 3.11+ and make:
#   make run    makes an environment, installs Roofcast, forecasts Llama 3 8B on an H100 and leaves roofline.png
#   make test   makes an environment, installs Roofcast with its test tools and passes the tests
# EXTRAS=torch,onnx adds optional parts to either.
PYTHON ?= python3
EXTRAS ?=
VENV ?= .venv
comma := ,
BIN := $(VENV)/bin

.PHONY: run test lint clean help
help:
	@sed -n '1,4s/^# \{0,1\}//p' Makefile

run: $(VENV)/.installed
	@echo "roofcast predict llama-3-8b --on h100-sxm5"
	@$(BIN)/roofcast predict llama-3-8b --on h100-sxm5
	@echo
	@$(BIN)/roofcast roofline llama-3-8b --on h100-sxm5 -o roofline.png

test: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n auto

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Roofcast needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.12"; exit 2; }
	@echo "making an environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	@echo "installing Roofcast into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.$(if $(EXTRAS),[$(EXTRAS)])'
	@touch $@

$(VENV)/.tested: $(VENV)/bin/python pyproject.toml
	@echo "installing Roofcast and its test tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test$(if $(EXTRAS),$(comma)$(EXTRAS))]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info
