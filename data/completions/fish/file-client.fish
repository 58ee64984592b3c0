# Made of `file-client --help` (data/systemd/README.md).
set -l verbs get post head list batch
complete -c file-client -f
complete -c file-client -n "not __fish_seen_subcommand_from $verbs" -a get -d 'downloads the file at PATH'
complete -c file-client -n "not __fish_seen_subcommand_from $verbs" -a post -d 'uploads FILE to PATH'
complete -c file-client -n '__fish_seen_subcommand_from post' -F
complete -c file-client -n "not __fish_seen_subcommand_from $verbs" -a head -d 'prints the fields of the server\'s reply for a file'
complete -c file-client -n "not __fish_seen_subcommand_from $verbs" -a list -d 'prints the entries of a folder, one a line'
complete -c file-client -n "not __fish_seen_subcommand_from $verbs" -a batch -d 'runs each line of FILE, or of standard input for -'
complete -c file-client -n '__fish_seen_subcommand_from batch' -F
complete -c file-client -s o -l output -r -F -d 'where get saves'
complete -c file-client -l create-only -d 'do not overwrite a file on the server'
complete -c file-client -l resume -d 'with get, post and batch'
complete -c file-client -l update -d 'with get and post'
complete -c file-client -s j -l jobs -x -d 'transfer N files of a folder or lines of a batch at once, 1 to 64'
complete -c file-client -l tls -d 'encrypt with TLS'
complete -c file-client -l tls-ca -r -F -d 'trust the certificates in FILE'
complete -c file-client -l tls-cert -r -F -d 'the certificate of this client, and its key'
complete -c file-client -l tls-key -r -F -d 'the certificate of this client, and its key'
complete -c file-client -l auth-file -r -F -d 'the account'
complete -c file-client -s q -l quiet -d 'say nothing but errors'
complete -c file-client -l timeout -x -d 'the longest wait for anything'
complete -c file-client -l wait-for-server -x -d 'keep trying to connect for this long'
complete -c file-client -s v -l verbose -d 'log more'
complete -c file-client -s h -l help -d 'print this help'
complete -c file-client -s V -l version -d 'print the version'
