# `make` alone lists the targets. Where cargo puts its output, we look for the program.
TARGET := $(or $(CARGO_TARGET_DIR),target)
SUBLEDGER := $(TARGET)/release/subledger
DATA := $(or $(SUBLEDGER_DATA_DIR),.subledger)

.DEFAULT_GOAL := help
.PHONY: help build run test test-long mutants bench bench-growth lint clean-data toolchain postgres

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: toolchain ## build the release program
	cargo build --release

run: build postgres ## build, provide a Postgres, and show the service at work on http://127.0.0.1:8080
	$(SUBLEDGER) demo

test: toolchain postgres ## run all tests
	cargo test --workspace --all-targets

test-long: toolchain postgres ## run all tests, those marked as long (#[ignore]) too
	cargo test --workspace --all-targets -- --include-ignored

mutants: toolchain postgres ## break the rules one by one (tests/mutants), and see that the tests notice
	scripts/mutants.sh

bench: build postgres ## run the benchmarks beside their yardsticks
	$(SUBLEDGER) bench --output BENCHMARKS.md

bench-growth: build postgres ## run the one that writes ten million events
	$(SUBLEDGER) bench --only growth-10m --output docs/benchmark-growth.md

lint: toolchain ## check format, clippy and, if cargo-deny is installed, the dependency policy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check bans licenses sources; \
	else echo "cargo-deny is not installed: dependency policy not checked (cargo install cargo-deny)"; fi

# Only the files the embedded server made, in case the folder holds others; and only when nobody uses them.
clean-data: ## remove the data of the embedded Postgres
	@for folder in "$$(cat '$(DATA)/location' 2>/dev/null)" '$(DATA)'; do \
		[ -d "$$folder" ] || continue; \
		if [ -e "$$folder/lock" ] && ! flock --nonblock "$$folder/lock" true; then \
			echo "$$folder is in use: stop the service first"; exit 1; fi; \
		(cd "$$folder" && rm -rf cluster cluster.unfinished-* password port server.log server.log.old location lock); \
		if rmdir "$$folder" 2>/dev/null; then echo "removed $$folder"; \
		else echo "emptied $$folder of the server's files; the others stay"; fi; \
	done

toolchain:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs"; exit 1; }
	@command -v cc >/dev/null || { echo "a C compiler and linker is missing: apt-get install -y gcc libc6-dev"; exit 1; }

postgres:
ifndef DATABASE_URL
	@scripts/provide-postgres.sh >/dev/null
endif
