# What there is to do with this tree. Everything that needs root says so.
#
#   make setup      install what build, demo and tests need (apt; root)
#   make build      the programs, for this machine's C library, in target/release
#   make dist       the agent as it is shipped, static against musl, in target/dist (root, to install the compiler)
#   make dist-cross  the agent for arm64 and armhf, run under qemu through whole cases (root; a quarter of an hour)
#   make packages   DEB and RPM of agent and build tool, in target/packages, as lintian and rpmlint want them (root)
#   make test-packages  their life: installed, upgraded, removed, purged; booted under systemd; the agent patches itself (root)
#   make test-dashboard  the fleet dashboard in a real Chromium, with 10,000 nodes; pictures in target/dashboard (root)
#   make test-monitoring  an alert fires for a quarantined node and is resolved, with the distribution's Prometheus (root)
#   make test-kube  policies in a real Kubernetes API server, and the bridge that writes their status (root; builds that server)
#   make demo       the whole path on this machine with real packages (root)
#   make demo-rpm   the same with a node of rpm and dnf (root)
#   make demo-fleet a fleet of 50 real agents: a policy by pull request, a rollout, an automatic halt, the revert; pictures of
#                   the dashboard in .cache/demo-fleet (root; ten minutes)
#   make failure-table  each failure case for each package manager: exit code, and the node's state, proved (root)
#   make test       formatting, lints, unit and end-to-end tests, a minute of fuzzing (root)
#   make attacks    every attack that must fail, as a table: exit code, message, and whether the node changed (root)
#   make attacks-api  every attack on the fleet server's API, as a table
#   make bench-api  what one fleet server takes, on SQLite and on PostgreSQL, in one run with ratios
#   make test-kill  kill -9 of the agent and its children, 500 times at random, from fetch to rollback (root; half an hour;
#                   KILLS=50 make test-kill: some minutes; PRESTAGE_SEED=N does the same again)
#   make test-static test-kube  the end-to-end cases of TLS, proxies, names and package managers with the shipped, static agent (root)
#   make test-long  the cases that take minutes: bundles over 4 GiB (root)
#   make test-vm    real machines: restore points, boots, power cuts (root; hours without KVM;
#                   CASE='WORD...' make test-vm: only the cases with such a word; --list shows them)
#   make fuzz       every reader of foreign bytes for ten minutes each
#   make bench-fetch  how caps are kept, speed beside curl, idle polls (root)
#   make bench      speed and memory beside the ordinary tools (root)
#   make bench-size what the shipped agent takes: bytes, memory of each verb, CPU; fails where the budget is exceeded (root)
#   make bench-peers  size, memory and CPU beside rauc, swupdate, casync, unattended-upgrades and dnf (root)
#   make bench-refresh  what a refresh costs a node when the repository has 1,000 bundles
#   make bench-fleet  hundreds of agents on thin lines that fail, beside the usual scripts (root; 20 minutes;
#                   STORES=6 NODES=2 make bench-fleet: 90 seconds)
#   make bench-delta  what deltas save on a real kiosk with kernel and browser, and that its files are the same (root)
#   make bench-rpm  making a bundle of 600 RPM packages beside reposync, createrepo_c, tar, sha256sum and gpg (root)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.PHONY: all setup build demo test attacks test-kill test-long lint fuzz bench bench-fetch bench-fleet clean demo-rpm demo-fleet failure-table bench-rpm dist dist-cross bench-refresh test-vm packages test-packages test-monitoring bench-size bench-peers test-dashboard bench-delta attacks-api bench-api test-static

nextest := $(shell command -v cargo-nextest 2>/dev/null)
deny := $(shell command -v cargo-deny 2>/dev/null)

all: build

setup:
	@scripts/setup.sh

build:
	cargo build --release -p prestage -p prestage-build
	cargo build --profile server -p prestage-fleet

dist: setup
	@scripts/dist.sh

dist-cross: setup
	@scripts/node-root.sh minimal >/dev/null
	cargo build --quiet --workspace --bins --tests
	scripts/dist-cross.sh

packages: setup
	@scripts/dist.sh $$(sed '/^#/d' packaging/programs)
	scripts/packages.sh check

# Prometheus and the node exporter are installed for it, and not started as services.
test-monitoring: setup
	@. scripts/lib.sh
	install_missing "to test alerts and dashboard" prometheus prometheus-node-exporter
	scripts/node-root.sh minimal >/dev/null
	cargo build --quiet --workspace --bins --tests
	cargo test -p prestage-tests --test e2e -- --ignored --nocapture monitoring::

# Chromium is installed for it, and axe-core fetched.
test-dashboard: setup
	@cargo build --quiet -p prestage-build -p prestage-fleet
	tests/dashboard/run

# A rebuild beside the first build, to upgrade to.
test-packages: packages
	@. scripts/lib.sh
	install_missing "to boot nodes" systemd-container
	scripts/node-root.sh booted >/dev/null
	scripts/rpm-root.sh booted >/dev/null
	PACKAGES=$(CURDIR)/target/packages-rebuilt REVISION=2 scripts/packages.sh
	cargo build --quiet --workspace --bins --tests
	PRESTAGE_PACKAGES=$(CURDIR)/target/packages PRESTAGE_PACKAGES_REBUILT=$(CURDIR)/target/packages-rebuilt \
	    cargo test -p prestage-tests --test e2e -- --ignored --nocapture packaged::

# etcd is installed for it, and Kubernetes' API server for custom resources built out of the distribution's sources.
test-kube: setup
	@. scripts/lib.sh
	install_missing "to keep what Kubernetes' API server serves" etcd-server
	server=$$(scripts/kube-apiserver.sh)
	scripts/node-root.sh minimal >/dev/null
	cargo build --quiet --workspace --bins --tests
	cargo build --quiet -p prestage-fleet --features kube --bin prestage-fleet --target-dir target/kube
	KUBE_APISERVER=$$server PRESTAGE_FLEET_KUBE=$(CURDIR)/target/kube/debug/prestage-fleet \
	    cargo test -p prestage-tests --test e2e -- --ignored --nocapture kube::

demo: setup
	@cargo build --release -p prestage -p prestage-build -p prestage-tests
	scripts/demo.sh

demo-rpm: setup
	@cargo build --release -p prestage -p prestage-build -p prestage-tests
	scripts/demo-rpm.sh

demo-fleet: setup
	@cargo build --quiet -p prestage -p prestage-build -p prestage-fleet -p prestage-tests --bins
	scripts/demo-fleet.sh $(NODES)

failure-table: setup
	@scripts/node-root.sh minimal >/dev/null
	scripts/rpm-root.sh >/dev/null
	cargo build --quiet --release -p prestage -p prestage-build
	cargo build --quiet -p prestage-tests # a case that fails must not end the program, as it does in release builds
	PRESTAGE_BIN=$(CURDIR)/target/release target/debug/prestage-lab failure-table

lint: setup
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	cargo clippy -p prestage-conformance --features ecdsa --all-targets --quiet -- -D warnings
	shellcheck -x scripts/*.sh packaging/signers/openssl .ci/run tests/python-tuf/run tests/dashboard/run conformance/prestage-conformance tests/vm/guest/bin/* tests/vm/guest/build-disk
	$(if $(deny),cargo deny --offline --log-level error check bans licenses sources)

# The node root first, and apart from the tests, so that none of them waits for the archive.
test: lint
	@scripts/node-root.sh minimal >/dev/null
	scripts/rpm-root.sh >/dev/null
	cargo build --quiet --workspace --bins --tests
	tests/python-tuf/run
	$(if $(nextest),cargo nextest run --config-file tests/nextest.toml --workspace,cargo test --workspace --no-fail-fast)
	scripts/fuzz.sh short

attacks: setup
	@scripts/node-root.sh minimal >/dev/null
	cargo build --quiet --workspace --bins --tests
	cargo test --quiet -p prestage-tests --test e2e -- attacks::every_attack --nocapture

attacks-api: setup
	@cargo test --quiet -p prestage-fleet --test api -- attacks::every_attack --nocapture

bench-api: setup
	@cargo bench --quiet --profile server -p prestage-fleet --bench load

test-static: dist
	@scripts/node-root.sh minimal >/dev/null
	scripts/rpm-root.sh >/dev/null
	cargo build --quiet --workspace --bins --tests
	cargo build --quiet --release -p prestage-build
	scripts/test-static.sh

test-long: setup
	@scripts/node-root.sh minimal >/dev/null
	cargo build --quiet --workspace --bins --tests
	cargo test -p prestage-tests --test e2e -- --ignored --test-threads 1 --skip packaged:: --skip monitoring:: --skip roots::

test-kill: setup
	@scripts/node-root.sh minimal >/dev/null
	scripts/rpm-root.sh >/dev/null
	cargo build --quiet --release -p prestage -p prestage-build -p prestage-tests
	PRESTAGE_BIN=$(CURDIR)/target/release target/release/prestage-lab kill $(or $(KILLS),500)

# Unoptimised, because a case that fails must unwind: its machine is switched off and the next one runs.
test-vm: dist
	@cargo build --quiet -p prestage-build -p prestage -p prestage-tests
	PRESTAGE_BIN=$(CURDIR)/target/debug target/debug/prestage-vm $(CASE)

bench: setup
	@cargo build --release -p prestage -p prestage-build -p prestage-tests
	scripts/bench.sh

bench-fetch: dist
	@cargo build --release -p prestage-build -p prestage-tests
	scripts/bench-fetch.sh

bench-size: dist
	@cargo build --release -p prestage-build -p prestage-tests
	scripts/bench-size.sh

bench-peers: dist
	@cargo build --release -p prestage-build -p prestage-tests
	scripts/bench-peers.sh

bench-delta: dist
	@cargo build --release -p prestage-build -p prestage-tests
	scripts/bench-delta.sh

bench-refresh: dist
	@cargo build --release -p prestage-build -p prestage-tests
	tests/python-tuf/thousand target/dist/prestage

bench-fleet: dist
	@cargo build --release -p prestage-build -p prestage-fleet-bench
	scripts/bench-fleet.sh

bench-rpm: setup
	@cargo build --release -p prestage-build -p prestage-tests
	scripts/bench-rpm.sh

fuzz: setup
	scripts/fuzz.sh 600

clean:
	cargo clean
	rm -rf .cache
