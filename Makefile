# Everything runs from .venv in this folder; nothing is installed anywhere else but by `setup`.
.DEFAULT_GOAL := help
.PHONY: help venv setup demo test escape conformance soak fuzz lint browser screenshot wine bench clean
.DELETE_ON_ERROR:
unexport PYTHONPATH PYTHONHOME

bin := .venv/bin
# -P: a file in the current folder is never imported in place of a library.
python := $(bin)/python -P
# Newer than what it depends on means: nothing to install, nothing to download.
stamp := .venv/.installed
browser_stamp := .venv/.installed-browser
fuzz_stamp := .venv/.installed-fuzz

help: ## Print this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "make %-11s  %s\n", $$1, $$2}'

venv: $(stamp) ## Create .venv with the package and its tools (PYTHON=... chooses the interpreter)

$(stamp): pyproject.toml constraints.txt .ci/make-venv $(wildcard kernelspec/*)
	@.ci/make-venv
	@touch $@

setup: venv ## Fetch and verify what the sandbox needs: the MXC executable, bubblewrap, a runtime
	@$(bin)/mxc-kernel setup --extra demo --constraints constraints.txt

demo: setup ## Run every notebook in notebooks/ in the real sandbox and check what came out
	@$(python) notebooks/demo

test: setup ## Run the test suite; attacks, conformance and the browser have targets of their own
	@$(python) -m pytest -q

escape: setup ## Attack the sandbox and the kernel in every way there is a test for; takes some minutes
	@$(python) -m pytest -q tests/escape

conformance: setup ## Run the tests of ipykernel, nbclient and papermill against this kernel
	@$(python) -m tests.conformance

soak: setup ## Long runs: sessions, storms, chaos, relaunches, killed hosts, secrets; hours
	@echo "10,000 cells, 20 storms, 500 cells under chaos, 2,000 relaunches, 100 killed hosts:"
	@MXC_KERNEL_CELLS=10000 MXC_KERNEL_STRESS=20 MXC_KERNEL_CHAOS_CELLS=500 \
		MXC_KERNEL_RELAUNCHES=2000 MXC_KERNEL_KILLED_HOSTS=100 $(python) -m pytest -v \
		tests/kernel/test_long_sessions.py tests/kernel/test_message_order.py tests/kernel/test_chaos.py
	@echo "10,000 splits of each secret:"
	@MXC_KERNEL_SPLITS=10000 $(python) -m pytest -v tests/output/test_redaction.py -k random_splits

fuzz: $(fuzz_stamp) ## Fuzz the frame decoder and the gate for FUZZ_SECONDS (600), guided by coverage
	@$(python) -m tests.fuzz --only frames --seconds $$(( $(or $(FUZZ_SECONDS),600) / 10 ))
	@$(python) -m tests.fuzz --only play --seconds $(or $(FUZZ_SECONDS),600)

$(fuzz_stamp): $(stamp)
	@$(bin)/python -E -m pip install --quiet --no-input --disable-pip-version-check \
		-c constraints.txt -e '.[fuzz]'
	@touch $@

lint: venv ## Check style (ruff) and types (mypy)
	@$(bin)/ruff check --quiet .
	@$(bin)/ruff format --check --quiet .
	@$(bin)/mypy

browser: setup $(browser_stamp) ## Attack a real JupyterLab in a real Chromium; pictures go to build/pictures
	@$(python) -m pytest -q tests/browser

$(browser_stamp): $(stamp) .ci/make-browser
	@.ci/make-browser
	@touch $@

screenshot: setup $(browser_stamp) ## Take the picture for README anew
	@$(python) -m tests.browser.screenshot docs/blocked-write.png --home /home/ada

wine: setup ## Have the real wxc-exec.exe judge requests for Windows; skipped where there is no Wine
	@$(python) -m pytest -q tests/wine

bench: setup ## Measure against plain ipykernel
	@$(python) -m benchmarks
	@$(python) -m benchmarks.redaction
	@$(python) -m benchmarks.audit

clean: ## Remove .venv and every cache in this folder
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
