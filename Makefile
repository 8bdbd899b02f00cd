# Each target sets up what it needs: only Python 3.11 or newer and make have to be there.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test check triton soak bench figures serve protos clean

demo: $(VENV)/core
	$(BIN)/jaxnn demo

serve: $(VENV)/core
	$(BIN)/jaxnn serve

test: $(VENV)/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/dev $(VENV)-protos/done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m mypy
	$(VENV)-protos/bin/python scripts/generate_protos.py --check
	$(MAKE) triton
	$(MAKE) test

# Apart from the rest, since tritonclient asks for an older protobuf.
triton: $(VENV)-triton/done
	$(VENV)-triton/bin/python -m pytest tests/test_tritonclient.py

# The reliability tests at full length: hours.
soak: $(VENV)/dev
	JAXNN_SOAK=1 $(BIN)/python -m pytest tests/test_reliability_*.py tests/test_batching.py

# Runs every command of the page; they draw its pictures.
figures: $(VENV)/dev
	$(BIN)/python scripts/run_page.py docs/how-it-learns.md docs
	rm -rf docs/run

# Rewrites the tables of docs/performance.md; JAXNN_MNIST=DIR adds the cold start.
bench: $(VENV)/core
	$(PIP) torch==2.13.0
	$(BIN)/python -m benchmarks

$(VENV)/core: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jaxnn needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/dev: $(VENV)/core
	$(PIP) --editable '.[dev]'
	touch $@

# Apart from the rest, since the compiler asks for an older protobuf than the service runs on.
$(VENV)-protos/done: protos/requirements.txt
	$(PYTHON) -m venv $(VENV)-protos
	$(VENV)-protos/bin/python -m pip --disable-pip-version-check install --quiet -r $<
	touch $@

$(VENV)-triton/done: pyproject.toml
	$(PYTHON) -m venv $(VENV)-triton
	$(VENV)-triton/bin/python -m pip --disable-pip-version-check install --quiet --editable . 'pytest>=8.4' 'tritonclient[grpc]==2.73.0'
	touch $@

protos: $(VENV)-protos/done
	$(VENV)-protos/bin/python scripts/generate_protos.py

clean:
	rm -rf $(VENV) $(VENV)-protos $(VENV)-triton
