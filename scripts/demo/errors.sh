section 'When something is wrong: one sentence, and an exit code'

step 'Wrong usage of a server' 'Exit code 2.' crates/cli/src/app.rs
run 2 'queue-server 55556 PIGEON'
expect "the transport must be TCP, UDP or BOTH, not 'PIGEON'"
run 2 'code-server 8000'
expect 'MESSAGE_PORT is missing'
run 2 'history-server --frobnicate'
expect "unknown option '--frobnicate'"
run 2 'file-server 80800'
expect "PORT must be a port from 0 to 65535, not '80800'"

step 'Wrong usage of a client' 'The same, and a suggestion where a word is near a right one.' crates/cli/src/args/nearest.rs
run 2 'queue-client 127.0.0.1 55556 TCP'
run 2 'file-client 127.0.0.1 8080 give data/message1.txt'
expect "unknown verb 'give', the verbs are get, post, put, head, list, rm, mkdir, mv, batch"
run 2 'queue-client 127.0.0.1 55556 TCP recieve'
expect "unknown verb 'recieve', did you mean receive?"

step 'Trouble with a local file' 'Exit code 2, too.' crates/cli/src/exit.rs
run 2 'queue-client send no-such-file.txt'
expect 'cannot read no-such-file.txt'
run 2 'file-client post no-such-file.txt'
expect 'cannot read no-such-file.txt'
run 2 'file-server 0 --root no-such-folder'
expect 'cannot serve the folder no-such-folder'

step 'A history open to other machines' 'The server wants to know who may use it first.' crates/history-server/src/lib.rs
run 2 'history-server 0 --bind 0.0.0.0'
expect '--users must say who may use the history'

step 'The network' 'A port that is taken, and a port where nobody listens: exit code 3.' crates/cli/src/error.rs
start_server taken 1 queue-server 0 TCP
run 3 "queue-server ${server#* } TCP"
expect 'cannot listen on 127.0.0.1'
stop_server taken
run 3 'history-client 127.0.0.1 1 get alice'
expect 'cannot connect to 127.0.0.1:1'
