.PHONY: run test lint

# State, certificates and the token stay in .fleetwright; Ctrl-C stops it, the next run resumes.
run: .fleetwright/tokens
	cargo run --locked --package fleetwright -- apiserver --data .fleetwright/data --token-auth-file .fleetwright/tokens

.fleetwright/tokens:
	mkdir -p -m 0700 .fleetwright
	umask 077 && printf '%s,admin,admin,"system:masters"\n' "$$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')" > $@

test:
	cargo test --workspace --locked

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
