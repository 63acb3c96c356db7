# make study   set up, run the miniature study and show its results
# make test    set up, then lint, types and the whole test suite
# make faults  set up, then plant faults in copies of the tree and see that the tests catch each (some minutes), and
#              kill studies at many moments and see that they end with the same bytes; score 200,000 strings
# make check-lmms-eval   our models inside lmms-eval, in an environment of its own
# make check-inspect     our benchmarks inside inspect_ai, likewise
# make check-ray         studies on a Ray cluster of three nodes on this machine, in an environment with Ray
# make check-app         the local page in Chromium, in an environment with NiceGUI and playwright
# make check-wheel       a wheel of the package, installed, runs a study
# make check-site        the documentation as a site, built strictly
# make check-notebooks   the three notebooks of docs/notebooks at smoke scale
# make setup   only the set-up: .venv with the versions of constraints.txt
#
# PYTHON names the interpreter (3.11 or newer; the first found is taken), VENV the environment.

SHELL := bash
VENV ?= .venv
PYTHON ?=
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: study lint test faults check-lmms-eval check-inspect check-ray check-app check-wheel \
    check-site check-notebooks setup

study: $(READY)
	@$(BIN)/blindspot study miniature

lint: $(READY)
	@echo "== ruff" && $(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "== pyright" && $(BIN)/pyright --pythonpath $(BIN)/python

# Two processes of one thread each: tests that train are faster so, and their numbers do not depend on the machine.
# Files go to them in the order that tests/conftest.py gives.
test: lint
	@echo "== pytest" && OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder

faults: $(READY)
	@BLINDSPOT_KILLS=10 $(BIN)/pytest -q tests/studies/test_rehearsal_kills.py tests/studies/test_real_training.py
	@BLINDSPOT_STRINGS=200000 $(BIN)/pytest -q tests/benchmarks/test_any_answer.py
	@$(BIN)/python tests/golden/faults.py

# A virtual environment that sees VENV's packages and leaves them alone, gone in the end; $$install installs into it.
OVER = set -e; venv=$$(mktemp -d); trap 'rm -rf "$$venv"' EXIT; \
	$(BIN)/python -m venv "$$venv"; \
	site=$$("$$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	$(BIN)/python -c 'import sys; print(*sys.path[1:], sep="\n")' > "$$site/over.pth"; \
	install="$$venv/bin/python -m pip install --disable-pip-version-check -q"

# Of the hundred packages that lmms-eval asks for these are what its evaluator imports; the others would bring a
# torchvision that is not torch's.
LMMS_EVAL := lmms-eval==0.7.3
ITS_NEEDS := aiohttp==3.14.5 evaluate==0.4.6 loguru==0.7.3 math-verify==0.1.0 openai pytz==2026.6 sacrebleu==2.6.0 \
    tenacity==9.2.1

# What inspect_ai imports; it wants other versions of click and fsspec than constraints.txt has.
INSPECT := inspect-ai==0.3.285 agent-client-protocol==0.12.1 beautifulsoup4==4.15.0 botocore==1.44.8 click==8.1.8 \
    debugpy==1.8.22 docstring-parser==0.18.0 fsspec==2025.9.0 httpcore==1.0.9 httpx==0.28.1 ijson==3.6.0 jsonlines==4.0.0 \
    jsonpatch==1.48 jsonpath-ng==1.16.0 jsonpointer==3.12 jsonref==1.1.0 linkify-it-py==2.2.0 mdit-py-plugins==0.7.0 \
    mmh3==5.3.1 nest-asyncio2==1.7.4 pathlib-abc==0.5.2 platformdirs==4.14.9 python-dotenv==1.2.4 semver==3.1.2 \
    shortuuid==1.0.13 soupsieve==4.1.3 tenacity==9.2.1 textual==8.2.8 tiktoken==0.14.0 uc-micro-py==2.0.0 \
    universal-pathlib==0.3.10 zipfile-zstd==0.0.4 zipp==4.1.2 zstandard==0.25.0

# Runs tests in an environment with another package: how it is installed, what imports it, the tests.
define CHECK
	@$(OVER); \
	if $(1); then \
	    "$$venv/bin/python" -c 'import $(2)'; \
	    OMP_NUM_THREADS=1 "$$venv/bin/python" -m pytest -q -p no:cacheprovider $(3); \
	else \
	    echo "skipped: $(2) cannot be installed here (pip says why above)"; \
	fi
endef

check-lmms-eval: $(READY)
	$(call CHECK,$$install -c constraints.txt $(ITS_NEEDS) && $$install --no-deps $(LMMS_EVAL),lmms_eval.evaluator,tests/evaluation/test_lmms_eval_plugin.py)

check-inspect: $(READY)
	$(call CHECK,$$install --no-deps $(INSPECT),inspect_ai,tests/evaluation/test_inspect_tasks.py)

check-ray: $(READY)
	$(call CHECK,$$install -c constraints.txt ray,ray,tests/studies/test_cluster.py)

# In Chromium, where it is installed; playwright brings none along.
check-app: $(READY)
	$(call CHECK,$$install -c constraints.txt nicegui playwright,nicegui,-rs tests/app)

# From a folder that is not the repository, so that nothing but the wheel can be what runs.
check-wheel: $(READY)
	@$(OVER); $(BIN)/python -m pip wheel --disable-pip-version-check -q --no-deps -w "$$venv" .; cd "$$venv"; \
	$$install --no-deps *.whl; \
	bin/python -c 'import blindspot, sys; assert blindspot.__file__.startswith(sys.prefix), blindspot.__file__'; \
	bin/blindspot study miniature --scale smoke && test -s runs/miniature-smoke/report/index.html

# The documentation as a site in build/site; its pages lie there as in the repository.
SITE := mkdocs-material==9.8.2 mkdocstrings[python]==1.0.8
check-site: $(READY)
	@$(OVER); $$install -c constraints.txt $(SITE); rm -rf build/pages; mkdir -p build/pages/blindspot; \
	cp -r *.md LICENSE docs build/pages; cp -r blindspot/studies build/pages/blindspot; \
	NO_MKDOCS_2_WARNING=1 "$$venv/bin/python" -m mkdocs build --quiet && echo "The site: build/site/index.html"

# Percent scripts, which Jupyter opens by jupytext and Python as they are; here at smoke scale, from an empty folder.
check-notebooks: $(READY)
	@set -e; at=$$(mktemp -d); trap 'rm -rf "$$at"' EXIT; here=$$PWD; export PATH=$$here/$(BIN):$$PATH SCALE=smoke; cd "$$at"; \
	for name in study table model; do echo "== $$name"; "$$here/$(BIN)/python" "$$here/docs/notebooks/$$name.py"; done

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
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e '.[dev,vicuna,video,audit]' \
	    | { grep --line-buffered -E -o '^(Collecting|Building|Installing) [^ (]+' || true; }; \
	touch $@
