# What a person or the CI types. Everything is installed on first use (Debian 12; needs root, or the packages in place) and stamped
# under .venv/stamps, so that a second run starts at once.

SHELL := /bin/bash
# the packages that only the tests need come while pip builds and the linters run
MAKEFLAGS += --jobs=2
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
# by the environment, so that the versions hold for what builds a package, too
PIP := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt .ci/again $(BIN)/pip install --quiet --disable-pip-version-check

# to build pyfuse3 and to mount
RUN_PACKAGES := fuse3 attr libfuse3-dev pkg-config gcc libc6-dev python3-venv python3-dev ca-certificates
# a real Ceph RADOS gateway, the programs that the tests run on the mount, s3fs to trade files with, and a systemd to boot
TEST_PACKAGES := radosgw ceph-mon ceph-osd ceph-mgr ceph-common s3fs rsync zip unzip sqlite3 git vim-tiny openssl procps curl \
	systemd systemd-sysv systemd-container dbus util-linux e2fsprogs

DIR ?= $(HOME)/zosfs-demo
PYTEST_ARGS ?=
# each has servers of its own; files of tests stay together, because they share mounts
WORKERS ?= 2
SIDE_BY_SIDE := --numprocesses $(WORKERS) --dist loadfile
BENCH_ARGS ?=

.PHONY: test test-long lint demo bench clean

test: lint $(STAMPS)/apt-test
	$(BIN)/python -m pytest -m "not long" $(SIDE_BY_SIDE) $(PYTEST_ARGS)

test-long: lint $(STAMPS)/apt-test
	$(BIN)/python -m pytest --timeout 7200 --hypothesis-profile=search $(PYTEST_ARGS)

lint: $(STAMPS)/dev
	$(BIN)/ruff check .
	$(BIN)/mypy

demo: $(STAMPS)/demo
	@$(BIN)/python -m zosfs demo "$(DIR)"

bench: $(STAMPS)/bench
	$(BIN)/python -m bench $(BENCH_ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(STAMPS)/apt-run: .ci/packages
	@.ci/packages $(RUN_PACKAGES)
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/apt-test: $(STAMPS)/apt-run
	@.ci/packages $(TEST_PACKAGES)
	@touch $@

$(STAMPS)/demo: $(STAMPS)/apt-run pyproject.toml constraints.txt
	$(PIP) -e ".[demo]"
	@touch $@

$(STAMPS)/dev: $(STAMPS)/apt-run pyproject.toml constraints.txt
	$(PIP) -e ".[dev]"
	@touch $@ $(STAMPS)/demo

$(STAMPS)/bench: $(STAMPS)/apt-test $(STAMPS)/demo pyproject.toml constraints.txt
	$(PIP) -e ".[demo,bench]"
	@touch $@
