# The two commands of the README are `make demo` and `make test`; both set up what is missing.

# End-to-end tests mostly wait: more of them than cores may run at a time.
E2E_THREADS ?= 4

# What is also run on the oldest and the newest PostgreSQL. `make test VERSION_TESTS=` runs all on
# them, too.
VERSIONS ?= 14 18
VERSION_TESTS ?= routing:: prepared:: traps::

.PHONY: demo test chaos lint bench setup regress

# A primary, two replicas and pgsplit before them. ARGS: --replicas N, --port P, --load, --keep.
demo:
	@tests/setup.sh server
	@cargo build --release
	@$${CARGO_TARGET_DIR:-target}/release/pgsplit demo $(ARGS)

# Every test. Nextest runs each test in a process of its own, which end-to-end tests don't want:
# they share a cluster (.config/nextest.toml leaves them out).
test: setup
	@if cargo nextest --version >/dev/null 2>&1; then \
	    cargo nextest run && cargo test --doc && \
	    cargo test --test e2e -- --test-threads=$(E2E_THREADS); \
	else \
	    cargo test -- --test-threads=$(E2E_THREADS); \
	fi
	@for version in $(VERSIONS); do \
	    echo "PostgreSQL $$version"; \
	    PGSPLIT_PG_BIN=$(CURDIR)/target/drivers/pg$$version/bin \
	    cargo test --quiet --test e2e -- --test-threads=$(E2E_THREADS) $(VERSION_TESTS) || exit 1; \
	done

# Faults in an order that a seed decides, under clients that check every answer: SECONDS for each of
# SEEDS. What goes wrong goes wrong again with the same seed.
SEEDS ?= 1 2 3 4 5
SECONDS ?= 120
chaos: setup
	@for seed in $(SEEDS); do \
	    PGSPLIT_CHAOS_SEED=$$seed PGSPLIT_CHAOS_SECONDS=$(SECONDS) \
	    cargo test --quiet --test e2e -- --nocapture chaos::random:: || exit 1; \
	done

setup:
	@tests/setup.sh

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

# Criterion benches of the pure parts; then pgsplit beside PgBouncer and beside no proxy.
bench:
	@tests/setup.sh bench
	cargo bench $(if $(ARGS),--bench compare -- $(ARGS),--benches)

# PostgreSQL's own regression tests, directly and through pgsplit: what differs.
regress:
	@tests/setup.sh server
	@cargo build
	@tests/regress.sh
