# make demo   a better model from the built-in pool, from nothing; then five methods side by side
# make test   the fast tests, on all cores
# make test-all   every test
# make test-gpu   what must pass on a CUDA device, where there is one
# make check  style, types, layers, generated pages, packaging: lint, types, generated
# make docs   the site, into build/site/html; docs-links asks for every address that it names
# make test-wheel   the fast tests against the wheel, built and installed in an environment of its own
# make lowest the fast tests with the lowest versions that are declared, in an environment of their own
# make pool   rebuild the built-in pool from nothing

comma := ,
PYTHON ?= python3
VENV ?= .venv
# EXTRAS=dev,dev-full also installs what only some tests need
EXTRAS ?= dev
READY := $(VENV)/.ready-$(EXTRAS)
# what the site needs is in the extras docs and dev-full
DOCS_READY := $(READY)$(if $(findstring docs,$(EXTRAS))$(findstring dev-full,$(EXTRAS)),,$(comma)docs)
# Idle OpenMP threads would spin on cores that others could use.
export OMP_WAIT_POLICY = PASSIVE
export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: demo test test-all test-gpu check lint types generated docs docs-links test-wheel lowest lowest-versions pool clean

demo: $(READY)
	merge run --strategy manifoldmix --partitioner clip-c8
	merge benchmark --strategies best,uniform,greedy,manifoldmix,learned --partitioner clip-c8 --open

test: $(READY)
	python -m pytest -m 'not slow' -n auto --dist worksteal

test-all: $(READY)
	python -m pytest -n auto --dist worksteal

test-gpu: $(READY)
	python -m pytest -m gpu

check: lint types generated

lint: $(READY)
	ruff check
	ruff format --check
	lint-imports

types: $(READY)
	mypy

generated: $(READY)
	python docs/build_reference.py --check
	python tests/project/check_packaging.py  # --write: after a package was added

docs: $(DOCS_READY)
	sphinx-build -q -W --keep-going -j auto -d build/site/doctrees docs build/site/html
	python -m docs.website.checking build/site/html

docs-links: $(DOCS_READY)
	sphinx-build -q -j auto -b linkcheck -d build/site/doctrees docs build/site/links

test-wheel:
	rm -rf build/wheel
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet build
	build/wheel/venv/bin/python -m build --outdir build/wheel/dist
	build/wheel/venv/bin/python -m pip install --quiet "$$(ls build/wheel/dist/*.whl)[dev]"
	build/wheel/venv/bin/python tests/project/check_wheel.py -m 'not slow' -n auto

lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --requirement requirements/lowest.txt \
		hypothesis matplotlib pytest pytest-randomly pytest-xdist ruff
	.venv-lowest/bin/python -m pip install --quiet --no-deps --editable .
	.venv-lowest/bin/python -m pytest -m 'not slow' -n auto \
		--ignore tests/project --ignore tests/browser tests

# needs uv; after a bound has changed. CUDA's libraries are left to torch's own wheel, and a CPU-only one has none.
lowest-versions:
	uv pip compile pyproject.toml --resolution lowest-direct --python-version 3.11 --no-annotate --quiet \
		--extra adapters --extra data --extra ray --extra tensorboard --extra text \
		--custom-compile-command 'make lowest-versions' | \
		grep --invert-match --extended-regexp '^(cuda|nvidia|triton)' > requirements/lowest.txt

pool: $(READY)
	rm -rf build/pool
	python -m benchmarks.digits_pool.pretraining --output build/pool
	merge finetune --task digits --base build/pool/base.safetensors --models 14 --seed 2000 \
		--sweep merging/tasks/digits_pool/sweep.toml --output build/pool
	cp build/pool/* merging/tasks/digits_pool/

$(VENV)/.ready-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with make PYTHON=…"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
