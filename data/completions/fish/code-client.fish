# Made of `code-client --help` (data/systemd/README.md).
set -l verbs run request send
complete -c code-client -f
complete -c code-client -n "not __fish_seen_subcommand_from $verbs" -a run -d 'acts as COUNT clients, each with a UUID of its own, that request a code and send a message'
complete -c code-client -n "not __fish_seen_subcommand_from $verbs" -a request -d 'prints UUID and its code on one line'
complete -c code-client -n "not __fish_seen_subcommand_from $verbs" -a send -d 'sends a message'
complete -c code-client -s n -l count -x -d 'how many clients run is, 1 to 1000000'
complete -c code-client -l timeout -x -d 'the longest wait for anything'
complete -c code-client -l wait-for-server -x -d 'keep trying to connect for this long'
complete -c code-client -l tls -d 'encrypt with TLS'
complete -c code-client -l tls-ca -r -F -d 'trust the certificates in FILE'
complete -c code-client -l tls-cert -r -F -d 'the certificate of this client, and its key'
complete -c code-client -l tls-key -r -F -d 'the certificate of this client, and its key'
complete -c code-client -l auth-file -r -F -d 'the account'
complete -c code-client -s q -l quiet -d 'say nothing but errors'
complete -c code-client -s v -l verbose -d 'log more'
complete -c code-client -s h -l help -d 'print this help'
complete -c code-client -s V -l version -d 'print the version'
