# What the sections of demo.sh are written with.

steps=0          # how many steps there were
failed=()        # the headings of those that were not as expected
heading=         # the heading of the step that runs
wrong=           # what was wrong with it so far
output=          # what the last command printed
server=          # HOST and PORTs of the server started last
client=          # the process of the client started last
declare -A pids  # of the servers, by the name of their log
bold='' green='' red='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
fi

# ---- before and after

refuse() {
    printf 'demo.sh: %s\n' "$1" >&2
    exit 2
}

# The title of a section stands in its file.
list_sections() {
    local name
    for name in "${sections[@]}"; do
        printf '%-8s %s\n' "$name" "$(sed -n "s/^section '\(.*\)'\$/\1/p" "scripts/demo/$name.sh")"
    done
}

is_section() {
    [[ " ${sections[*]} " == *" $1 "* ]]
}

# Every source that a step names must exist.
check_sources() {
    local path
    for path in $(grep -ohE '(crates|tests)/[A-Za-z0-9_/.-]+\.(rs|py)' scripts/demo/*.sh | sort -u); do
        [ -f "$path" ] || refuse "a step names $path, which does not exist"
    done
}

# Builds the programs, and enters a temporary folder. QUARTET_PROGRAMS may name a folder with programs
# that are built already.
prepare() {
    local need program built
    for need in cargo python3; do
        command -v "$need" >/dev/null || refuse "$need is needed"
    done
    if [ -z "${QUARTET_PROGRAMS:-}" ]; then
        printf '$ cargo build --workspace --bins\n'
        cargo build --workspace --bins
    fi
    built=$(cd "${QUARTET_PROGRAMS:-${CARGO_TARGET_DIR:-target}/debug}" && pwd)
    work=$(mktemp -d "${TMPDIR:-/tmp}/quartet-demo.XXXXXX")
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
    trap 'exit 141' PIPE
    mkdir "$work/bin" "$work/tests"
    # Links, because a build that runs meanwhile may replace the programs.
    for program in {code,queue,history,file}-{server,client}; do
        ln "$built/$program" "$work/bin/" 2>/dev/null || cp "$built/$program" "$work/bin/"
    done
    # The servers write into data/, and downloads come into the current folder: a copy gets both.
    cp -R data "$work/"
    cp -R tests/python "$work/tests/"
    cp scripts/demo/*.py "$work/"
    cd "$work"
    export PATH="$work/bin:$PATH"
    unset RUST_LOG
}

# Ends what this script has started and what still runs, and nothing else.
clean_up() {
    trap '' INT TERM HUP PIPE
    local signal pid
    for signal in TERM KILL; do
        for pid in $(jobs -pr); do kill -s "$signal" "$pid" 2>/dev/null || true; done
        for _ in {1..50}; do
            [ -n "$(jobs -pr)" ] || break
            sleep 0.1
        done
    done
    rm -rf "$work"
}

sum_up() {
    for heading in ${failed[@]+"${failed[@]}"}; do
        printf '%sNOT as expected: %s%s\n' "$red" "$heading" "$plain"
    done
    printf '\n%d of %d steps as expected\n' $((steps - ${#failed[@]})) "$steps"
    [ "${#failed[@]}" = 0 ]
}

# ---- sections and steps

section() {
    printf '\n%s=== %s ===%s\n' "$bold" "$1" "$plain"
}

# step HEADING SENTENCE SOURCE: what is shown next, and which file does it.
step() {
    end_step
    heading=$1
    steps=$((steps + 1))
    printf '\n%s%d. %s%s\n%s\nsource: %s\n\n' "$bold" "$steps" "$1" "$plain" "$2" "$3"
}

# Says how the step went that runs, if one does, and waits for a key if that is wanted.
end_step() {
    if [ -n "$wrong" ]; then
        failed+=("$heading")
        printf '%s  NOT as expected: %s%s\n' "$red" "$wrong" "$plain"
    elif [ -n "$heading" ]; then
        printf '%s  as expected%s\n' "$green" "$plain"
    fi
    if [ -n "$heading" ] && [ "$pause" = yes ]; then
        read -rsn 1 -p '[any key] ' || true
        printf '\r'
    fi
    heading='' wrong=''
}

# ---- commands

# run CODE COMMAND: runs a command line as a person would type it, and shows what it prints. Its
# exit code must be CODE.
run() {
    local code=0
    printf '$ %s\n' "$2"
    output=$(timeout --foreground 60 bash -c "$2" 2>&1 </dev/null) || code=$?
    show
    [ "$code" = 0 ] || printf '[exit code %d]\n' "$code"
    [ "$code" = "$1" ] || wrong="${wrong}the exit code is $code, not $1; "
}

# same FILE FILE: both must have the same bytes.
same() {
    run 0 "cmp $1 $2 && echo the same"
    expect 'the same'
}

# expect TEXT...: all of it must stand in what the last command printed.
expect() {
    local text
    for text in "$@"; do
        [[ $output == *"$text"* ]] || wrong="${wrong}the output lacks '$text'; "
    done
}

# Shows $output, but not pages of it.
show() {
    local lines line
    [ -n "$output" ] || return 0
    mapfile -t lines <<<"$output"
    for line in "${lines[@]:0:12}"; do
        [ "${#line}" -le 160 ] || line="${line:0:160}..."
        printf '%s\n' "$line"
    done
    [ "${#lines[@]}" -le 12 ] || printf '[%d more lines]\n' $((${#lines[@]} - 12))
}

# await COUNT PATTERN FILE [PID]: waits until COUNT lines of FILE match, at most 60 seconds, and no
# longer than the process PID lives.
await() {
    local feed follower code=0
    exec {feed}< <(exec timeout 60 tail -n +1 -s 0.05 ${4:+--pid="$4"} -f "$3" 2>/dev/null)
    follower=$!
    [ "$(grep -c -m "$1" -e "$2" <&"$feed")" = "$1" ] || code=1
    exec {feed}<&-
    kill "$follower" 2>/dev/null || true
    return $code
}

# await_line PATTERN FILE: waits for a line, and shows it.
await_line() {
    printf '$ tail -f %s | grep -m 1 "%s"\n' "$2" "$1"
    await 1 "$1" "$2" || wrong="${wrong}$2 has no line '$1'; "
    output=$(grep -m 1 -e "$1" "$2") || true
    show
}

# ---- servers and clients

# start_server NAME PORTS COMMAND...: starts a server that logs to NAME.log, and waits until it
# listens on that many ports. Sets $server to its HOST and PORTs.
start_server() {
    local log=$1.log ports=$2 pid port
    shift 2
    printf '$ %s 2> %s &\n' "$*" "$log"
    : >"$log"
    "$@" 2>>"$log" </dev/null &
    pid=$!
    # Nothing but its log says when a server is there, and which port it has.
    await "$ports" 'Server started on' "$log" "$pid" || wrong='the server does not listen; '
    output=$(cat "$log")
    show
    server=127.0.0.1
    for port in $(sed -n 's/.*Server started on 127\.0\.0\.1:\([0-9]*\).*/\1/p' "$log"); do
        server="$server $port"
    done
    pids[${log%.log}]=$pid
}

# stop_server NAME: stops a server as a service manager would. It must say so, with exit code 0.
stop_server() {
    local code=0
    printf '$ kill -TERM %d; wait %d; grep Shutting %s.log\n' "${pids[$1]}" "${pids[$1]}" "$1"
    kill -TERM "${pids[$1]}" || true
    wait "${pids[$1]}" || code=$?
    output=$(grep 'Shutting' "$1.log") || true
    show
    expect 'Shutting down server'
    [ "$code" = 0 ] || wrong="${wrong}the exit code is $code, not 0; "
}

# kill_server NAME: gives a server no time to finish anything.
kill_server() {
    kill_process "${pids[$1]}"
}

kill_process() {
    printf '$ kill -9 %d\n' "$1"
    kill -9 "$1"
    wait "$1" 2>/dev/null || true
}

# start_client NAME COMMAND: starts a client whose output goes to NAME.out and NAME.err. Sets $client to
# its process.
start_client() {
    printf '$ %s > %s.out 2> %s.err &\n' "$2" "$1" "$1"
    : >"$1.out" >"$1.err"
    bash -c "exec $2" >"$1.out" 2>"$1.err" </dev/null &
    client=$!
}

# end_client CODE PID NAME: waits for a client, and shows what it has printed. Its exit code must be CODE.
end_client() {
    local code=0
    printf '$ wait %d; cat %s.out %s.err\n' "$2" "$3" "$3"
    wait "$2" || code=$?
    output=$(cat "$3.out" "$3.err")
    show
    [ "$code" = 0 ] || printf '[exit code %d]\n' "$code"
    [ "$code" = "$1" ] || wrong="${wrong}the exit code is $code, not $1; "
}

# await_file PATTERN BYTES: waits until a file is larger than that. No log tells how far a transfer is, so
# this looks again and again.
await_file() {
    printf '$ until [ -n "$(find %s -size +%sc)" ]; do :; done\n' "$1" "$2"
    timeout 60 bash -c "until [ -n \"\$(find $1 -size +$2c 2>/dev/null)\" ]; do sleep 0.01; done" ||
        wrong="${wrong}$1 does not grow; "
}
