# Each command first sees to its environment: built from the hashed lock when it is missing or the
# lock has changed, untouched otherwise. What another activated environment exports is ignored, and
# the programs do not learn that make has started them, because some tests call make themselves.
unexport PYTHONHOME PYTHONPATH UV_PYTHON VIRTUAL_ENV MAKEFLAGS MFLAGS
# Without compiled files, each process of a test run would compile everything that it imports.
unexport PYTHONDONTWRITEBYTECODE

environment = python=$$(scripts/find-python.sh $(3)) && "$$python" scripts/environment.py $(1) $(2)
compile = uv pip compile --quiet --custom-compile-command 'make lock' --universal \
	--python-version 3.11 --generate-hashes

# Given on the command line only; assigned here so that the caller's environment does not count.
ARGS =
NAME =
DIR =
HISTORY =
PART =

# Not every Python has a release of hypothesis.
without_hypothesis = --ignore-glob='*/test_state_machine.py'

# The tests that need no server, and not the machine to themselves either.
fast = "not integration and not alone and not bake"

# On other Pythons, only those that may depend on the interpreter.
on_each_python = $(fast)" and not one_python"

# As many processes as tests/conftest.py says; an idle one takes over tests of the others.
parallel = $(if $(findstring no:xdist,$(ARGS)),,--numprocesses auto --dist worksteal)

.PHONY: help run new rename without update test test-fast coverage lint format bench reference mutation lock clean environment environment-run environment-bench environment-mutation

help: ## Show this list
	@sed -n 's/^\([a-z%-]*\):.*## /\1	/p' Makefile | expand -t 12

run: environment-run ## Serve on http://127.0.0.1:8000 (HOST and PORT change that)
	@.venv-run/bin/python -m example_service migrate
	@.venv-run/bin/python -m example_service serve

test: environment ## Run every test on all processors (ARGS="-k name" for some)
	@.venv/bin/python -m pytest $(parallel) $(ARGS)

test-fast: environment ## Run the tests that need no server
	@.venv/bin/python -m pytest $(parallel) -m $(fast) $(ARGS)

test-%: ## Run the same on another Python, except what does not depend on it: make test-3.11
	@$(call environment,.venv-$*,requirements-dev.lock,$*)
	@.venv-$*/bin/python -m pytest $(parallel) -m $(on_each_python) $(ARGS)

test-%t: ## Run the breaker's tests on a free-threaded Python: make test-3.13t
	@$(call environment,.venv-$*t,requirements-breaker.lock,$*t)
	@.venv-$*t/bin/python -m pytest $(parallel) --confcutdir=tests/unit/infra/resilience \
		-p example_service.infra.resilience.testing $(without_hypothesis) \
		tests/unit/infra/resilience $(ARGS)

coverage: ## Run the same on 3.14; it must reach every line and branch of the breaker
	@$(call environment,.venv-3.14,requirements-dev.lock,3.14)
	@.venv-3.14/bin/python -m coverage run -m pytest $(parallel) -m $(on_each_python) $(ARGS)
	@.venv-3.14/bin/python -m coverage combine --quiet
	@.venv-3.14/bin/python -m coverage report

lint: environment ## Check style, types, import contracts, image and compose file; list all findings
	@.venv/bin/python scripts/lint.py

format: environment ## Format the code, and correct what can be corrected by a program
	@.venv/bin/ruff check --fix-only --quiet
	@.venv/bin/ruff format

new: ## Make a project of your own: make new NAME=orders DIR=../orders (HISTORY=keep)
	@python=$$(scripts/find-python.sh) && "$$python" -m scripts.template.new "$$NAME" "$$DIR" "$$HISTORY"

rename: ## Give this project another name: make rename NAME=orders
	@python=$$(scripts/find-python.sh) && "$$python" -m scripts.template.rename "$$NAME"

without: ## Remove parts that you do not need: make without PART=dashboard
	@python=$$(scripts/find-python.sh) && "$$python" -m scripts.template.without "$$PART"

update: environment ## Bring later changes of the template into a project made from it
	@.venv/bin/python -m scripts.template.update

bench: environment-bench ## Measure the breaker beside its rivals
	@.venv-bench/bin/python -m benchmarks $(ARGS)

.PHONY: chaos
chaos: environment ## Kill the service under load, hundreds of times, and count the charges
	@.venv/bin/python -m tests.chaos $(ARGS)

reference: environment ## Write docs/api.md from the breaker's signatures and docstrings
	@.venv/bin/python -m scripts.reference

.PHONY: screenshots
screenshots: environment ## Take pictures of the dashboard in light, dark and on a phone
	@.venv/bin/python -m tests.dashboard.screenshots

mutation: environment-mutation ## Change the breaker's rules bit by bit and see a test fail each time
	@.venv-mutation/bin/mutmut run --max-children 1 $(ARGS)
	@.venv-mutation/bin/mutmut results

lock: ## Write the locks again, with uv (ARGS=--upgrade for newer releases)
	$(compile) $(ARGS) pyproject.toml --extra redis --output-file requirements.lock
	$(compile) $(ARGS) pyproject.toml --group dev --output-file requirements-dev.lock
	$(compile) --group breaker --constraints requirements-dev.lock \
		--output-file requirements-breaker.lock
	$(compile) $(ARGS) pyproject.toml --group bench --output-file requirements-bench.lock
	$(compile) $(ARGS) pyproject.toml --group mutation --output-file requirements-mutation.lock

clean: ## Delete the environments and caches
	rm -rf .venv .venv-* mutants .coverage .coverage.* .hypothesis .*_cache

environment:
	@$(call environment,.venv,requirements-dev.lock)

environment-run:
	@$(call environment,.venv-run,requirements.lock)

environment-bench:
	@$(call environment,.venv-bench,requirements-bench.lock)

environment-mutation:
	@$(call environment,.venv-mutation,requirements-mutation.lock)
