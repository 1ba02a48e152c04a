.PHONY: run test lint

# State, certificates and the token stay in .fleetwright; Ctrl-C stops it, the next run resumes.
run:
	cargo run --locked --package fleetwright -- up examples-repo --data .fleetwright/data

test:
	cargo test --workspace --locked

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
