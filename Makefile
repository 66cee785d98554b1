# PicoMDM: everything that one types. `make help` lists it.
#
# Two virtual environments are made from PyPI: .venv with the project and its tools, .emulator-venv with the AWS emulator
# and aws-sam-cli, which pin a botocore of their own. Both are made again when what they are made from has changed.

PYTHON ?= python3
MINISTACK := 1.5.33
SAM_CLI := 1.167.0

VENV := .venv
EMULATOR_VENV := .emulator-venv
BIN := $(VENV)/bin
SAM := SAM_CLI_TELEMETRY=0 $(EMULATOR_VENV)/bin/sam

PROJECT_STAMP := $(VENV)/made-by-make
FUZZ_STAMP := $(VENV)/fuzz-made-by-make
EMULATOR_STAMP := $(EMULATOR_VENV)/ministack-$(MINISTACK)-sam-$(SAM_CLI)

# For `make deploy`: dev or prod of samconfig.toml, and parameters of template.yaml, as in
#   make deploy ENVIRONMENT=prod PARAMETERS="Organization='Example, Inc.' AlarmEmail=ops@example.org"
ENVIRONMENT ?= dev
PARAMETERS ?=

# For `make fuzz`: how long each target takes, and which (all by default), as in  make fuzz TARGETS="plist signature"
FUZZ_SECONDS ?= 60
TARGETS ?=

# Tests start hundreds of our programs: what they import is compiled once, also where the environment would have it otherwise.
unexport PYTHONDONTWRITEBYTECODE

# For `make test`: what pytest is given, as in  make test TESTS="tests/unit -k plist", and how many processes share the work.
# Two of them begin with end-to-end tests, which wait more than they work: what two cores have left, the third one takes.
TESTS ?=
PROCESSES ?= 3

# For `make chaos`: only requests with this in their names, as in  make chaos CHAOS=report
CHAOS ?=

.DEFAULT_GOAL := help
.PHONY: help setup run demo test fuzz chaos lint bench deploy clean

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(PROJECT_STAMP) $(EMULATOR_STAMP) ## Make both virtual environments

run: setup ## Deploy to the emulator, play one life of a device, stay up until Ctrl-C
	@$(BIN)/python -m local.run

demo: setup ## Play one life of a device and exit; fails when a step does
	@$(BIN)/python -m local.run --demo

test: setup ## Run all tests, the end-to-end ones against a deployed stack
	@$(BIN)/pytest --numprocesses $(PROCESSES) --dist loadscope --no-loadscope-reorder $(TESTS)

fuzz: setup $(FUZZ_STAMP) ## Fuzz every parser that a device can reach, FUZZ_SECONDS each (docs/testing.md)
	@$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(TARGETS)

chaos: setup ## Break AWS at every call of every request of a deployed stack, and print what survives (docs/testing.md)
	@$(BIN)/python -m tests.chaos --only "$(CHAOS)"

lint: setup ## Check style, types, import contracts, the layer's requirements and the template
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy bench functions layers/mdmlib/python local picomdm tests tools
	@$(BIN)/lint-imports
	@$(BIN)/python tools/layer_requirements.py --check
	@$(SAM) validate --lint --region us-east-1 --template template.yaml

bench: setup ## Measure CPU time, wall time and AWS calls of each request, of a push, of a long list of Apple's, of a blueprint (docs/testing.md)
	@$(BIN)/python -m bench.requests
	@$(BIN)/python -m bench.aws_json
	@$(BIN)/python -m bench.push
	@$(BIN)/python -m bench.ade
	@$(BIN)/python -m bench.blueprints

deploy: setup ## Build for the newest Python at hand and deploy to AWS (ENVIRONMENT=dev|prod, PARAMETERS=…)
	@$(BIN)/python tools/deploy.py --environment $(ENVIRONMENT) -- $(PARAMETERS)

clean: ## Remove everything that was made, the state of `make run` too
	rm -rf $(VENV) $(EMULATOR_VENV) .aws-sam .local .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(PROJECT_STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.13")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# Not everywhere is there an atheris; then hypothesis takes its place, and `make fuzz` says so.
$(FUZZ_STAMP): $(PROJECT_STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]' || \
		echo "atheris cannot be installed on this Python: inputs will be made by hypothesis, which knows nothing of the code."
	@touch $@

$(EMULATOR_STAMP):
	rm -rf $(EMULATOR_VENV)
	$(PYTHON) -m venv $(EMULATOR_VENV)
	$(EMULATOR_VENV)/bin/python -m pip install --quiet --disable-pip-version-check ministack==$(MINISTACK) aws-sam-cli==$(SAM_CLI)
	@touch $@
