section 'The code service: one unique code for each UUID, and a log for those who hold it'

step 'Start the code server' 'Port 0 is any free port; the log says which two it has, for codes and for messages.' \
    crates/code-server/src/lib.rs
start_server code 2 code-server 0 0 --data-dir codes
code=$server

uuid=67e55044-10b1-426f-9247-bb680e5fe0c8
step 'Ask for a code' 'The server makes a random code for this UUID, and keeps it. In any spelling the same UUID has the same code.' \
    crates/code-server/src/codes.rs
run 0 "code-client $code request $uuid"
expect "$uuid "
unique=${output##* }
for spelling in "$uuid" '{67E55044-10B1-426F-9247-BB680E5FE0C8}' 67e5504410b1426f9247bb680e5fe0c8; do
    run 0 "code-client $code request $spelling"
    expect "$uuid $unique"
done

step 'Leave a message' 'A client with the code may add a line to the log. Line breaks are escaped: a message is always one line.' \
    crates/code-server/src/messages.rs
run 0 "code-client $code send $uuid $unique 'Hello from the demo'"
expect 'Message stored'
run 0 "printf 'first\nsecond' | code-client $code send $uuid $unique -"
run 0 'tail -n 2 codes/messages.log'
expect "$uuid Hello from the demo" "$uuid first\\nsecond"

step 'What the server refuses' 'A wrong code, and a UUID without a code: exit code 1.' crates/code-server/src/service.rs
run 1 "code-client $code send $uuid $uuid 'Let me in'"
expect 'the server refused: '
run 1 "code-client $code send 00000000-0000-0000-0000-000000000000 $unique 'Let me in'"

step 'What the client refuses' 'Something that is not a UUID, and a message of more than 64 KiB: wrong usage, exit code 2.' \
    crates/code-client/src/args.rs
run 2 "code-client $code request me"
expect "not 'me'"
run 2 "head -c 66000 /dev/zero | tr '\0' x | code-client $code send $uuid $unique -"
expect '65536 bytes'

step 'Fifty clients' 'Without a verb the client is fifty clients, each with a UUID of its own.' crates/code-client/src/lib.rs
run 0 "code-client $code"
expect 'Client 0: ' 'Client 49: the message is stored'
run 0 'grep -c "Text insertion for index" codes/messages.log'
expect 50

step 'The original Python client' 'It sends Python dicts instead of JSON. With --python-replies a reply is a bare Python dict, too.' \
    crates/proto/src/code.rs
run 0 "python3 tests/python/code_client.py $code 3"
expect '3 of 3 clients succeeded' '(HTTP with JSON)'
start_server python 2 code-server 0 0 --data-dir python --python-replies
run 0 "python3 tests/python/code_client.py $server 3"
expect '3 of 3 clients succeeded' '(bare dict)'
stop_server python

step 'A limit' 'A second UUID is refused here; the first one still gets its code.' crates/code-server/src/codes.rs
start_server one 2 code-server 0 0 --data-dir one --max-codes 1
run 0 "code-client $server request $uuid"
run 1 "code-client $server request"
expect 'all 1 codes have been handed out'
run 0 "code-client $server request $uuid"
expect "$uuid "
stop_server one

step 'Stop and start' 'SIGTERM ends a server in good order. The codes are in codes.txt, so they are valid after a restart.' \
    crates/daemon/src/signals.rs
stop_server code
start_server code 2 code-server 0 0 --data-dir codes
code=$server
run 0 "code-client $code request $uuid"
expect "$uuid $unique"
run 0 "code-client $code send $uuid $unique 'Still me'"
stop_server code
