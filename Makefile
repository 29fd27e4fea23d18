# `make speak` and `make test` need python3 (with venv) and make, nothing else.

PYTHON ?= python3
PIP = .venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt
TEXT ?= Good morning. The train to the old harbor leaves in five minutes.
FACE ?= demo/examples/portrait.jpg
WAV ?= out/hello.wav
# Not `recipe`, whose pyworld is compiled when it is installed, nor `scale`, which is Ray: their tests are skipped.
EXTRAS ?= demo,eval,test,train

PORT ?= 7860

.PHONY: speak demo test lint format clean

speak: .venv/installed
	.venv/bin/face2voice speak --face $(FACE) --text "$(TEXT)" --out $(WAV)

demo: .venv/demo-installed
	.venv/bin/face2voice demo --port $(PORT)

test: lint .venv/tests-installed
	.venv/bin/python -m pytest

lint: .venv/tests-installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

format: .venv/tests-installed
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	# torch by itself first: the pinned build is settled before anything that merely asks for a torch
	$(PIP) torch
	$(PIP) -e .
	touch $@

.venv/tests-installed: .venv/installed
	$(PIP) -e .[$(EXTRAS)]
	touch $@

.venv/demo-installed: .venv/installed
	$(PIP) -e .[demo,train]
	touch $@

clean:
	rm -rf .venv out build *.egg-info
