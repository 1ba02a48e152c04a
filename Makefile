.PHONY: run test bench lint docs

# State, certificates and the token stay in .fleetwright; Ctrl-C stops it, the next run resumes.
run:
	cargo run --locked --package fleetwright -- up examples-repo --data .fleetwright/data

test:
	cargo test --workspace --locked

# In release mode; a few minutes. ARGS="--machines 200 --objects 2000" makes it small; see docs/benchmarks.md.
bench:
	cargo bench --locked --package fleetwright --bench bench -- $(ARGS)

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

# Pages that are written from the code; tests hold them to it.
docs:
	UPDATE_DOCS=1 cargo test --locked --package fleetwright the_installed_objects
	UPDATE_DOCS=1 cargo test --locked --package fleetwright the_page_of_commands
	UPDATE_DOCS=1 cargo test --locked --package fleetwright-tests the_reference_of_kinds
