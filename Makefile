# Two commands for a newcomer: `make quickstart` and `make test`.
SWIFT ?= swift
export SWIFT_BACKTRACE ?= enable=no

.PHONY: help setup build quickstart quickstop stage sdk tarball deb test show bench fuzz reference clean

help:
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 22

setup:
	@.make/setup build

build: setup ## the release build
	$(SWIFT) build -c release

quickstart: build ## a core, an agent and a first command on this machine
	@.make/quickstart

quickstop: ## ends what quickstart started
	@.make/quickstop

stage: build ## dist/: a relocatable tree for a Debian 12 without Swift
	@.make/stage

sdk: stage ## dist/sdk: what a stranger needs to write a plugin
	@.make/sdk dist/sdk

tarball: sdk ## packages/*.tar.gz: dist/ in one file
	@.make/tarball

deb: stage ## packages/*.deb: the core with its unit, and the agent, for Debian 12
	@.make/deb

test: ## unit and integration tests, and small versions of the proofs
	@.make/setup test
	@.make/test

show: build ## the full proofs of Tests/Show, each with figure, floor and PASS or FAIL
	@.make/setup test
	@.make/show

bench: build ## figures beside their floors, with this machine's description
	@"$$($(SWIFT) build -c release --show-bin-path)/cm-bench" run all

fuzz: ## libFuzzer with the address sanitizer on each parser, FUZZ_SECONDS (60) each
	@for parser in http websocket json archive agent-protocol; do Tests/Fuzz/run $$parser $${FUZZ_SECONDS:-60} || exit 1; done

.PHONY: asan tsan
asan: ## the unit and integration tests under the address sanitizer
	@.make/sanitize address

tsan: ## the unit and integration tests under the thread sanitizer
	@.make/sanitize thread

reference: ## Docs/plugins/reference.md, from the comments of the plugin header
	@.make/plugin-reference

clean:
	rm -rf .build dist packages
