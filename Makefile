.PHONY: run test lint bench

# Starts the engine on the example fleet; Ctrl-C stops it, the next run resumes.
run:
	cargo run --locked --quiet --package fleetwright -- up examples-repo

test:
	cargo test --workspace --locked

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

bench:
	cargo bench --locked --package fleetwright-tests
