# make demo   train twice on real digits, draw, and write a log entry (under 3 minutes on two cores)
# make test   the tests
# make lab    JupyterLab on this machine only, with its token
# Each sets up what it needs first; the second call starts at once. In the conda environment "research" that is used.

ifeq ($(CONDA_DEFAULT_ENV),research)
BIN := $(CONDA_PREFIX)/bin
INSTALLED :=
else
BIN := .venv/bin
INSTALLED := .venv/installed
endif
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: demo test slow lab install lint pins

demo: $(INSTALLED)
	@echo demo
test: $(INSTALLED)
	python -m pytest

slow: $(INSTALLED)
	python -m pytest -m slow

lint: $(INSTALLED)
	ruff check .
	ruff format --check .

lab: $(INSTALLED)
	jupyter lab --ip=127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root) notebooks

install: $(INSTALLED)

.venv/installed: pyproject.toml constraints.txt .ci/install
	.ci/install .venv
	@touch $@

pins: $(INSTALLED)
	(sed -n '/^#/p' constraints.txt; PKG_CONFIG_PATH=.ci/ffcv uv pip compile --quiet --upgrade --no-annotate --no-header \
	--python-version 3.11.2 --all-extras pyproject.toml - <<< uv) > constraints.new && mv constraints.new constraints.txt
