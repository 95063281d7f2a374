# Two commands for everybody: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SCRIPTS_READY := node_modules/.ready

.PHONY: demo test browser check check-js truth bench format docs clean

demo: $(READY)  ## plan ResNet-50 for a 12 GiB card
	$(BIN)/memfit plan torchvision:resnet50 --input-shape 3x224x224 --optimizer adamw --precision amp-fp16 --gpu rtx-3060

test: $(READY) browser  ## all tests
	$(BIN)/python -m pytest -n 2

browser:  ## Chromium for the tests of the page, from Debian's packages; else they are skipped
	@command -v chromium >/dev/null || ! command -v apt-get >/dev/null || test "$$(id -u)" != 0 || \
	  { apt-get update -q && apt-get install -y -q --no-install-recommends chromium; }

check: $(READY) check-js  ## format, lint, types, documentation; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check

check-js:  ## the page's scripts: types, lint, format; needs npm, which nothing else does
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(SCRIPTS_READY) && \
	  npx --no-install tsc && npx --no-install biome check .; \
	elif test -n "$$CI"; then echo "no npm, and on CI the page's scripts must be checked"; exit 1; \
	else echo "NOT CHECKED: the page's scripts, for want of npm (Node.js 20 or newer)"; fi

truth: $(READY)  ## predicted against measured on GPUs; writes docs/accuracy.md
	$(BIN)/python bench/truth/truth.py

bench: $(READY)  ## accuracy, speed, scripts, peers, data, training, page; writes bench/results/
	$(BIN)/python bench/accuracy.py
	$(BIN)/python bench/limits.py
	$(BIN)/python bench/speed.py
	$(BIN)/python bench/oracle.py
	$(BIN)/python bench/virtual_cuda.py
	$(BIN)/python bench/scripts.py
	$(BIN)/python bench/peers.py
	$(BIN)/python bench/data.py
	$(BIN)/python bench/train.py
	$(BIN)/python bench/noise.py
	$(BIN)/python bench/kills.py
	$(BIN)/python bench/page.py

format: $(READY) $(SCRIPTS_READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	npx --no-install biome check --write .

docs: $(READY)  ## write the pages and pictures that come from commands
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "memfit needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[models,parquet,tensorboard,ray,dev]'
	touch $(READY)

$(SCRIPTS_READY): package.json package-lock.json
	npm ci --no-audit --no-fund --ignore-scripts
	touch $(SCRIPTS_READY)
