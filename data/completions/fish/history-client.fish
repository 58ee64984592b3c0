# Made of `history-client --help` (data/systemd/README.md).
set -l verbs send hello delete get clear
complete -c history-client -f
complete -c history-client -n "not __fish_seen_subcommand_from $verbs" -a send -d 'sends \'USER\', \'USER 1 N\', \'USER 2\' or \'USER 3\''
complete -c history-client -n "not __fish_seen_subcommand_from $verbs" -a hello -d 'sends \'USER\''
complete -c history-client -n "not __fish_seen_subcommand_from $verbs" -a delete -d 'sends \'USER 1 N\''
complete -c history-client -n "not __fish_seen_subcommand_from $verbs" -a get -d 'sends \'USER 2\''
complete -c history-client -n "not __fish_seen_subcommand_from $verbs" -a clear -d 'sends \'USER 3\''
complete -c history-client -l timeout -x -d 'the longest wait for anything'
complete -c history-client -l wait-for-server -x -d 'keep trying to connect for this long'
complete -c history-client -l tls -d 'encrypt with TLS'
complete -c history-client -l tls-ca -r -F -d 'trust the certificates in FILE'
complete -c history-client -l tls-cert -r -F -d 'the certificate of this client, and its key'
complete -c history-client -l tls-key -r -F -d 'the certificate of this client, and its key'
complete -c history-client -l auth-file -r -F -d 'the account'
complete -c history-client -s q -l quiet -d 'say nothing but errors'
complete -c history-client -s v -l verbose -d 'log more'
complete -c history-client -s h -l help -d 'print this help'
complete -c history-client -s V -l version -d 'print the version'
