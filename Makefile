# make study   set up, run the miniature study and show its results
# make test    set up, then lint, types and the whole test suite
# make faults  set up, then plant faults in copies of the tree and see that the tests catch each (some minutes)
# make check-lmms-eval   our models inside lmms-eval, in an environment of its own
# make setup   only the set-up: .venv with the versions of constraints.txt
#
# PYTHON names the interpreter (3.11 or newer; the first found is taken), VENV the environment.

SHELL := bash
VENV ?= .venv
PYTHON ?=
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: study test faults check-lmms-eval setup

study: $(READY)
	@$(BIN)/blindspot study miniature

# Two processes of one thread each: tests that train are faster so, and their numbers do not depend on the machine.
test: $(READY)
	@echo "== ruff" && $(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "== pyright" && $(BIN)/pyright --pythonpath $(BIN)/python
	@echo "== pytest" && OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile

faults: $(READY)
	@$(BIN)/python tests/golden/faults.py

# Of the hundred packages that lmms-eval asks for these are what its evaluator imports; the others would bring a
# torchvision that is not torch's. What is installed sees VENV's packages and leaves them alone.
LMMS_EVAL := lmms-eval==0.7.3
ITS_NEEDS := aiohttp==3.14.5 evaluate==0.4.6 loguru==0.7.3 math-verify==0.1.0 openai pytz==2026.6 sacrebleu==2.6.0 \
    tenacity==9.2.1

check-lmms-eval: $(READY)
	@set -e; venv=$$(mktemp -d); trap 'rm -rf "$$venv"' EXIT; \
	$(BIN)/python -m venv "$$venv"; \
	site=$$("$$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	$(BIN)/python -c 'import sys; print(*sys.path[1:], sep="\n")' > "$$site/over.pth"; \
	install="$$venv/bin/python -m pip install --disable-pip-version-check -q"; \
	if $$install -c constraints.txt $(ITS_NEEDS) && $$install --no-deps $(LMMS_EVAL); then \
	    "$$venv/bin/python" -c 'import lmms_eval.evaluator'; \
	    OMP_NUM_THREADS=1 "$$venv/bin/python" -m pytest -q -p no:cacheprovider tests/evaluation/test_lmms_eval_plugin.py; \
	else \
	    echo "skipped: $(LMMS_EVAL) cannot be installed here (pip says why above)"; \
	fi

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@set -eo pipefail; found=; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	    for python in $(or $(PYTHON),$(CANDIDATES)); do \
	        if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	    done; \
	    if test -z "$$found"; then \
	        echo "Blindspot needs Python 3.11 or newer; looked for: $(or $(PYTHON),$(CANDIDATES))." \
	             "Name yours: make PYTHON=/path/to/python3.12" >&2; \
	        exit 1; \
	    fi; \
	    echo "Creating $(VENV) with $$("$$found" --version)"; \
	    "$$found" -m venv --clear $(VENV); \
	fi; \
	echo "Installing into $(VENV): some minutes the first time"; \
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e '.[dev,vicuna]' \
	    | { grep --line-buffered -E -o '^(Collecting|Building|Installing) [^ (]+' || true; }; \
	touch $@
