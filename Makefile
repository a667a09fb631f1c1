# The front doors. Each does what its line of `make help` says; CI runs the same (`.ci/run`).

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup build demo demo-bgp test bench bench-bgp interop fmt clippy docs deny tidy fuzz unit

export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

TARGET := x86_64-unknown-linux-musl
PROGRAMS := target/$(TARGET)/release
# What needs root asks for it; everything else runs as you.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## install what building, testing and the demo need (Debian packages, Rust's parts, bpf-linker, cargo-deny)
	@scripts/setup.sh

# The thin programs are built by themselves, so that the features of the large one do not come into them.
build: ## build the static programs isthmus, isthmus-cni and isthmus-garden
	cargo build --release --locked --target $(TARGET) -p isthmus
	cargo build --release --locked --target $(TARGET) -p isthmus-cni -p isthmus-garden
	@ls -l $(PROGRAMS)/isthmus $(PROGRAMS)/isthmus-cni $(PROGRAMS)/isthmus-garden

demo: setup build ## three platforms on this machine: up, the checked tour, down
	@scripts/demo.sh show

demo-bgp: setup build ## two platforms find each other through a BGP reflector, without tunnel: up, the checked tour, down
	@scripts/demo.sh bgp

test: ## everything that CI checks, from formatting to the demo; the last line counts
	@scripts/test.sh

bench: setup build ## measure beside other ways to connect containers; writes target/bench/dataplane.json
	$(SUDO) $(PROGRAMS)/isthmus bench

bench-bgp: setup build ## measure our BGP reflector beside BIRD, FRR and GoBGP; writes target/bench/bgp.json
	$(SUDO) $(PROGRAMS)/isthmus bench-bgp

interop: setup ## try our speaker with BIRD, FRR and GoBGP in every role, and print the matrix
	cargo build --locked -p isthmus-cni
	$(if $(SUDO),CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=$(SUDO)) cargo test --locked -p isthmus --test interop -- --nocapture

fmt: ## check the formatting
	cargo fmt --all --check

clippy: ## check with all lints, warnings are errors
	cargo clippy --locked --workspace --all-targets --all-features -- -D warnings

docs: ## check the documentation, warnings are errors
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --all-features --no-deps --document-private-items

deny: ## check licences, sources and second choices of dependencies
	cargo deny --locked check --hide-inclusion-graph bans licenses sources

tidy: ## check what lints cannot: tiers of crates, dead files, error pages, sizes
	cargo xtask tidy

# Nothing is linked, so libFuzzer itself need not be compiled: any path will do.
fuzz: ## check that the fuzz targets still compile (fuzz/README.md says how to run them)
	CUSTOM_LIBFUZZER_PATH=/libfuzzer.a cargo check --locked --manifest-path fuzz/Cargo.toml --target-dir target

unit: ## run the tests that need no privilege
	cargo test --locked --workspace --all-features --lib --bins
	cargo test --locked --workspace --all-features --doc
