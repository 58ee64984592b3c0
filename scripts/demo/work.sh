section 'A work queue for shell scripts: jobs are messages, workers run a command for each'

step 'A queue of jobs' 'Each line is a message. A queue has a name, and is made when it is first used.' crates/queue-client/src/batch.rs
start_server jobs 1 queue-server 0 TCP --data jobs.db
jobs=$server
run 0 "seq 1 30 | queue-client $jobs send --queue sums --lines -"
expect 'Sent: 30 messages'
run 0 "queue-client $jobs list"
expect $'sums\t30\t0\t0\t0\t'

step 'Three workers' 'Each reserves a message, runs a command with it, and acknowledges it when the command has succeeded.' \
    crates/queue-client/src/work.rs
printf '#!/bin/sh\nn=$(cat)\nsleep 0.1\necho "$n squared is $((n * n))" >> squares.txt\n' >square
chmod +x square
cat square
: >squares.txt
workers=()
for number in 1 2 3; do
    start_client "worker$number" "queue-client $jobs work --queue sums --drain --wait-for-server 30 -- ./square"
    workers+=("$client")
done
await 6 squared squares.txt || wrong='no job is done; '

step 'kill -9 for a worker' 'The server puts back what it had reserved, to the front of the queue, and the others do it.' \
    crates/queue-client/src/work/guardian.rs
kill_process "${workers[0]}"

step 'kill -9 for the server' 'The jobs are on disk, and the workers wait until it is there again.' crates/queue-client/src/reconnect.rs
kill_server jobs
start_server jobs 1 queue-server "${jobs#* }" TCP --data jobs.db

step 'All jobs are done' 'At least once each: a job that was killed is done again. With --drain a worker ends when nothing is left.' \
    crates/queue-client/src/work/pool.rs
end_client 0 "${workers[1]}" worker2
end_client 0 "${workers[2]}" worker3
run 0 'sort -u squares.txt | wc -l; sort -un squares.txt | tail -n 2'
expect 30 '29 squared is 841' '30 squared is 900'
run 0 "queue-client $jobs list --quiet"
[ -z "$output" ] || wrong="${wrong}there are jobs left; "

step 'A worker stops' 'SIGTERM lets a running command finish, and the exit code is 0.' crates/queue-client/src/work/signals.rs
: >begun.txt
start_client worker "queue-client $jobs work -- sh -c 'echo begun >> begun.txt; sleep 0.3; cat'"
run 0 "echo 'one more job' | queue-client $jobs send -"
await 1 begun begun.txt || wrong='the job does not begin; '
run 0 "kill -TERM $client"
end_client 0 "$client" worker
expect 'Receiving no more messages' 'one more job'

step 'A failing job, explained' 'It is tried five times, later and later unless --backoff says 0s. Then it is in sums.dead, and says why.' \
    crates/queue-server/src/queues/requeue.rs
run 0 "echo 'not a number' | queue-client $jobs send --queue sums -"
run 1 "queue-client $jobs work --queue sums --drain --backoff 0s -- sh -c 'echo no digits in it >&2; exit 3'"
expect 'is released because its command failed (exit status: 3)' 'is a dead letter' 'at attempt 5' 'in sums.dead)'
run 0 "queue-client $jobs list"
expect $'sums.dead\t1\t0\t0\t0\t'
run 0 "queue-client $jobs peek --dead --queue sums"
expect 'not a number' 'attempts: 5, the last: exit status: 3: no digits in it'
run 0 "queue-client $jobs kick sums"
expect 'Messages kicked: 1'
run 0 "queue-client $jobs work --queue sums --once -- tr a-z A-Z"
expect 'NOT A NUMBER'

step 'A doubled send that is one message' 'With a key, what is sent twice is stored once, and -v says so. The same key with something else is refused.' \
    crates/queue-server/src/keys.rs
run 0 "for i in 1 2; do echo 'bill 17' | queue-client -v $jobs send --queue bills --key bill-17 -; done"
expect 'was stored before with this key'
run 0 "queue-client $jobs list"
expect $'bills\t1\t0\t0\t0\t'
run 1 "echo 'bill 18' | queue-client $jobs send --queue bills --key bill-17 -"
expect "has the key 'bill-17' and another body"
run 0 "queue-client $jobs receive --queue bills"
expect 'bill 17'

step 'One message' 'An operator names a message by its id, whatever its state. A worker that had it reserved is told when it acknowledges it.' \
    crates/queue-server/src/queues/one.rs
run 0 "echo 'in an hour' | queue-client $jobs send --queue later --delay 1h -; queue-client $jobs peek --queue later --delayed"
expect 'in an hour' 'delayed in later for 3600 s more'
run 0 "id=\$(queue-client $jobs peek --queue later --delayed --json -q | python3 -c 'import json; print(json.loads(input())[\"id\"])')
queue-client $jobs kick --queue later --id \$id; queue-client $jobs move --queue later --id \$id 42"
expect 'Message kicked' 'Message moved'
run 1 "queue-client $jobs list --max-ready 0"
expect "in '42' 1 are ready (--max-ready 0)"
run 0 "queue-client $jobs receive --queue 42"
expect 'in an hour'

if command -v curl >/dev/null; then
    step 'The page' 'A browser shows the queues, live, and their messages. Scripts get JSON, and curl can send and receive.' \
        crates/queue-server/src/http/page.rs
    url=http://127.0.0.1:${jobs#* }
    run 0 "curl -s --noproxy '*' --data-binary 'over HTTP' $url/queues/web/messages; curl -s --noproxy '*' $url/queues"
    expect '"name":"web"'
    run 0 "curl -s --noproxy '*' $url/ | grep -o '<title>.*</title>'; queue-client $jobs receive --queue web"
    expect '<title>Queues</title>' 'over HTTP'
fi

step 'A lease outlives its process' 'Any client that has the token may acknowledge, release or extend it.' crates/queue-client/src/lease.rs
run 0 "echo 'no hurry' | queue-client $jobs send -"
run 0 "queue-client $jobs lease 1h job.txt > token; cat job.txt"
expect 'no hurry'
run 1 "queue-client $jobs receive"
run 0 "queue-client $jobs extend - 2h < token"
run 0 "queue-client $jobs ack - < token"
run 1 "queue-client $jobs ack - < token"
expect 'no message is leased under this token'

step 'A lease that expires' 'The timer requeues the message, and a waiting receiver gets it. The token is worth nothing then.' \
    crates/queue-server/src/timer.rs
run 0 "echo 'too slow' | queue-client $jobs send -"
run 0 "queue-client $jobs lease 0.3 job.txt > token; queue-client $jobs receive --wait 10"
expect 'too slow'
run 1 "queue-client $jobs ack - < token"
expect 'no message is leased under this token'

step 'Pause, drain, purge' 'A paused queue hands out nothing; a draining server accepts nothing new.' crates/queue-client/src/client/queues.rs
run 0 "seq 3 | queue-client $jobs send --lines -; queue-client $jobs pause"
run 1 "queue-client $jobs receive"
run 0 "queue-client $jobs resume; queue-client $jobs peek --count 3"
run 0 "queue-client $jobs drain"
run 1 "echo more | queue-client $jobs send -"
expect 'draining'
run 0 "queue-client $jobs receive --count 2"
run 0 "queue-client $jobs purge"
expect 'Messages purged: 1'
run 0 "queue-client $jobs stats --json"
expect '"is_draining":true'
stop_server jobs
