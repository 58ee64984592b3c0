#!/usr/bin/env bash
# Measures the servers side by side with redis-server, beanstalkd, PostgreSQL and nginx, and prints a
# Markdown table (see crates/bench/README.md). With --against DIR it compares with the servers of an earlier
# build instead, which are in DIR (git worktree add ../before COMMIT, cargo build --release there). All
# arguments go to the bench (see --help); a first argument --install installs the others with apt-get,
# without letting them start as services.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What policy-rc.d says, Debian's packages obey: 101 is "start nothing".
install() (
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    apt-get update
    apt-get install --yes --no-install-recommends \
        redis-server beanstalkd nginx-light netcat-openbsd postgresql
)

if [ "${1:-}" = --install ]; then
    shift
    install
    [ $# -gt 0 ] || exit 0
fi
# Only so can the queue keep its messages in PostgreSQL. An earlier build is compared as it is by default.
features=(--features queue-server/postgres)
case " $* " in *' --against '*) features=() ;; esac
cargo build --release --quiet --workspace --bins "${features[@]}"
exec "${CARGO_TARGET_DIR:-target}/release/bench" "$@"
