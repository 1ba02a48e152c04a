.PHONY: run test test-long bench fuzz simulation simulate simulate-bugs lint docs

# State, certificates and the token stay in .fleetwright; Ctrl-C stops it, the next run resumes.
run:
	cargo run --locked --package fleetwright -- up examples-repo --data .fleetwright/data

# What releases have and a build at hand does not: large libraries of clouds.
FEATURES = --features fleetwright/aws

TOOLS = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/fleetwright/tools

# Tests wait more than they work: three at a time for each processor. A test whose emulator or tool is missing is skipped by name.
test: export RUST_TEST_THREADS ?= $(shell expr 3 \* $$(getconf _NPROCESSORS_ONLN))
test: export PATH := $(TOOLS):$(TOOLS)/bin:$(PATH)
test:
	.ci/install-tools $(TOOLS) || echo "tests that need what is missing are skipped"
	cargo test --workspace --locked $(FEATURES)

# What needs a server that is built first, once: versions of EKS.
test-long: export PATH := $(TOOLS):$(PATH)
test-long:
	.ci/install-fakecloud $(TOOLS)
	FLEETWRIGHT_NO_SKIPS=1 cargo test --workspace --locked $(FEATURES) --test long

# As releases are built; a few minutes. ARGS="--machines 200 --objects 2000" makes it small; see docs/benchmarks.md.
bench:
	cargo bench --locked --package fleetwright --features aws --bench bench -- $(ARGS)

# Each target for a minute, or for SECONDS=n; needs cargo-fuzz.
fuzz:
	tests/fuzz/run $(SECONDS)

SEEDS = 200
FIRST_SEED = 1
# With the seeded mistakes built in, none of which is made unless it is chosen: one build serves both.
SIMULATION = --locked --profile simulation --package fleetwright-simulation --features seeded-bugs --quiet

simulation:
	cargo build $(SIMULATION)

# Simulated half-days of whole fleets, one for each seed, with faults; ARGS=--keep-going goes on after a failure.
simulate:
	cargo run $(SIMULATION) -- --seeds $(SEEDS) --first-seed $(FIRST_SEED) $(ARGS)

# Each seeded mistake is made until a seed finds it, within SEEDS seeds.
simulate-bugs:
	cargo run $(SIMULATION) -- --each-bug --seeds $(SEEDS) --first-seed $(FIRST_SEED)

FUZZ = --manifest-path tests/fuzz/Cargo.toml

lint:
	cargo fmt --all --check
	cargo fmt $(FUZZ) --check
	cargo fmt --manifest-path tests/fakecloud/Cargo.toml --check
	cargo clippy --workspace --all-targets --locked $(FEATURES) -- -D warnings
	cargo clippy $(FUZZ) --all-targets --locked --target-dir $(or $(CARGO_TARGET_DIR),target) -- -D warnings

# Pages that are written from the code; tests hold them to it.
docs:
	UPDATE_DOCS=1 cargo test --locked --package fleetwright the_installed_objects
	UPDATE_DOCS=1 cargo test --locked --package fleetwright the_page_of_commands
	UPDATE_DOCS=1 cargo test --locked --package fleetwright-gitops the_schema_of_plans
	UPDATE_DOCS=1 cargo test --locked --package fleetwright-tests the_reference_of_kinds
