section 'The queue service: the first message in is the first one out'

step 'Start the queue server' 'It speaks TCP and UDP, on one port and over one queue.' crates/queue-server/src/lib.rs
start_server queue 1 queue-server 0 BOTH
queue=$server

for transport in TCP UDP; do
    source=crates/queue-client/src/${transport,,}.rs
    step "There and back over $transport" 'Messages of 0, 41 and 3000 bytes; what comes out is what went in, byte for byte.' "$source"
    for message in '0 0' '1 41' '2 3000'; do
        file=data/message${message% *}.txt
        run 0 "queue-client $queue $transport send $file"
        expect "Sent: ${message#* } bytes"
    done
    for message in '0 0' '1 41' '2 3000'; do
        file=data/message${message% *}.txt
        run 0 "queue-client $queue $transport receive > received.txt"
        expect "Received: ${message#* } bytes"
        same "$file" received.txt
    done
    run 1 "queue-client $queue $transport receive"
    expect 'Error - no messages in queue.'
done

step 'A message that is too long' 'The client says so and sends nothing. If you ask for it, it sends the beginning.' crates/queue-client/src/send.rs
run 2 "queue-client $queue send data/message3.txt"
expect 'data/message3.txt exceeds 3000 bytes'
run 0 "queue-client $queue send data/message3.txt --truncate"
expect 'Sending the first 3000 bytes of data/message3.txt' 'Sent: 3000 bytes'
run 0 "queue-client $queue receive > received.txt; head -c 3000 data/message3.txt > beginning.txt"
same beginning.txt received.txt

step 'A server with a higher limit' 'Both sides must allow it, with --max-message.' crates/queue-server/src/args.rs
start_server wide 1 queue-server 0 TCP --max-message 65000
run 0 "queue-client $server send data/message3.txt --max-message 65000"
expect 'Sent: 4505 bytes'
run 0 "queue-client $server receive > received.txt"
same data/message3.txt received.txt
stop_server wide

step 'One queue, two transports' 'What was sent over UDP can be received over TCP.' crates/queue-server/src/datagram.rs
run 0 "echo 'across the border' | queue-client $queue UDP send -"
run 0 "queue-client $queue TCP receive"
expect 'across the border' 'Received: 18 bytes'

step 'Two clients at the same time' 'They never get the same message.' crates/queue-server/src/queues.rs
run 0 "printf 'first\nsecond\n' | queue-client $queue send --lines -"
run 0 "queue-client $queue receive --count 1 > one.txt & queue-client $queue receive --count 1 > two.txt & wait"
run 0 'sort one.txt two.txt'
expect $'first\nsecond'
run 1 "queue-client $queue receive"

step 'A receiver that fails' 'The server deletes a message when it is acknowledged. After a write error it is unreserved.' \
    crates/queue-client/src/receive.rs
run 0 "echo 'do not lose me' | queue-client $queue send -"
run 2 "queue-client $queue receive > /dev/full"
expect 'cannot write to standard output'
run 0 "queue-client $queue receive --wait 10"
expect 'do not lose me'

step 'Waiting' 'A receiver sleeps until there is a message, or its time is over.' crates/queue-server/src/queues/waiters.rs
run 1 "queue-client $queue receive --wait 0.1"
start_client waiting "queue-client $queue receive --wait 30"
run 0 "echo 'here it is' | queue-client $queue send -"
end_client 0 "$client" waiting
expect 'here it is'

step 'Pipelining' 'A thousand requests in one write. The replies come in their order, without a round trip for each.' \
    crates/daemon/src/frames.rs
run 0 "python3 pipelining.py $queue 1000"
expect '1000 replies, in order'
run 0 "queue-client $queue purge"
expect 'Messages purged: 1000'

step 'The original sender and receiver over TCP' 'The text protocol: the sender gets no reply; the receiver sends <<GET>> and reads once.' \
    crates/proto/src/text.rs
run 0 "python3 tests/python/queue_send.py $queue TCP 'from the old sender'"
expect 'Sent: 20 bytes'
run 0 "queue-client $queue receive --wait 10"
expect 'from the old sender'
run 0 "queue-client $queue send data/message1.txt"
run 0 "python3 tests/python/queue_receive.py $queue TCP"
expect "$(cat data/message1.txt)"
run 0 "python3 tests/python/queue_receive.py $queue TCP"
expect 'Error - no messages in queue.'

step 'The original sender with too much' 'The rest is cut off, and the log has a warning. Over UDP it is the same: one datagram is one message.' \
    crates/queue-server/src/text.rs
run 0 "python3 tests/python/queue_send.py $queue TCP --file data/message3.txt"
run 0 "queue-client $queue receive --wait 10 > received.txt"
same beginning.txt received.txt
await_line 'A message was cut to 3000 bytes, 1505 more were dropped' queue.log
run 0 "python3 tests/python/queue_send.py $queue UDP --file data/message3.txt"
run 0 "queue-client $queue receive --wait 10 > received.txt"
same beginning.txt received.txt
await_line 'A message from .* was cut to 3000 bytes, 1505 more were dropped' queue.log
run 0 "python3 tests/python/queue_send.py $queue UDP 'by datagram'"
run 0 "python3 tests/python/queue_receive.py $queue UDP"
expect 'by datagram'

step 'A queue on disk' 'With --data the queue is a SQLite database, and OK means on disk. A second server on it is refused.' \
    crates/queue-server/src/journal/sqlite.rs
start_server disk 1 queue-server 0 TCP --data queue.db
run 0 "queue-client $server send data/message1.txt"
run 0 "echo 'second job' | queue-client $server send -"
run 2 'queue-server 0 TCP --data queue.db'
expect 'another server is using these files'

step 'kill -9' 'The server can finish nothing. What it has acknowledged is there when it starts again.' crates/storage/src/lib.rs
kill_server disk
start_server disk 1 queue-server 0 TCP --data queue.db
expect '2 messages read from queue.db'
run 0 "queue-client $server receive --count 2"
expect "$(cat data/message1.txt)" 'second job'
run 1 "queue-client $server receive"
stop_server disk
stop_server queue
