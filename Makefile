# make notebooks · make test · make lab · make app — the first call sets up .venv
PYTHON ?= python3
BIN := .venv/bin
EXPERIMENT ?= $(or $(LTKD_EXPERIMENT),digits-lt)
export LTKD_EXPERIMENT := $(EXPERIMENT)
# For example: make notebooks EXPERIMENT=cifar100-lt-quick OPTIONS="--epochs 2"
OPTIONS ?=
# The panel's page: only this machine, only with the token in the address that it opens, and kernels
# that have been left end after ten minutes. Without token: make app VOILA=--Voila.ip=127.0.0.1
VOILA ?= --Voila.ip=127.0.0.1 --token \
	--MappingKernelManager.cull_idle_timeout=600 --MappingKernelManager.cull_interval=60

.PHONY: notebooks refresh test check coverage lab app clean

notebooks: .venv/ready
	$(BIN)/python -m ltkd notebooks "$(EXPERIMENT)" $(OPTIONS)

# For maintainers: train anew, execute notebooks and solutions, save their outputs in place, and
# draw the pictures in notebooks/images/, but for the screenshots of the panel.
refresh: .venv/ready
	rm -rf saved_model/digits-lt*
	$(BIN)/python -m ltkd notebooks digits-lt --save

test: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile

# For maintainers: style, types and known weaknesses of what is installed; the share of branches.
check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check ltkd tests
	$(BIN)/mypy
	$(BIN)/pip-audit --skip-editable

coverage: .venv/dev
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lab: .venv/ready
	$(BIN)/jupyter lab notebooks/01_long_tailed_data.ipynb

app: .venv/ready
	$(BIN)/python -m ltkd student "$(EXPERIMENT)"
	$(BIN)/voila notebooks/05_classifier_panel.ipynb $(VOILA)

clean:
	rm -rf .venv data/built saved_model/*/notebooks

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4) and "ltkd needs Python 3.11.4 or newer: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

.venv/dev: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
