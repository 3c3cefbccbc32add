# make help lists the targets.  Relative paths are relative to where you ran make.
.DEFAULT_GOAL := help
.PHONY: help setup run backfill recommendations visitor rollback prune up down compose-up compose-down restore test test-ui lint bench lock clean

NAME ?= night
TASKS := .venv/tasks/bin
ENV := bin/env
SCRIPTS := bin/backfill bin/night
COMPILE = .venv/uv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

help:  ## lists the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{ printf "make %-16s %s\n", $$1, $$2 }'

setup:  ## makes the two environments from the locks; TORCH=auto or cu130 for an NVIDIA card, PYTHON=… for another Python
	@bin/setup

run: setup  ## runs one night and shows what came out; DATA=folder AS_OF=2015-08-30T00:00:00Z, or demo data of SCALE= NOISE= SEED=
	@$(ENV) $(TASKS)/python bin/night --data "$$DATA" --as-of "$$AS_OF" --scale "$$SCALE" --noise "$$NOISE" --seed "$$SEED" --settings "$$SETTINGS"

backfill: setup  ## runs one night a day, FROM=2015-08-01 TO=2015-08-14, of DATA=folder; SETTINGS='{"profile": "small"}' AGAIN=1
	@$(ENV) $(TASKS)/python bin/backfill --from "$$FROM" --to "$$TO" --data "$$DATA" --settings "$$SETTINGS" $${AGAIN:+--again}

recommendations: setup  ## writes what is in force to OUT=recs.parquet, or the generation GENERATION=…
	@$(ENV) $(TASKS)/python -m tasks.recommendations "$${OUT:-recs.parquet}" $${GENERATION:+--generation "$$GENERATION"}

visitor: setup  ## shows what visitor ID=257597 did, gets and why, of what is in force or of GENERATION=…
	@$(ENV) $(TASKS)/python -m tasks.visitor "$$ID" $${GENERATION:+--generation "$$GENERATION"}

rollback: setup  ## puts the generation before, or TO=generation, and its champions back in force
	@$(ENV) $(TASKS)/python -m tasks.rollback $${TO:+--to "$$TO"}

prune: setup  ## shows what nothing needs of all but the last NIGHTS=14 nights; YES=1 removes it
	@$(ENV) $(TASKS)/python -m tasks.prune $${NIGHTS:+--nights "$$NIGHTS"} $${YES:+--yes}

up: setup  ## starts the embedded Airflow and MLflow on loopback; AIRFLOW_PORT=8080 MLFLOW_PORT=5000
	@bin/up

down:  ## stops them
	@bin/down

compose-up:  ## starts the whole system in containers; DATA=folder, NIGHTJAR_GPU=all
	@bin/compose-up

compose-down:  ## stops it; what it has written stays in its volumes
	@docker compose --profile "*" down --remove-orphans

restore:  ## restores BACKUP=file into the MySQL of compose-up; OVER=1 over what is there, after a backup of it
	@bin/restore

test:  ## runs the unit, learn and embedded tests
	@bin/setup tests
	@$(TASKS)/pytest

test-ui:  ## passes the tests of the UI in a real Chromium (apt-get install chromium)
	@bin/setup tests
	@.venv/uv/bin/uv pip install -q --python $(TASKS)/python --no-deps --require-hashes -r tests/ui/requirements.txt
	@NIGHTJAR_UI=1 $(TASKS)/pytest tests/ui

lint:  ## ruff and mypy --strict, each side against its own environment
	@bin/setup tests
	@$(TASKS)/ruff check . $(SCRIPTS) && $(TASKS)/ruff format --check . $(SCRIPTS)
	@$(TASKS)/mypy tasks tests benchmarks && $(TASKS)/mypy --scripts-are-modules $(SCRIPTS)
	@$(TASKS)/mypy --python-executable .venv/airflow/bin/python dags plugins

bench: setup  ## measures NAME=night at SCALE=1, a share of full size, or NAME=quality DATA=folder: a table, then JSON
	@$(ENV) $(TASKS)/python benchmarks/$(NAME).py $${DATA:+--data "$$DATA"} $${SCALE:+--scale "$$SCALE"}

lock: setup  ## compiles the lock files anew from the requirements.in
	@$(COMPILE) images/airflow/requirements.in -o images/airflow/requirements.txt
	@$(COMPILE) -c images/airflow/requirements.txt images/airflow/requirements.in images/airflow/image.in -o images/airflow/image.txt
	@$(COMPILE) --override images/cpu/overrides.txt --no-emit-package torch images/cpu/requirements.in -o images/cpu/requirements.txt
	@$(COMPILE) -c images/cpu/requirements.txt images/mlflow/requirements.in -o images/mlflow/requirements.txt
	@$(COMPILE) --override images/cpu/overrides.txt --no-emit-package torch -c images/cpu/requirements.txt tests/requirements.in -o tests/requirements.txt
	@$(COMPILE) -c tests/requirements.txt tests/ui/requirements.in -o tests/ui/requirements.txt

clean:  ## removes the environments and the caches; what nights wrote stays in NIGHTJAR_HOME
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +
