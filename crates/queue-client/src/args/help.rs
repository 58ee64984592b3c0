//! What `queue-client --help` prints.

pub(super) const HELP: &str = "\
Sends messages to a queue server, receives them, and runs commands for them.

Usage: queue-client [HOST[,HOST...] PORT [TCP|UDP]] VERB [OPTIONS]
       queue-client unix:/path VERB [OPTIONS]

Arguments:
  HOST PORT              the server [default: $QUARTET_QUEUE, else 127.0.0.1 55556]
  HOST,HOST... PORT      2 to 8 servers, of which one is active and the others stand by:
                         each is tried in turn, for at most 3 s, over TCP
  unix:/path             a server's Unix socket
  TCP|UDP                the transport, in any case [default: TCP]

Verbs:
  send FILE|-            sends the file's contents as a message; - is standard input
      --lines            send each line as a message
      --null             send each piece that ends with a NUL as a message
      --delay TIME       the messages become ready after TIME [default: 0]
      --priority N       0 to 9, the higher first [default: 0]
      --key KEY          store no other message with this key, while this one is there or
                         was acknowledged lately
      --expires TIME     a message that is not received within TIME goes to the queue
                         NAME.dead [default: never]
      --max-attempts N   how often a message is handed out before it goes to the queue
                         NAME.dead [default: as the server says]
      --max-message SIZE the longest message that is sent [default: 3000]
      --truncate         send the first --max-message bytes of a longer file
  receive                prints the oldest message
      --wait TIME        if there is none, wait up to TIME for one, over TCP [default: 0]
      --count N          receive up to N messages, each on a line of its own
      --follow           receive without end, each message on a line of its own, over TCP
      --delimiter TEXT   print TEXT behind each message
      --null             print a NUL behind each message
  work -- COMMAND [ARGS] runs the command for each message, over TCP; the message is on its
                         standard input, QUEUE_NAME, QUEUE_MESSAGE_ID and QUEUE_ATTEMPT in
                         its environment; a message whose command succeeds is acknowledged;
                         SIGTERM lets running commands finish, a second one stops them
      --jobs N           commands at once, 1 to 256 [default: 1]
      --once             end after one message
      --drain            end when the queue is empty, no command runs and no message is
                         delayed
      --wait TIME        end when no message came for TIME [default: never]
      --backoff MIN..MAX the delay of a message whose command failed: at random MIN to twice
                         MIN after the first attempt, doubled after each further one, and
                         never more than MAX; 0 is none [default: 1s..5m]
      --retry-delay TIME the same as --backoff TIME..TIME
      --dead-on CODE,... the exit codes after which a message is not tried again, but goes
                         to the queue NAME.dead
      --uncounted-on CODE,...
                         the exit codes after which the attempt does not count: not the
                         message failed, but what its command needs
      --time-limit TIME  how long a command may run; it is then ended, by SIGTERM and after
                         10 s by SIGKILL, and has failed
  lease TIME FILE        leases the oldest message for TIME, writes it to FILE, and prints
                         the token of the lease
      --wait TIME        if there is none, wait up to TIME for one [default: 0]
  ack TOKEN|-            acknowledges a leased message; - reads the token from standard
                         input, because other users can see a command line
  release TOKEN|-        releases a leased message, to the end of its queue
      --retry-delay TIME its delay [default: 0]
      --reason TEXT      why; it is kept with the message, and shown by peek
  extend TOKEN|- TIME    the lease expires TIME from now
  release --id ID        frees a message that somebody has reserved, as if its holder were
                         gone
      --holder ID        frees all that a connection has reserved; peek --reserved tells its
                         ID
  peek                   prints the oldest message, and leaves it where it is; says in which
                         state it is, its age, its attempts, and why the last one failed
      --reserved, --delayed, --dead
                         the oldest that is reserved, delayed, or a dead letter
      --id ID            this message, in any state
      --count N, --delimiter TEXT, --null   as with receive
      --json             print a line of JSON for each message, with all that is known of it
  list                   the queues, one a line: name, ready, reserved, delayed and dead
                         messages, age of the oldest ready and of the oldest reserved one in
                         seconds, and whether it is paused
      --json             print a line of JSON for each queue
      --max-ready N, --max-age TIME
                         exit with 1 if a queue has more messages ready, or one that is
                         ready or reserved is older; queues of dead letters do not count
  stats                  the same and totals, one number a line
      --json             as JSON
  delete --id ID         removes a message, in any state
  move --id ID QUEUE     moves a message to the end of QUEUE, from any state
  purge                  removes all messages that are not reserved
  pause, resume          the queue hands out nothing, or hands out messages again
  kick NAME              moves the dead letters in NAME.dead to the end of NAME
  kick --id ID           makes a message ready that is delayed or a dead letter
  drain                  the server accepts no new messages in any queue
      --off              it accepts them again

A TIME is in seconds, as 90 or 90s, or as 15m, 2h or 7d; a delay, wait, limit
or lease is at most 49d. A SIZE is in bytes, as 4096, or in units of 1024, as 64K or 10M.

Options:
  --queue NAME           the queue, 1 to 64 of A-Z a-z 0-9 . _ - [default: default]; a
                         message with an ID is looked for in it and among its dead letters
  --queue NAME,NAME...   for receive, work and lease: at most 16 queues; a message is
                         received from the first that has one
  --timeout TIME         the longest wait for an answer [default: 30]
  --wait-for-server TIME keep trying to connect for this long, also after a restart of the
                         server, and while it stands by [default: 0; for work, receive
                         --follow and send --lines or --null, 1m once it was reached]
  --tls                  encrypt with TLS; the server's certificate must be for HOST
  --tls-ca FILE          trust the certificates in FILE [default: the system's]
  --tls-cert FILE, --tls-key FILE
                         the certificate of this client, and its key
  --auth-file FILE|-     the account: the first line of FILE is USER:PASSWORD, and only its
                         owner may read FILE
  -q, --quiet            say nothing but errors
  -v, --verbose          log more
  -h, --help             print this help
  -V, --version          print the version

Exit codes:
  0  done
  1  the queue is empty, the server refused, the command of 'work --once' failed, or a
     message of 'work' became a dead letter
  2  wrong usage, a file cannot be read or written, or is over the limit, or the command of
     'work' cannot be started
  3  cannot connect, no TLS that can be trusted, timed out, connection lost, a malformed
     reply, or a server that shuts down, stands by, or does not know whether it has done it

Examples:
  queue-client send data/message1.txt
  find . -name '*.jpg' | queue-client send --queue pictures --lines -
  queue-client work --queue pictures --jobs 2 -- sh -c 'f=$(cat); convert \"$f\" \"$f.png\"'
";
