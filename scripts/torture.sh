#!/usr/bin/env bash
# Cuts off a large upload a hundred times, and a large folder twenty times, which takes some minutes;
# then, for MINUTES (default 5), again and again: kills the three servers that keep things, with others
# looking at the database and with the logs rotated; kills, stops and cuts off two queue servers and the two
# PostgreSQL they are on; moves their files away; sets their clocks wrong; restarts them while clients wait;
# makes their disks fail, and that of the file server under uploads of all kinds, which is mounted anew
# before it is looked at. Prints what they went through and what was lost.
# tests/e2e/interrupted_uploads.rs, tests/e2e/whole_folders.rs, tests/e2e/torture and tests/e2e/faults are
# what it runs.
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
QUARTET_CUTS=1000:100 run interrupted_uploads::
# And a folder with a file of five gigabytes, which comes back in three ways.
QUARTET_FOLDER=5000:5120 run whole_folders::
end=$(($(date +%s) + minutes * 60))

# Each of the torture tests fills the time it is given; the failing disks go on until then.
QUARTET_TORTURE_SECS=$((minutes * 60)) run torture:: &
torture=$!
while
    run faults::
    [ "$passed" = yes ] && [ "$(date +%s)" -lt "$end" ]
do :; done
wait "$torture"
if [ "$passed" = no ] || grep -q '^test .*FAILED$' "$log"; then
    echo 'a test failed, so the figures would mean nothing' >&2
    exit 1
fi
# The figures are words of the lines of the tests: "12 crashes, 3456 acknowledged".
awk '/torture: / { for (i = 1; i < NF; i++) { word = $(i + 1); sub(/,$/, "", word)
                                           if ($i ~ /^[0-9]+$/) sum[word] += $i } }
     /^test .*faults::.* ok$/ { faults++ }
     /skipped: /  { skipped++ }
     END { printf "%d crashes, %d looks, %d rotations, %d faults of pairs, %d moves, %d wrong clocks, %d restarts, ",
                  sum["crashes"], sum["looks"], sum["rotations"], sum["faults"], sum["moves"], sum["rounds"],
                  sum["restarts"]
           printf "%d disk failures, %d fault tests (%d skipped), %d records acknowledged, %d lost\n",
                  sum["failures"], faults, skipped, sum["acknowledged"], sum["lost"] }' "$log"
