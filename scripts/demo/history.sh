section 'The history service: who asked what'

step 'Start the history server' 'Its history is a text file in the folder it is given.' crates/history-server/src/lib.rs
start_server history 1 history-server 0 --data-dir history
history=$server

step 'Say hello' 'The server says where its source is and what it can do, to a person: at a terminal, or with -v.' crates/proto/src/history.rs
run 0 "history-client $history hello alice -v"
expect 'Source: ' '1 N: delete line N' '2: show the history' '3: delete everything'

step 'Read the history' 'Each request is recorded before it is executed, this one too. The log shows it as well.' \
    crates/history-server/src/history.rs
run 0 "history-client $history get bob"
expect '1 20' ' alice hello' '2 20' ' bob 2'
run 0 'tail -n 2 history.log'
expect 'alice hello' 'bob 2'

step 'Delete a line' 'Lines are counted from 1, as they are shown. If there is no such line, the exit code is 1.' \
    crates/history-server/src/history/deletions.rs
run 0 "history-client $history delete alice 1"
expect 'Line 1 deleted.'
run 0 "history-client $history get bob 2> /dev/null"
expect '1 20' ' bob 2' '2 20' ' alice 1 1'
run 1 "history-client $history delete alice 99"
expect 'There is no line 99; the history has 4 lines.'

step 'The text protocol' 'One line: USER, USER 1 N, USER 2 or USER 3. One that is no request is exit code 2. The prompt asks for such a line.' \
    crates/proto/src/text.rs
run 0 "history-client $history send 'carol 2' 2> /dev/null"
expect '5 20' ' carol 2'
run 2 "history-client $history send 'alice 7'"
expect 'The operation is 1, 2 or 3'
run 2 "history-client $history send 'al/ice 2'"
expect 'A request starts with a user name'
run 0 "echo 'dave 2' | history-client $history"
expect 'Enter authentication: ' ' dave 2'

step 'The original Python client' 'It sends one line and reads once. A malformed request gets a sentence.' tests/python/history_client.py
run 0 "python3 tests/python/history_client.py $history 'erin 2'"
expect 'Source: ' ' erin 2'
run 0 "python3 tests/python/history_client.py $history 'erin 1 x'"
expect 'A line number is 1 or more'
run 0 "python3 tests/python/history_client.py $history 'no/name'"
expect 'A request starts with a user name'

step 'Delete everything' 'One line is left, which says who did it and when.' crates/history-server/src/history/file.rs
run 0 "history-client $history clear alice"
expect 'History deleted.'
run 0 'cat history/history.txt'
expect ' alice deleted the history'
run 0 'wc -l < history/history.txt'
expect 1

step 'A name from the server, and a note' 'Nobody else has the name, and it is stored before it is printed. A note is on the disk when the client ends.' \
    crates/history-server/src/users/registered.rs
run 0 "history-client $history register dave > name"
run 0 "history-client $history note \$(cat name) 'the pump is on'"

step 'Follow, and find' 'Who follows sees the line that another adds meanwhile. A search shows the lines that meet all of it.' \
    crates/history-server/src/history/follower.rs
run 0 "history-client $history follow alice --last 0 |
    { read -r own; history-client $history note bob 'pressure 3.1 bar'; read -r line; echo \"\$line\"; }"
expect ' bob note pressure 3.1 bar'
run 0 "history-client $history get bob --match pump --since 1h"
expect '3 20' ' note the pump is on'

step 'Delete what was meant' 'Line numbers shift when others delete, so a line can be deleted only if it contains a text.' \
    crates/history-server/src/history/condition.rs
run 1 "history-client $history delete bob 2 --if pump"
expect "Line 2 does not contain 'pump'; nothing was deleted."
run 0 "history-client $history delete bob 3 --if 'the pump'"
expect 'Line 3 deleted.'

if command -v curl >/dev/null; then
    step 'The page' 'A browser shows the same, live, with a form for a note. Scripts get JSON.' crates/history-server/src/page.rs
    url=http://127.0.0.1:${history#* }
    run 0 "curl -s --noproxy '*' -d user=carol -d text='the pump is off' $url/notes"
    expect 'Noted.'
    run 0 "curl -s --noproxy '*' '$url/history?q=off'"
    expect '"user":"carol"' '"text":"note the pump is off"'
    run 0 "curl -s --noproxy '*' '$url/?q=off' | grep -o 'the pump is off'"
    expect 'the pump is off'
fi

step 'A server with a list of users' 'It serves only those on the list.' crates/history-server/src/users.rs
run 0 "printf 'alice\nbob\n' > users.txt"
start_server members 1 history-server 0 --data-dir members --users users.txt
run 1 "history-client $server hello mallory"
expect 'Authentication error.'
run 0 "history-client $server get alice"
expect ' mallory refused: hello' ' alice 2'
stop_server members

step 'A long history' 'It arrives whole, however long it is.' crates/history-server/src/history/snapshot.rs
run 0 "mkdir long; seq -f '2026-11-20T17:37:53.230Z 127.0.0.1:40000 alice 1 %.0f' 50000 > long/history.txt"
start_server long 1 history-server 0 --data-dir long
run 0 "history-client $server get alice 2> /dev/null | wc -l"
expect 50001
run 0 "python3 tests/python/history_client.py $server 'alice 2' --all | tail -n 1"
expect '50002 20'
stop_server long
stop_server history
