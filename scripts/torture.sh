#!/usr/bin/env bash
# Cuts off a large upload a hundred times, which takes some minutes; then kills the three servers
# that keep things, again and again, for MINUTES (default 5), makes their disks fail, and prints what
# they went through and what was lost. tests/e2e/{cuts,crash}.rs and tests/e2e/faults are what it
# runs.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
minutes=${1:-5}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo build --release --quiet --workspace --bins
cargo test --release --quiet -p tests --test e2e --no-run
passed=yes

# run NAME...: runs these tests, all at once, and shows what they count.
run() {
    cargo test --release -p tests --test e2e -- --nocapture --test-threads=32 "$@" 2>&1 |
        tee -a "$log" | grep --line-buffered -oE 'torture: .*|cuts: .*|skipped: .*|^test .*FAILED$' || true
    grep -q '^test result: ok' <(tail -n 5 "$log") || passed=no
}

# A gigabyte that is uploaded, and cut off a hundred times.
QUARTET_CUTS=1000:100 run cuts::
end=$(($(date +%s) + minutes * 60))

# Each of the three crash tests fills the time it is given; the failing disks go on until then.
QUARTET_TORTURE_SECS=$((minutes * 60)) run crash:: &
crashes=$!
while
    run faults::
    [ "$passed" = yes ] && [ "$(date +%s)" -lt "$end" ]
do :; done
wait "$crashes"
if [ "$passed" = no ] || grep -q '^test .*FAILED$' "$log"; then
    echo 'a test failed, so the figures would mean nothing' >&2
    exit 1
fi
awk '/crashes,/ { for (i = 1; i < NF; i++) { if ($(i + 1) ~ /^crashes/) crashes += $i
                                            if ($(i + 1) == "acknowledged") records += $i } }
     / lost,/   { for (i = 1; i < NF; i++) if ($(i + 1) == "lost,") lost += $i }
     /^test .*faults::.* ok$/ { faults++ }
     /skipped: /  { skipped++ }
     END { printf "%d crashes, %d fault tests (%d skipped), %d records acknowledged, %d lost\n",
                  crashes, faults, skipped, records, lost }' "$log"
