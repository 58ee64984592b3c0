#!/usr/bin/env bash
# Kills the three servers that keep things, again and again, for MINUTES (default 5), makes their
# disks fail, and prints what they went through and what was lost. tests/e2e/crash.rs and
# tests/e2e/faults are what it runs.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
minutes=${1:-5}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# The three crash tests run at the same time; each fills the time it is given.
QUARTET_TORTURE_SECS=$((minutes * 60)) cargo test --release -p tests --test e2e -- \
    --nocapture crash:: faults:: | tee "$log" | grep --line-buffered -o 'torture: .*' || true
grep -E '^test .*faults::.* ok$' "$log" | sort || true
awk '/crashes,/ { for (i = 1; i < NF; i++) { if ($(i + 1) ~ /^crashes/) crashes += $i
                                            if ($(i + 1) == "acknowledged") records += $i } }
     / lost,/   { for (i = 1; i < NF; i++) if ($(i + 1) == "lost,") lost += $i }
     /^test .*faults::.* ok$/ { faults++ }
     END { printf "%d crashes, %d kinds of fault, %d records acknowledged, %d lost\n",
                  crashes, faults, records, lost }' "$log"
grep -q '^test result: ok' "$log"
