# make demo   train twice on real digits, draw, and write a log entry (under 3 minutes on two cores)
# make test   the tests, two at a time (WORKERS=8: eight)
# make faults   1,000 injected faults, and what came of them (under an hour on two cores)
# make lowest   the tests with the oldest versions that pyproject.toml admits, in an environment of their own
# make bench  every speed against its rival and its aim: a table, JSON and figures (under 15 minutes on two quiet cores)
# make gpu    what has to work on a GPU, and how fast it is, in under 8 minutes; needs a GPU and no more than torch and timm
# make lab    JupyterLab on this machine only, with its token, at notebooks/train.ipynb
# Each sets up what it needs first; the second call starts at once. In the conda environment "research" that is used.

ifeq ($(CONDA_DEFAULT_ENV),research)
BIN := $(CONDA_PREFIX)/bin
INSTALLED :=
RIVALS :=
else
BIN := .venv/bin
INSTALLED := .venv/installed
RIVALS := .venv/rivals
endif
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: demo test slow faults bench gpu lowest lab install lint docs pins

# One GPU trains on one process; several, or none, on two
PROCESSES ?= $(if $(filter 1,$(shell nvidia-smi -L 2>/dev/null | grep -c ^GPU)),1,2)
DEMO := dataset=digits model=resnet8 epochs=10 batch_size=64 processes=$(PROCESSES)
LOG := log=runs/demo-log.md folder=runs/demo-log title='Plain training and GraM on the digits'

demo: $(INSTALLED)
	research run train name=demo-plain $(DEMO)
	research run train name=demo-gram gram=true $(DEMO)
	research run analysis/curves runs='runs/demo-*' $(LOG)
	research run analysis/correlation runs=runs/demo-gram $(LOG) \
	logged='[NMI matrices, multipliers of several k, multiplier over epochs]'
	@printf '\n%s\n%s\n%s\n%s\n' \
	'log       runs/demo-log.md, with its figures in runs/demo-log/' \
	'runs      runs/demo-plain/ and runs/demo-gram/: metrics, weights, executed notebook' \
	'analyses  runs/analysis/' \
	'next      make lab, or: source .venv/bin/activate && research --help'

# a file of tests stays in one process, so that what its tests share is made once
WORKERS ?= 2
TESTS := python -m pytest -n $(WORKERS) --dist loadfile

test: $(INSTALLED)
	$(TESTS)

slow: $(INSTALLED)
	python -m pytest -m slow

faults: $(INSTALLED)
	OMP_NUM_THREADS=1 python -m pytest -m faults tests/faults

lowest: $(INSTALLED)
	mkdir -p build
	PKG_CONFIG_PATH=$(CURDIR)/.ci/ffcv uv pip compile --quiet --upgrade --resolution lowest-direct --no-annotate --no-header \
	--python-version 3.11 --extra dev pyproject.toml --output-file build/lowest.txt
	PYTHON=$(or $(PYTHON),python3.11) CONSTRAINTS=build/lowest.txt .ci/install .venv-lowest
	PATH=$(CURDIR)/.venv-lowest/bin:$$PATH $(TESTS)

bench: $(INSTALLED) $(RIVALS)
	OMP_NUM_THREADS=1 python tests/benchmarks/suite.py

# in whatever environment there is: a machine with a GPU often has its own, and no network to make another
gpu:
	$(or $(PYTHON),python3) tests/gpu/check.py --out runs/gpu-check-$$(date +%Y%m%d-%H%M%S).json

lint: $(INSTALLED)
	ruff check .
	ruff format --check .
	lint-imports

# the warnings that are passed over are about type hints of NamedTuples and of what pandas' classes pass on
docs: $(INSTALLED)
	python -W error::UserWarning -W "ignore:Error parsing type annotation:UserWarning" \
	-m pdoc --docformat google --output-directory build/docs research

# .ci/jupyter has settings of JupyterLab that stand below a user's own: it does not ask whether it may fetch news
lab: $(INSTALLED)
	env JUPYTER_CONFIG_PATH="$(CURDIR)/.ci/jupyter:$$JUPYTER_CONFIG_PATH" \
	jupyter lab --ip=127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root) --ServerApp.root_dir=$(CURDIR) \
	--LabApp.default_url=/lab/tree/notebooks/train.ipynb \
	--ContentsManager.pre_save_hook=research.notebooks.saving.without_version

install: $(INSTALLED)

.venv/installed: pyproject.toml constraints.txt .ci/install
	.ci/install .venv
	@touch $@

# Composer asks for an older torch than this one, with which it trains all the same; without it its row says so
.venv/rivals: .venv/installed tests/benchmarks/composer.txt
	EXTRAS=dev,bench .ci/install .venv
	-uv pip install --python .venv/bin/python -c constraints.txt --overrides tests/benchmarks/composer.txt mosaicml
	@touch $@

pins: $(INSTALLED)
	(sed -n '/^#/p' constraints.txt; echo uv | PKG_CONFIG_PATH=$(CURDIR)/.ci/ffcv uv pip compile --quiet --upgrade \
	--no-annotate --no-header --python-version 3.11.2 --all-extras pyproject.toml -) > constraints.new
	mv constraints.new constraints.txt
