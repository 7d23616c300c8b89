# make notebooks · make test · make lab · make app — the first call sets up .venv
PYTHON ?= python3
BIN := .venv/bin
EXPERIMENT ?= $(or $(LTKD_EXPERIMENT),digits-lt)
export LTKD_EXPERIMENT := $(EXPERIMENT)
# For example: make notebooks EXPERIMENT=cifar100-lt OPTIONS="--epochs 2"
OPTIONS ?=

.PHONY: notebooks refresh test lab app clean

notebooks: .venv/ready
	$(BIN)/python -m ltkd notebooks "$(EXPERIMENT)" $(OPTIONS)

# For maintainers: execute the notebooks from scratch and save their outputs in place.
refresh: .venv/ready
	rm -rf saved_model/digits-lt
	$(BIN)/python -m ltkd notebooks digits-lt --save

test: .venv/ready
	$(BIN)/python -m pytest

lab: .venv/ready
	$(BIN)/jupyter lab notebooks/01_long_tailed_data.ipynb

app: .venv/ready
	$(BIN)/python -m ltkd student "$(EXPERIMENT)"
	$(BIN)/voila notebooks/05_classifier_panel.ipynb --Voila.ip=127.0.0.1

clean:
	rm -rf .venv data/built saved_model/*/notebooks

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ltkd needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@
