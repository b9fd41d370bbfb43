# Every target makes the virtual environment itself when it is missing or older than what it is made from.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test lint bench soak serve lock locale clean

run: .venv/run
	$(BIN)/python main.py demo

serve: .venv/run
	$(BIN)/python main.py health

test: .venv/dev
	$(BIN)/python -m pytest --numprocesses 4 --dist worksteal

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit -q -c pyproject.toml -r main.py config core scheduler

# About 45 minutes. By default bench.failover does 200 dates, bench.thundering_herd 1,000 jobs, bench.events 100,000
# events. Not here, because they take an hour, ten minutes or other libraries: bench.market_backfill, bench.scrape, bench.metrics_speed.
bench: .venv/dev
	$(BIN)/python -m bench.idle
	$(BIN)/python -m bench.outage
	$(BIN)/python -m bench.failover --dates 40
	$(BIN)/python -m bench.thundering_herd --jobs 200
	$(BIN)/python -m bench.backfill
	$(BIN)/python -m bench.write_path
	$(BIN)/python -m bench.rule_speed
	$(BIN)/python -m bench.false_alarms
	$(BIN)/python -m bench.adjusted_returns
	$(BIN)/python -m bench.recall
	$(BIN)/python -m bench.metrics_growth
	$(BIN)/python -m bench.cleanup
	$(BIN)/python -m bench.cache
	$(BIN)/python -m bench.events --events 10000

soak: .venv/dev
	$(BIN)/python -m bench.soak

.venv/run: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "NavKeeper needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/dev: .venv/run requirements-dev.txt
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	@touch $@

lock: .venv/dev
	$(BIN)/python -m pip install --quiet uv
	for name in requirements requirements-dev; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
			--no-emit-index-url --no-emit-find-links --upgrade $$name.in -o $$name.txt || exit 1; done

locale: .venv/dev
	$(BIN)/pybabel compile --directory config/locale --domain navkeeper --statistics

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
