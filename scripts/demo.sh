#!/usr/bin/env bash
# Builds Quartet, starts the four servers, and walks through what they do: every step says what it
# shows, shows the command and what it printed, and is checked. Needs bash, cargo and python3; the steps
# with curl and wget are left out where they are missing.
#
# Everything happens in a temporary folder with a copy of data/ in it, on free ports, so it can run
# anywhere, and twice at the same time. Neither a process nor a file is left behind.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."

steps=0          # how many steps there were
failed=()        # the headings of those that were not as expected
heading=         # the heading of the step that is going on
wrong=           # what was wrong with it so far
output=          # what the last command printed
server=          # HOST and PORTs of the server started last
client=          # the process of the client started last
bold='' green='' red='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
fi

# Ends what this script started and is still running, and nothing else.
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

section() {
    end_step
    printf '\n%s=== %s ===%s\n' "$bold" "$1" "$plain"
}

# step HEADING SENTENCE: what is shown next.
step() {
    end_step
    heading=$1
    steps=$((steps + 1))
    printf '\n%s%d. %s%s\n%s\n\n' "$bold" "$steps" "$1" "$plain" "$2"
}

# Says how the step went that is going on, if there is one.
end_step() {
    if [ -n "$wrong" ]; then
        failed+=("$heading")
        printf '%s  NOT as expected: %s%s\n' "$red" "$wrong" "$plain"
    elif [ -n "$heading" ]; then
        printf '%s  as expected%s\n' "$green" "$plain"
    fi
    heading='' wrong=''
}

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

# start_server NAME PORTS COMMAND...: starts a server that logs to NAME.log, and waits until it
# listens on so many ports. Sets $server to its HOST and PORTs.
start_server() {
    local log=$1.log ports=$2 pid port started
    shift 2
    printf '$ %s 2> %s &\n' "$*" "$log"
    : >"$log"
    "$@" 2>>"$log" </dev/null &
    pid=$!
    # Nothing but its log says when a server is there, and which port it took.
    for _ in {1..600}; do
        output=$(cat "$log")
        mapfile -t started < <(sed -n 's/.*Server started on 127\.0\.0\.1:\([0-9]*\).*/\1/p' <<<"$output")
        if [ "${#started[@]}" = "$ports" ] || ! kill -0 "$pid" 2>/dev/null; then break; fi
        sleep 0.05
    done
    show
    server=127.0.0.1
    for port in "${started[@]}"; do server="$server $port"; done
    pids[${log%.log}]=$pid
    [ "${#started[@]}" = "$ports" ] || wrong="the server does not listen"
}

# stop_server NAME: stops a server as a service manager would, and shows the end of its log.
stop_server() {
    local code=0
    printf '$ kill -TERM %d; wait %d; tail -n 1 %s.log\n' "${pids[$1]}" "${pids[$1]}" "$1"
    kill -TERM "${pids[$1]}" || true
    wait "${pids[$1]}" || code=$?
    output=$(tail -n 1 "$1.log")
    show
    expect 'Shutting down server'
    [ "$code" = 0 ] || wrong="${wrong}the exit code is $code, not 0; "
}

# start_client COMMAND: starts a client, and goes on. Sets $client to its process.
start_client() {
    printf '$ %s &\n' "$1"
    $1 2>/dev/null </dev/null &
    client=$!
}

declare -A pids  # of the servers, by the name of their log

for need in cargo python3; do
    command -v "$need" >/dev/null || { echo "demo.sh: $need is needed" >&2; exit 2; }
done
printf '$ cargo build --workspace --bins\n'
cargo build --workspace --bins
built=$(cd "${CARGO_TARGET_DIR:-target}/debug" && pwd)

work=$(mktemp -d "${TMPDIR:-/tmp}/quartet-demo.XXXXXX")
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
trap 'exit 141' PIPE
mkdir "$work/bin" "$work/tests"
# Links of our own, for a build that somebody starts meanwhile may replace the programs.
for program in {code,queue,history,file}-{server,client}; do
    ln "$built/$program" "$work/bin/" 2>/dev/null || cp "$built/$program" "$work/bin/"
done
# The servers write into data/, and downloads come into the current folder: a copy takes both.
cp -R data "$work/"
cp -R tests/python "$work/tests/"
cd "$work"
export PATH="$work/bin:$PATH"
unset RUST_LOG

section 'Four servers'

step 'Start the code server' 'Port 0 is any free port; the log says which two it took, for codes and for messages.'
start_server code 2 code-server 0 0 --data-dir codes
code=$server

step 'Start the queue server' 'It speaks TCP and UDP, on one port and over one queue.'
start_server queue 1 queue-server 0 BOTH
queue=$server

step 'Start the history server' 'Its history is a text file in the folder it is given.'
start_server history 1 history-server 0 --data-dir history
history=$server

step 'Start the file server' 'It serves one folder, and here it does not end by itself when nobody asks.'
start_server file 1 file-server 0 --root data --idle-exit 0
file=$server

section 'The code service: one unique code for each UUID, and a log for who holds it'

uuid=67e55044-10b1-426f-9247-bb680e5fe0c8
step 'Ask for a code' 'The server makes a random code for this UUID; both come out on one line.'
run 0 "code-client $code request $uuid"
expect "$uuid "
unique=${output##* }

step 'Ask again' 'The same UUID always has the same code.'
run 0 "code-client $code request $uuid"
expect "$uuid $unique"

step 'Ask in other spellings' 'Capitals, braces or no dashes: it is still the same UUID.'
run 0 "code-client $code request {67E55044-10B1-426F-9247-BB680E5FE0C8}"
expect "$uuid $unique"
run 0 "code-client $code request 67e5504410b1426f9247bb680e5fe0c8"
expect "$uuid $unique"

step 'Leave a message' 'Who knows the code may add a line to the log.'
run 0 "code-client $code send $uuid $unique 'Hello from the demo'"
expect 'Message stored'
run 0 'tail -n 1 codes/messages.log'
expect "$uuid Hello from the demo"

step 'A message of two lines' 'Line breaks are escaped: one message is always one line of the log.'
run 0 "printf 'first\nsecond' | code-client $code send $uuid $unique -"
run 0 'tail -n 1 codes/messages.log'
expect "$uuid first\\nsecond"

step 'A wrong code' 'The server refuses it, and the exit code is 1.'
run 1 "code-client $code send $uuid $uuid 'Let me in'"
expect 'the unique code is not the one of this uuid'

step 'A UUID that nobody has asked a code for' 'Also refused, with another sentence.'
run 1 "code-client $code send 00000000-0000-0000-0000-000000000000 $unique 'Let me in'"
expect 'no code was handed out for this uuid'

step 'Something that is not a UUID' 'The client sees that by itself: wrong usage, exit code 2.'
run 2 "code-client $code request me"
expect "not 'me'"

step 'A message that is too long' 'A message may have 64 KiB; the client sees by itself that this one has more.'
run 2 "head -c 66000 /dev/zero | tr '\0' x | code-client $code send $uuid $unique -"
expect 'is over 65536 bytes'

step 'Fifty clients' 'Without a verb the client is fifty clients, each with a UUID of its own.'
run 0 "code-client $code"
expect 'Client 0: ' 'Client 49: the message is stored'
run 0 'grep -c "Text insertion for index" codes/messages.log'
expect 50

step 'The original Python client' 'It sends Python dicts, not JSON; the server takes both, and answers in HTTP and JSON.'
run 0 "python3 tests/python/code_client.py $code 3"
expect '3 of 3 clients succeeded' '(HTTP with JSON)'

step 'A server for the original Python client' 'With --python-replies a reply is a bare Python dict, which that client expects.'
start_server python 2 code-server 0 0 --data-dir python --python-replies
run 0 "python3 tests/python/code_client.py $server 3"
expect '3 of 3 clients succeeded' '(bare dict)'

step 'No more codes than allowed' 'A second UUID is refused here; the first one still gets its code.'
start_server one 2 code-server 0 0 --data-dir one --max-codes 1
run 0 "code-client $server request $uuid"
run 1 "code-client $server request"
expect 'all 1 codes have been handed out'
run 0 "code-client $server request $uuid"
expect "$uuid "

step 'Stop the code server' 'SIGTERM ends a server in good order.'
stop_server code

step 'Start it again' 'Codes are kept in codes.txt, so they are valid after a restart.'
start_server code 2 code-server 0 0 --data-dir codes
code=$server
run 0 "code-client $code request $uuid"
expect "$uuid $unique"
run 0 "code-client $code send $uuid $unique 'Still me'"

section 'The queue service: the first message in is the first one out'

for transport in TCP UDP; do
    for message in '0 0' '1 41' '2 3000'; do
        bytes=${message#* } message=data/message${message% *}.txt
        step "Send $bytes bytes over $transport" "$message goes to the end of the queue."
        run 0 "queue-client $queue $transport send $message"
        expect "Sent: $bytes bytes"
    done

    step "Send more than 3000 bytes over $transport" 'That is over the limit: the client says so and sends nothing.'
    run 2 "queue-client $queue $transport send data/message3.txt"
    expect 'data/message3.txt exceeds 3000 bytes'

    step "Send the first 3000 of them over $transport" 'If you ask for it, the client cuts the message, and says so.'
    run 0 "queue-client $queue $transport send data/message3.txt --truncate"
    expect 'Sending the first 3000 bytes of data/message3.txt' 'Sent: 3000 bytes'

    step "Receive 0 bytes over $transport" 'An empty message is a message.'
    run 0 "queue-client $queue $transport receive > received.txt; wc -c < received.txt"
    expect 'Received: 0 bytes' $'\n0'

    step "Receive 41 bytes over $transport" 'The message goes to standard output, everything else to standard error.'
    run 0 "queue-client $queue $transport receive"
    expect "$(cat data/message1.txt)" 'Received: 41 bytes'

    step "Receive 3000 bytes over $transport" 'What comes out is what went in, byte for byte.'
    run 0 "queue-client $queue $transport receive > received.txt"
    expect 'Received: 3000 bytes'
    run 0 'cmp received.txt data/message2.txt && echo the same'
    expect 'the same'

    step "Receive the cut message over $transport" 'It is the first 3000 bytes of the file.'
    run 0 "queue-client $queue $transport receive > received.txt"
    expect 'Received: 3000 bytes'
    run 0 'head -c 3000 data/message3.txt | cmp - received.txt && echo the same'
    expect 'the same'

    step "Receive from the empty queue over $transport" 'There is nothing left: exit code 1, and nothing on standard output.'
    run 1 "queue-client $queue $transport receive"
    expect 'Error - no messages in queue.'
done

step 'One queue, two transports' 'What was sent over UDP can be received over TCP.'
run 0 "echo 'across the border' | queue-client $queue UDP send -"
run 0 "queue-client $queue TCP receive"
expect 'across the border' 'Received: 18 bytes'

step 'Two clients at the same time' 'They never get the same message.'
run 0 "echo first | queue-client $queue TCP send -"
run 0 "echo second | queue-client $queue TCP send -"
run 0 "queue-client $queue TCP receive > one.txt & queue-client $queue TCP receive > two.txt & wait"
run 0 'sort one.txt two.txt'
expect $'first\nsecond'
run 1 "queue-client $queue TCP receive"

step 'A receiver that fails' 'A message is forgotten when it was acknowledged: after a write error it goes back.'
run 0 "echo 'do not lose me' | queue-client $queue TCP send -"
run 2 "queue-client $queue TCP receive > /dev/full"
expect 'cannot write to standard output'
run 0 "until queue-client $queue TCP receive 2> /dev/null; do sleep 0.1; done"
expect 'do not lose me'

step 'The original sender over TCP' 'It gets no answer, so whoever comes right after it may have to ask twice.'
run 0 "python3 tests/python/queue_send.py $queue TCP 'from the old sender'"
expect 'Sent: 20 bytes'
run 0 "until queue-client $queue TCP receive 2> /dev/null; do sleep 0.1; done"
expect 'from the old sender'

step 'The original sender with too much' 'The rest is dropped, and the log has a warning.'
run 0 "python3 tests/python/queue_send.py $queue TCP --file data/message3.txt"
run 0 "until queue-client $queue TCP receive > received.txt 2> /dev/null; do sleep 0.1; done"
run 0 'head -c 3000 data/message3.txt | cmp - received.txt && echo the same'
expect 'the same'
run 0 "until grep 'A message was cut' queue.log; do sleep 0.1; done"
expect 'cut to 3000 bytes, 1505 more were dropped'

step 'The original receiver over TCP' 'It sends <<GET>> and reads once.'
run 0 "queue-client $queue TCP send data/message1.txt"
run 0 "python3 tests/python/queue_receive.py $queue TCP"
expect "$(cat data/message1.txt)"
run 0 "python3 tests/python/queue_receive.py $queue TCP"
expect 'Error - no messages in queue.'

step 'The original sender and receiver over UDP' 'One datagram is one message.'
run 0 "python3 tests/python/queue_send.py $queue UDP 'by datagram'"
run 0 "python3 tests/python/queue_receive.py $queue UDP"
expect 'by datagram'

step 'A datagram that is too long' 'Its beginning is a message, with a warning in the log.'
run 0 "python3 tests/python/queue_send.py $queue UDP --file data/message3.txt"
run 0 "queue-client $queue UDP receive | cmp - <(head -c 3000 data/message3.txt) && echo the same"
expect 'Received: 3000 bytes' 'the same'
run 0 "until grep 'A message from .* was cut' queue.log; do sleep 0.1; done"
expect 'cut to 3000 bytes, 1505 more were dropped'

step 'A server with a higher limit' 'What it takes is for --max-message to say, there and here.'
start_server wide 1 queue-server 0 TCP --max-message 65000
run 0 "queue-client $server send data/message3.txt --max-message 65000"
expect 'Sent: 4505 bytes'
run 0 "queue-client $server receive | cmp - data/message3.txt && echo the same"
expect 'Received: 4505 bytes' 'the same'

step 'A queue on disk' 'With --data the queue is kept in a SQLite database, and OK means on disk.'
start_server disk 1 queue-server 0 TCP --data queue.db
run 0 "queue-client $server TCP send data/message1.txt"
expect 'Sent: 41 bytes'
run 0 "echo 'second job' | queue-client $server TCP send -"
expect 'Sent: 11 bytes'

step 'A second server on the same file' 'It is refused, before it can do harm.'
run 2 'queue-server 0 TCP --data queue.db'
expect 'another server is using these files'

step 'kill -9' 'The server has no time to say good-bye. What it has acknowledged is there when it starts again.'
run 0 "kill -9 ${pids[disk]}"
wait "${pids[disk]}" 2>/dev/null || true
start_server disk 1 queue-server 0 TCP --data queue.db
expect '2 messages read from queue.db'
run 0 "queue-client $server TCP receive"
expect 'Received: 41 bytes'
run 0 "queue-client $server TCP receive"
expect 'second job'
run 1 "queue-client $server TCP receive"
expect 'Error - no messages in queue.'
stop_server disk

section 'A work queue for shell scripts'

step 'A queue of jobs' 'Each line is a message. A queue has a name, and is made when it is first used.'
start_server jobs 1 queue-server 0 TCP --data jobs.db
jobs=$server
run 0 "seq 1 30 | queue-client $jobs send --queue sums --lines -"
expect 'Sent: 30 messages'
run 0 "queue-client $jobs list"
expect $'sums\t30\t0\t0\t0\t'

step 'Three workers' 'Each takes a message, runs a command with it, and acknowledges it when the command has succeeded.'
printf '#!/bin/sh\nn=$(cat)\nsleep 0.1\necho "$n squared is $((n * n))" >> squares.txt\n' >square
chmod +x square
cat square
worker_command="queue-client $jobs work --queue sums --wait-for-server 30 -- ./square"
workers=()
for _ in 1 2 3; do
    printf '$ %s &\n' "$worker_command"
    $worker_command 2>/dev/null &
    workers+=($!)
done
run 0 'until [ "$(wc -l < squares.txt)" -ge 6 ]; do sleep 0.05; done 2>/dev/null'

step 'kill -9 for one of them' 'What it held goes back to the front of the queue, and the others do it.'
run 0 "kill -9 ${workers[0]}"
wait "${workers[0]}" 2>/dev/null || true

step 'kill -9 for the server too' 'The jobs are on disk, and the workers wait until it is there again.'
run 0 "kill -9 ${pids[jobs]}"
wait "${pids[jobs]}" 2>/dev/null || true
start_server jobs 1 queue-server "${jobs#* }" TCP --data jobs.db

step 'All jobs are done' 'At least once each: a job that was killed on the way is done again.'
run 0 'until [ "$(sort -u squares.txt | wc -l)" = 30 ]; do sleep 0.05; done; sort -un squares.txt | tail -n 2'
expect '29 squared is 841' '30 squared is 900'
run 0 "until [ -z \"\$(queue-client $jobs list | grep -P '\t[1-9][0-9]*\t')\" ]; do sleep 0.05; done"

step 'The workers stop' 'SIGTERM lets a running command finish, and the exit code is 0.'
for worker in "${workers[@]:1}"; do
    printf '$ kill %d; wait %d\n' "$worker" "$worker"
    kill "$worker"
    wait "$worker" || wrong="${wrong}the exit code is $?; "
done

step 'A failing job' 'It is given back, and tried again by the next who asks, five times in all.'
run 0 "echo 'not a number' | queue-client $jobs send --queue sums -"
for _ in 1 2 3 4 5; do run 1 "queue-client $jobs work --queue sums --once -- false"; done
expect 'exit status: 1'
run 1 "queue-client $jobs work --queue sums --once -- ./square"

step 'It ends in sums.dead' 'There it stays until somebody looks: to read it, or to kick it back.'
run 0 "queue-client $jobs list"
expect $'sums.dead\t1\t0\t0\t0\t'
run 0 "queue-client $jobs peek --queue sums.dead"
expect 'not a number'
run 0 "queue-client $jobs kick sums"
expect 'Messages kicked: 1'
run 0 "queue-client $jobs work --queue sums --once -- tr a-z A-Z"
expect 'NOT A NUMBER'

step 'A lease outlives the process that took it' 'Whoever has its token may acknowledge, release or extend it.'
run 0 "echo 'take your time' | queue-client $jobs send -"
run 0 "queue-client $jobs lease 3600 job.txt > token; cat job.txt"
expect 'take your time'
run 1 "queue-client $jobs receive"
run 0 "queue-client $jobs extend \$(cat token) 7200"
run 0 "queue-client $jobs ack \$(cat token)"
run 1 "queue-client $jobs ack \$(cat token)"
expect 'no message is leased under this token'

step 'Waiting' 'A receiver sleeps until there is a message, or its time is over.'
run 1 "queue-client $jobs receive --wait 0.1"
run 0 "queue-client $jobs receive --wait 10 & sleep 0.1; echo 'here it is' | queue-client $jobs send - 2>/dev/null; wait"
expect 'here it is'

step 'Looking after it' 'A paused queue hands out nothing; a draining server takes nothing new.'
run 0 "seq 3 | queue-client $jobs send --lines -; queue-client $jobs pause"
run 1 "queue-client $jobs receive"
run 0 "queue-client $jobs resume; queue-client $jobs peek --count 3"
run 0 "queue-client $jobs drain"
run 1 "echo more | queue-client $jobs send -"
expect 'the server is draining and takes no new messages'
run 0 "queue-client $jobs receive --count 2"
run 0 "queue-client $jobs purge"
expect 'Messages purged: 1'
run 0 "queue-client $jobs stats --json"
expect '"is_draining":true'
stop_server jobs

section 'The history service: who asked what'

step 'Say hello' 'The server says where its source is and what it can do.'
run 0 "history-client $history hello alice"
expect 'Source: ' '1 N: delete line N' '2: show the history' '3: delete everything'

step 'Read the history' 'Every request is put on record before anything is done about it, this one too.'
run 0 "history-client $history get bob"
expect '1 20' ' alice hello' '2 20' ' bob 2'

step 'The server tells its terminal too' 'Each request is a line there.'
run 0 'tail -n 2 history.log'
expect 'alice hello' 'bob 2'

step 'Delete a line' 'Lines are counted from 1, as they are shown.'
run 0 "history-client $history delete alice 1"
expect 'Line 1 deleted.'
run 0 "history-client $history get bob 2> /dev/null"
expect '1 20' ' bob 2' '2 20' ' alice 1 1'

step 'A line that is not there' 'The server says how many there are, and the exit code is 1.'
run 1 "history-client $history delete alice 99"
expect 'There is no line 99; the history has 4 lines.'

step 'Send a line as it is' 'USER, USER 1 N, USER 2 or USER 3.'
run 0 "history-client $history send 'carol 2' 2> /dev/null"
expect '5 20' ' carol 2'

step 'A line that is no request' 'One sentence says what is wrong, and the exit code is 2.'
run 2 "history-client $history send 'alice 7'"
expect 'The operation is 1, 2 or 3'
run 2 "history-client $history send 'al/ice 2'"
expect 'A request starts with a user name'

step 'The prompt' 'Without a verb the client asks for the line.'
run 0 "echo 'dave 2' | history-client $history"
expect 'Enter authentication: ' ' dave 2'

step 'The original Python client' 'It sends one line and reads once.'
run 0 "python3 tests/python/history_client.py $history 'erin 2'"
expect 'Source: ' ' erin 2'

step 'The original client with a malformed request' 'It gets a sentence, and the server goes on.'
run 0 "python3 tests/python/history_client.py $history 'erin 1 x'"
expect 'A line number is 1 or more'
run 0 "python3 tests/python/history_client.py $history 'no/name'"
expect 'A request starts with a user name'

step 'Delete everything' 'One line is left, which says who did it and when.'
run 0 "history-client $history clear alice"
expect 'History deleted.'
run 0 'cat history/history.txt'
expect ' alice deleted the history'
run 0 'wc -l < history/history.txt'
expect 1

step 'A server with a list of users' 'Only those who are on it are served.'
run 0 "printf 'alice\nbob\n' > users.txt"
start_server members 1 history-server 0 --data-dir members --users users.txt
run 1 "history-client $server hello mallory"
expect 'Authentication error.'
run 0 "history-client $server get alice"
expect ' mallory refused: hello' ' alice 2'

step 'A long history' 'It arrives whole, however long it is.'
run 0 "mkdir long; seq -f '2026-11-20T17:37:53.230Z 127.0.0.1:40000 alice 1 %.0f' 50000 > long/history.txt"
start_server long 1 history-server 0 --data-dir long
run 0 "history-client $server get alice 2> /dev/null | wc -l"
expect 50001
run 0 "python3 tests/python/history_client.py $server 'alice 2' --all | tail -n 1"
expect '50002 20'

section 'The file service: gives and takes files'

step 'Get a file' 'A dash writes it to standard output.'
run 0 "file-client $file get server/testServer.txt -o -"
expect "$(cat data/server/testServer.txt)" 'Received server/testServer.txt: 396 bytes'

step 'Get a photo' 'It arrives byte for byte.'
run 0 "file-client $file get server/photoServer.jpg -o photo.jpg"
run 0 'cmp photo.jpg data/server/photoServer.jpg && echo the same'
expect 'the same'

step 'Get a folder' 'A folder is its index.html.'
run 0 "file-client $file get server/"
expect 'Saved index.html'
run 0 'cmp index.html data/server/index.html && echo the same'
expect 'the same'

step 'A file that is not there' 'That is a 404, and exit code 1; nothing is saved.'
run 1 "file-client $file get server/missing.txt"
expect '404 Not Found'
run 1 'test -e missing.txt'

step 'Send a file' 'Without a PATH it stands at the root under its own name.'
run 0 "file-client $file post data/client/testClient.txt"
expect 'File received and saved'
run 0 'cmp data/testClient.txt data/client/testClient.txt && echo the same'
expect 'the same'

step 'Send a photo to a folder that is not there yet' 'The server makes the folders, and gives back what it took.'
run 0 "file-client $file post data/client/photoClient.jpg albums/2026/photo.jpg"
expect 'File received and saved'
run 0 "file-client $file get albums/2026/photo.jpg -o - 2> /dev/null | cmp - data/client/photoClient.jpg && echo the same"
expect 'the same'

step 'A path that leads outside' 'Nothing outside the root is read or written.'
run 1 "file-client $file get ../users.txt"
expect '400 Bad Request'
run 1 "file-client $file post data/client/testClient.txt ../outside.txt"
expect '400 Bad Request'
run 1 'test -e outside.txt'

step 'A symbolic link that leads outside' 'It is as if it were not there.'
run 0 'mkdir outside; echo secret > outside/secret.txt; ln -s ../outside data/door'
run 1 "file-client $file get door/secret.txt -o -"
run 1 "file-client $file post data/client/testClient.txt door/new.txt"
run 0 'ls outside'
[ "$output" = secret.txt ] || wrong="${wrong}something was written outside; "

step 'The prompt' 'Without a verb the client asks for one command after another.'
run 0 "printf 'GET server/style.css\nPOST data/client/testClient.txt\nGET nowhere\nexit\n' | file-client $file"
expect 'Enter command (GET/POST file_path): ' 'Saved style.css: 2884 bytes' \
    'Sent testClient.txt: 264 bytes, File received and saved' 'nowhere: the server refused: 404 Not Found'

step 'A batch of requests' 'The lines of the file, here with the port of this server.'
run 0 "sed 's/ 8080\$/ ${file#* }/' data/batch.txt > batch.txt; grep ^client batch.txt"
run 0 "file-client $file batch batch.txt"
expect 'Saved photoServer.jpg: 67175 bytes' 'Sent photoClient.jpg: 37469 bytes' 'Saved diagram.png: 52893 bytes'
run 0 'cmp diagram.png data/server/diagram.png && echo the same'
expect 'the same'

step 'Four of them at once' 'With -j; each line says which job it is of.'
run 0 "file-client $file batch batch.txt -j 4"
expect '[job-1] ' '[job-2] ' 'Saved photoServer.jpg: 67175 bytes' 'Sent photoClient.jpg: 37469 bytes' 'Saved diagram.png: 52893 bytes'
run 0 'cmp photoServer.jpg data/server/photoServer.jpg && cmp data/photoClient.jpg data/client/photoClient.jpg && echo the same'
expect 'the same'

step 'A batch with a request that fails' 'The others are done, and the exit code is that of the failure.'
run 0 "printf 'client_get nowhere localhost\nclient_get server/testServer.txt localhost\n' > batch.txt"
run 1 "file-client $file batch batch.txt"
expect 'Line 1: nowhere: the server refused: 404 Not Found' 'Saved testServer.txt' '1 of 2 requests failed'

step 'The original Python client' 'A GET and a POST, as raw bytes on one connection.'
run 0 "python3 tests/python/file_client.py $file server/index.html page.html data/client/photoClient.jpg old/photo.jpg"
expect 'GET: HTTP/1.1 200 OK' 'POST: HTTP/1.1 200 OK'
run 0 'cmp page.html data/server/index.html && cmp data/old/photo.jpg data/client/photoClient.jpg && echo the same'
expect 'the same'

step 'Part of a file' 'A range of bytes, and what the server says of a file.'
run 0 "python3 -c 'import http.client as h; c = h.HTTPConnection(\"${file% *}\", ${file#* }); c.request(\"GET\", \"/client/testClient.txt\", headers={\"Range\": \"bytes=0-34\"}); print(c.getresponse().read().decode())'"
expect 'This file starts out on the client.'
[ "${#output}" = 35 ] || wrong="${wrong}there is more than was asked for; "
run 0 "file-client $file head client/testClient.txt"
expect 'Accept-Ranges: bytes' 'Content-Length: 264' 'ETag: "'

if command -v curl >/dev/null; then
    step 'The same with curl' 'It uploads, gets a part, and does not overwrite what is there if it is told so.'
    run 0 "curl -s --noproxy '*' -T data/client/testClient.txt http://${file/ /:}/notes/today.txt"
    expect 'File received and saved'
    run 0 "curl -s --noproxy '*' -r 0-34 http://${file/ /:}/notes/today.txt"
    expect 'This file starts out on the client.'
    run 0 "curl -s --noproxy '*' -w ' %{http_code}' -T data/message1.txt -H 'If-None-Match: *' http://${file/ /:}/notes/today.txt"
    expect ' 412'
fi

if command -v wget >/dev/null; then
    step 'wget goes on with a download' 'It asks for the range that it lacks.'
    run 0 'head -c 20000 data/server/photoServer.jpg > half.jpg'
    run 0 "wget -nv --no-proxy -c -O half.jpg http://${file/ /:}/server/photoServer.jpg"
    run 0 'cmp half.jpg data/server/photoServer.jpg && echo the same'
    expect 'the same'
fi

step 'kill -9 in the middle of an upload' 'With --resume, what has come stays on the server, but nobody sees it.'
run 0 'head -c 128000000 /dev/urandom > big.iso'
start_client "file-client $file put big.iso --resume"
run 0 "until [ -n \"\$(find data -maxdepth 1 -name '.quartet-upload-*' -size +1M)\" ]; do :; done; kill -9 $client"
wait "$client" 2>/dev/null || true
run 1 "file-client $file get big.iso -o copy.iso"
expect '404 Not Found'
run 1 "file-client $file list | grep iso"

step 'kill -9 for the server too' 'It finds the upload when it starts again, and the client goes on where it was.'
run 0 "kill -9 ${pids[file]}"
wait "${pids[file]}" 2>/dev/null || true
run 0 "ls -A data | grep -c '^\.quartet-upload-.*\.head\$'"
expect 1
start_server file 1 file-server "${file#* }" --root data --idle-exit 0 --verbose
run 0 "file-client $file put big.iso --resume"
expect 'Sent big.iso: 128000000 bytes, File received and saved'
run 0 'grep -oE "(HEAD|POST|PATCH) /[.a-z]*" file.log'
expect $'HEAD /.quartet\nPATCH /.quartet'
run 0 'cmp big.iso data/big.iso && echo the same'
expect 'the same'
run 1 'ls -A | grep quartet-upload'
run 0 "ls -A data | grep -c '^\.quartet-upload-.*\.head\$'"
expect '1'

step 'kill -9 in the middle of a download' 'What has arrived is not got again, as long as the file on the server is the same.'
start_client "file-client $file get big.iso -o copy.iso --resume"
run 0 "until [ -n \"\$(find . -maxdepth 1 -name .quartet-download-copy.iso -size +1M)\" ]; do :; done; kill -9 $client"
wait "$client" 2>/dev/null || true
run 1 'test -e copy.iso'
run 0 "file-client $file get big.iso -o copy.iso --resume"
expect 'Saved copy.iso: 128000000 bytes'
run 0 'cmp big.iso copy.iso && echo the same'
expect 'the same'
run 0 'rm big.iso copy.iso data/big.iso'

step 'An upload in two parts' 'Any HTTP client can do it: begin, ask how much has come, append. A wrong offset is refused.'
cat >parts.py <<'END'
import http.client, sys, urllib.parse

def ask(method, path, fields, body=None):
    connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]))
    connection.request(method, path, body, fields)
    reply = connection.getresponse()
    print(method, reply.status, "Upload-Offset:", reply.headers["Upload-Offset"], flush=True)
    return reply

def append(offset, body):
    fields = {"Content-Type": "application/partial-upload", "Upload-Offset": str(offset)}
    return ask("PATCH", place, fields | {"Upload-Complete": "?1"}, body)

begun = ask("POST", "/parts.txt", {"Upload-Complete": "?0"}, b"one part ")
place = urllib.parse.urljoin("/parts.txt", begun.headers["Location"])
ask("GET", "/parts.txt", {})
ask("HEAD", place, {})
append(3, b"and another")
append(9, b"and another")
END
run 0 "python3 parts.py $file"
expect 'POST 201 Upload-Offset: 9' 'GET 404' 'HEAD 204 Upload-Offset: 9' 'PATCH 409 Upload-Offset: 9' 'PATCH 200'
run 0 'cat data/parts.txt'
expect 'one part and another'

step 'A server that knows who may write' 'USER:PASSWORD on each line; openssl passwd -6 hashes passwords, a plain one wants mode 600.'
run 0 "printf 'alice:correct horse\n' > accounts; chmod 644 accounts"
run 2 'file-server 0 --root data --auth-file accounts'
expect 'accounts holds a plain password, so nobody but its owner may be able to read it'
run 0 'chmod 600 accounts'
start_server accounts 1 file-server 0 --root data --auth-file accounts
run 1 "file-client $server put data/message1.txt"
expect '401 Unauthorized, this needs a user and a password'
run 0 "printf 'alice:wrong\n' > wrong; chmod 600 wrong"
run 1 "file-client $server put data/message1.txt --auth-file wrong"
expect '401 Unauthorized'
run 1 'test -e data/data/message1.txt'
run 0 "file-client $server put data/message1.txt sent.txt --auth-file accounts"
expect 'Sent message1.txt: 41 bytes'
run 0 "file-client $server get sent.txt -o -"
expect "$(cat data/message1.txt)"
stop_server accounts

step 'A server that knows who may read, too' 'Here the password is hashed; with --auth-all nobody else may even look.'
run 0 "echo 'alice:\$6\$quartet\$r3/98rv3XK4RtpUJA5kB9oAOMDyN3WQurT2EosspR/wCj4mjZKEDPkozAf7gMkmbAhXGGu6JEIksimE4GOADR/' > hashed"
start_server all 1 file-server 0 --root data --auth-file hashed --auth-all
run 1 "file-client $server list"
expect '401 Unauthorized'
run 0 "file-client $server get sent.txt -o - --auth-file accounts"
expect "$(cat data/message1.txt)"

step 'A server that only gives' 'With --read-only it takes no uploads.'
start_server readonly 1 file-server 0 --root data --read-only
run 1 "file-client $server post data/client/testClient.txt"
expect '403 Forbidden, this server takes no uploads'

step 'A server that ends by itself' 'After so many seconds without a request, 60 unless told otherwise.'
run 0 'file-server 0 --root data --idle-exit 1'
expect 'Server started on ' 'No request for 1 s' 'Shutting down server'

section 'When something is wrong'

step 'Wrong usage of a server' 'One sentence, and exit code 2.'
run 2 'queue-server 55556 PIGEON'
expect "the transport must be TCP, UDP or BOTH, not 'PIGEON'"
run 2 'code-server 8000'
expect 'MESSAGE_PORT is missing'
run 2 'history-server --frobnicate'
expect "unknown option '--frobnicate'"
run 2 'file-server 80800'
expect "PORT must be a port from 0 to 65535, not '80800'"

step 'Wrong usage of a client' 'The same.'
run 2 "queue-client $queue TCP"
run 2 "file-client $file give data/message1.txt"
expect "unknown verb 'give', the verbs are get, post, put, head, list, batch"
run 2 "queue-client $queue TCP recieve"
expect "unknown verb 'recieve', did you mean receive?"

step 'A file that is not here' 'Trouble with a local file is exit code 2, too.'
run 2 "queue-client $queue TCP send no-such-file.txt"
expect 'cannot read no-such-file.txt'
run 2 "file-client $file post no-such-file.txt"
expect 'cannot read no-such-file.txt'

step 'A folder that is not here' 'A server that cannot have its files does not start.'
run 2 'file-server 0 --root no-such-folder'
expect 'cannot serve the folder no-such-folder'

step 'A history open to other machines' 'It wants to know who may use it first.'
run 2 'history-server 0 --bind 0.0.0.0'
expect '--users must say who may use the history'

step 'A port that is taken' 'The network is exit code 3.'
run 3 "queue-server ${queue#* } TCP"
expect 'cannot listen on 127.0.0.1'

step 'Nobody there' 'Nobody listens on port 1, and the client says so.'
run 3 'history-client 127.0.0.1 1 get alice'
expect 'cannot connect to 127.0.0.1:1'

section 'The end'

for name in code queue history file; do
    step "Stop the $name server" 'On SIGTERM it finishes what it is doing, and ends with exit code 0.'
    stop_server "$name"
done

end_step
for heading in ${failed[@]+"${failed[@]}"}; do
    printf '%sNOT as expected: %s%s\n' "$red" "$heading" "$plain"
done
printf '\n%d of %d steps as expected\n' $((steps - ${#failed[@]})) "$steps"
[ "${#failed[@]}" = 0 ]
