section 'A crowd: the connection limit, and a shutdown under load'

step 'A queue for two connections' 'A connection that waits may not use them all: a sender must always find one.' crates/daemon/src/eviction.rs
start_server crowd 1 queue-server 0 TCP --max-connections 2 --verbose
crowd=$server
start_client waiting "queue-client $crowd receive --wait 30"
waiting=$client
await_line 'Receive' crowd.log
run 1 "queue-client $crowd receive --wait 30"
expect '--max-connections'
run 0 "echo 'for the one that waits' | queue-client $crowd send -"
end_client 0 "$waiting" waiting
expect 'for the one that waits'
stop_server crowd

step 'The connection limit is met' 'Two connections send half a frame each, so neither is idle and can be evicted at once. The third is told so.' \
    crates/daemon/src/accept.rs
start_server busy 1 queue-server 0 TCP --max-connections 2 --verbose
busy=$server
printf '$ exec 4<>/dev/tcp/%s 5<>/dev/tcp/%s; printf "\\0" >&4; printf "\\0" >&5\n' "${busy/ //}" "${busy/ //}"
exec 4<>"/dev/tcp/${busy/ //}" 5<>"/dev/tcp/${busy/ //}"
printf '\0' >&4
printf '\0' >&5
await 2 Connected busy.log || wrong='they are not accepted; '
run 1 "echo 'no place for me' | queue-client $busy send -"
expect 'connections'

step 'Trying again' 'With --wait-for-server a client tries again until a connection is free.' crates/queue-client/src/reconnect.rs
start_client patient "echo 'I can wait' | queue-client $busy send - --wait-for-server 30"
printf '$ exec 4>&- 5>&-\n'
exec 4>&- 5>&-
end_client 0 "$client" patient
run 0 "queue-client $busy receive"
expect 'I can wait'
stop_server busy

step 'Shutdown under load' 'A sender never stops, a receiver waits. Both are told; what was answered OK is on disk.' crates/daemon/src/registry.rs
start_server load 1 queue-server 0 TCP --data load.db
load=$server
start_client receiver "queue-client $load receive --queue other --wait 30"
receiver=$client
start_client sender "yes | queue-client $load --wait-for-server 0 send --queue load --lines -"
sender=$client
run 0 "queue-client $load receive --queue load --wait 30"
stop_server load
end_client 3 "$receiver" receiver
end_client 3 "$sender" sender
answered=$(sed -n 's/.*[; ]\([0-9]*\) were;.*/\1/p' sender.err)
start_server load 1 queue-server 0 TCP --data load.db
run 0 "queue-client $server list"
kept=$(cut -f 2 <<<"$output")
# One was received. Of those without an answer some may be kept, too.
[ "$kept" -ge $((answered - 1)) ] || wrong="${wrong}$answered were answered OK, and only $kept are kept; "
stop_server load
