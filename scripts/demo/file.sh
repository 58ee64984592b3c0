section 'The file service: gives and takes files'

step 'Start the file server' 'It serves one folder. It would end by itself when nobody asks; here it does not.' crates/file-server/src/lib.rs
start_server file 1 file-server 0 --root data --idle-exit 0
file=$server
url=http://${file/ /:}

step 'Get files' 'A dash is standard output. What arrives is the same, byte for byte.' \
    crates/file-client/src/download.rs
run 0 "file-client $file get server/testServer.txt -o -"
expect "$(cat data/server/testServer.txt)" 'Received server/testServer.txt: 396 bytes'
run 0 "file-client $file get server/photoServer.jpg -o photo.jpg"
same photo.jpg data/server/photoServer.jpg

step 'Send files' 'Without a PATH a file stands at the root under its own name. The server makes folders that are missing.' \
    crates/file-client/src/upload.rs
run 0 "file-client $file post data/client/testClient.txt"
expect 'File received and saved'
same data/testClient.txt data/client/testClient.txt
run 0 "file-client $file post data/client/photoClient.jpg albums/2026/photo.jpg"
expect 'File received and saved'
same data/albums/2026/photo.jpg data/client/photoClient.jpg

step 'A folder, there and back' 'Several files at once. With --update only what has changed is sent; a pattern gets what matches it.' \
    crates/file-client/src/folder_transfer.rs
run 0 "mkdir -p trip/day-1; cp -p data/client/* trip/day-1/; echo notes > 'trip/what we saw?.txt'"
run 0 "file-client $file put trip -j 4"
expect 'Sent trip: 3 files, 37739 bytes; 0 skipped, 0 failed'
run 0 "file-client $file get trip/ -o back -j 4"
expect 'Saved back: 3 files, 37739 bytes; 0 skipped, 0 failed'
run 0 'diff -r trip back'
run 0 "echo more >> 'trip/what we saw?.txt'; file-client $file put trip --update"
expect 'Sent trip: 1 file, 11 bytes; 2 skipped, 0 failed'
run 0 "file-client $file get 'trip/day-1/*.jpg'"
expect 'Saved .: 1 file, 37469 bytes; 0 skipped, 0 failed'
same photoClient.jpg data/client/photoClient.jpg

step 'Tidy' 'A server with --manage renames and deletes, but a full folder only if that is said.' \
    crates/file-server/src/files/manage.rs
start_server tidy 1 file-server 0 --root data --idle-exit 0 --manage
run 0 "file-client $server mkdir old; file-client $server mv albums/2026/photo.jpg old/"
expect 'Created old' 'Renamed albums/2026/photo.jpg to old/photo.jpg'
same data/old/photo.jpg data/client/photoClient.jpg
run 1 "file-client $server rm old"
expect 'rm -r does'
run 0 "file-client $server rm -r old"
expect 'Deleted old'
run 1 'test -e data/old'
run 1 "file-client $file rm testClient.txt"
expect 'file-server does with --manage'
stop_server tidy

step 'What is not there' 'That is a 404, and exit code 1; nothing is saved.' crates/file-server/src/download.rs
run 1 "file-client $file get server/missing.txt"
expect '404 Not Found'
run 1 'test -e missing.txt'

step 'No way out' 'Neither a path nor a symbolic link leads outside the root.' crates/file-server/src/files/root.rs
run 1 "file-client $file get ../users.txt"
expect '400 Bad Request'
run 1 "file-client $file post data/client/testClient.txt ../outside.txt"
expect '400 Bad Request'
run 1 'test -e outside.txt'
run 0 'mkdir outside; echo secret > outside/secret.txt; ln -s ../outside data/door'
run 1 "file-client $file get door/secret.txt -o -"
run 1 "file-client $file post data/client/testClient.txt door/new.txt"
run 0 'ls outside'
[ "$output" = secret.txt ] || wrong="${wrong}something was written outside; "

step 'The prompt' 'Without a verb the client asks for one command after another.' crates/file-client/src/prompt.rs
run 0 "printf 'GET server/style.css\nPOST data/client/testClient.txt\nGET nowhere\nexit\n' | file-client $file"
expect 'Enter command (GET/POST file_path): ' 'Saved style.css: 2884 bytes' \
    'Sent testClient.txt: 264 bytes, File received and saved' 'nowhere: the server refused: 404 Not Found'

step 'A batch of requests' 'The lines of a file, here with the port of this server; with -j several at once.' crates/file-client/src/batch.rs
run 0 "sed 's/ 8080\$/ ${file#* }/' data/batch.txt > batch.txt; grep ^client batch.txt"
run 0 "file-client $file batch batch.txt"
expect 'Saved photoServer.jpg: 67175 bytes' 'Sent photoClient.jpg: 37469 bytes' 'Saved diagram.png: 52893 bytes'
same diagram.png data/server/diagram.png
run 0 "file-client $file batch batch.txt -j 4"
expect '[job-1] ' '[job-2] ' 'Saved photoServer.jpg: 67175 bytes' 'Sent photoClient.jpg: 37469 bytes' 'Saved diagram.png: 52893 bytes'
same photoServer.jpg data/server/photoServer.jpg
same data/photoClient.jpg data/client/photoClient.jpg
run 0 "printf 'client_get nowhere localhost\nclient_get server/testServer.txt localhost\n' > batch.txt"
run 1 "file-client $file batch batch.txt"
expect 'Line 1: nowhere: the server refused: 404 Not Found' 'Saved testServer.txt' '1 of 2 requests failed'

step 'The original Python client' 'A GET and a POST, as raw bytes on one connection.' tests/python/file_client.py
run 0 "python3 tests/python/file_client.py $file server/index.html page.html data/client/photoClient.jpg old/photo.jpg"
expect 'GET: HTTP/1.1 200 OK' 'POST: HTTP/1.1 200 OK'
same page.html data/server/index.html
same data/old/photo.jpg data/client/photoClient.jpg

step 'Part of a file' 'A range of bytes, and what the server says of a file.' crates/proto/src/http/range.rs
run 0 "python3 range.py $file /client/testClient.txt bytes=0-34"
expect 'This file starts out on the client.'
[ "${#output}" = 35 ] || wrong="${wrong}there is more than was asked for; "
run 0 "file-client $file head client/testClient.txt"
expect 'Accept-Ranges: bytes' 'Content-Length: 264' 'ETag: "'

if command -v curl >/dev/null; then
    step 'The same with curl' 'It uploads, gets a part, and replaces nothing if it is told so.' crates/proto/src/http/conditional.rs
    run 0 "curl -s --noproxy '*' -T data/client/testClient.txt $url/notes/today.txt"
    expect 'File received and saved'
    run 0 "curl -s --noproxy '*' -r 0-34 $url/notes/today.txt"
    expect 'This file starts out on the client.'
    run 0 "curl -s --noproxy '*' -w ' %{http_code}' -T data/message1.txt -H 'If-None-Match: *' $url/notes/today.txt"
    expect ' 412'
    step 'A text is compressed on the way' 'Its compressed form has a tag of its own, since its bytes are others.' \
        crates/file-server/src/compression.rs
    run 0 "curl -sI --noproxy '*' -H 'Accept-Encoding: gzip' $url/server/index.html"
    expect 'Content-Encoding: gzip' '-gzip"'
    run 0 "curl -s --noproxy '*' -H 'Accept-Encoding: gzip' $url/server/index.html | gunzip > page.html"
    same page.html data/server/index.html
fi

if command -v curl >/dev/null && command -v unzip >/dev/null; then
    step 'A folder as a zip' 'It is made while it is sent, and names what it lacks.' crates/file-server/src/archive.rs
    run 0 "ln -s ../albums data/client/albums"
    run 0 "curl -sOJ --noproxy '*' $url/client/?zip"
    run 0 'unzip -d unpacked client.zip'
    expect 'client/albums: a link to a folder' 'extracting: unpacked/client/testClient.txt'
    same unpacked/client/photoClient.jpg data/client/photoClient.jpg
fi

if command -v wget >/dev/null; then
    step 'wget continues a download' 'It asks for the range that it lacks.' crates/proto/src/http/range.rs
    run 0 'head -c 20000 data/server/photoServer.jpg > half.jpg'
    run 0 "wget -nv --no-proxy -c -O half.jpg $url/server/photoServer.jpg"
    same half.jpg data/server/photoServer.jpg
fi

step 'kill -9 in the middle of an upload' 'With --resume, what has arrived stays on the server, but nobody sees it.' \
    crates/file-client/src/resumable_upload.rs
run 0 'head -c 128000000 /dev/urandom > big.iso'
start_client upload "file-client $file put big.iso --resume"
await_file 'data/.quartet-upload-*' 1000000
kill_process "$client"
run 1 "file-client $file get big.iso -o copy.iso"
expect '404 Not Found'
run 1 "file-client $file list | grep iso"

step 'kill -9 for the server too' 'It finds the upload when it starts again, and the client continues where it was.' \
    crates/file-server/src/files/unfinished.rs
kill_server file
run 0 "ls -A data | grep -c '^\.quartet-upload-.*\.head\$'"
expect 1
start_server file 1 file-server "${file#* }" --root data --idle-exit 0 --verbose
run 0 "file-client $file put big.iso --resume"
expect 'Sent big.iso: 128000000 bytes, File received and saved'
run 0 'grep -oE "(HEAD|POST|PATCH) /[.a-z]*" file.log'
expect $'HEAD /.quartet\nPATCH /.quartet'
same big.iso data/big.iso
run 1 'ls -A | grep quartet-upload'
run 0 "ls -A data | grep -c '^\.quartet-upload-.*\.head\$'"
expect 1

step 'kill -9 in the middle of a download' 'What has arrived is not fetched again, as long as the file on the server is the same.' \
    crates/file-client/src/resumable_download.rs
start_client download "file-client $file get big.iso -o copy.iso --resume"
await_file .quartet-download-copy.iso 1000000
kill_process "$client"
run 1 'test -e copy.iso'
run 0 "file-client $file get big.iso -o copy.iso --resume"
expect 'Saved copy.iso: 128000000 bytes'
same big.iso copy.iso
run 0 'rm big.iso copy.iso data/big.iso'

step 'An upload in two parts' 'Any HTTP client can do it: begin, ask how much has arrived, append. A wrong offset is refused.' \
    crates/proto/src/http/resumable.rs
run 0 "python3 parts.py $file"
expect 'POST 201 Upload-Offset: 9' 'GET 404' 'HEAD 204 Upload-Offset: 9' 'PATCH 409 Upload-Offset: 9' 'PATCH 200'
run 0 'cat data/parts.txt'
expect 'one part and another'

step 'Accounts' 'USER:PASSWORD on each line, hashed as openssl passwd -6 does; a plain password wants mode 600. Without one no client may read or write.' \
    crates/daemon/src/accounts.rs
run 0 "printf 'alice:correct horse\n' > accounts; chmod 644 accounts"
run 2 'file-server 0 --root data --auth-file accounts'
expect 'accounts holds a plain password and others can read it'
run 0 'chmod 600 accounts'
start_server accounts 1 file-server 0 --root data --auth-file accounts
run 1 "file-client $server put data/message1.txt"
expect '401 Unauthorized, this needs a user and a password'
run 0 "printf 'alice:wrong\n' > wrong; chmod 600 wrong"
run 1 "file-client $server put data/message1.txt --auth-file wrong"
expect '401 Unauthorized'
run 1 'test -e data/data/message1.txt'
run 0 "file-client $server put data/message1.txt sent.txt --auth-file accounts"
expect 'Sent message1.txt: 41 bytes'
run 0 "file-client $server get sent.txt -o - --auth-file accounts"
expect "$(cat data/message1.txt)"
stop_server accounts

step 'Roles' 'Behind a hash stands what its user may do; with --auth-read-free reading needs no account; with --read-only no client may write.' \
    crates/file-server/src/access.rs
run 0 "echo 'alice:\$6\$quartet\$r3/98rv3XK4RtpUJA5kB9oAOMDyN3WQurT2EosspR/wCj4mjZKEDPkozAf7gMkmbAhXGGu6JEIksimE4GOADR/:read' > hashed"
start_server all 1 file-server 0 --root data --auth-file hashed
run 1 "file-client $server list"
expect '401 Unauthorized'
run 0 "file-client $server get sent.txt -o - --auth-file accounts"
expect "$(cat data/message1.txt)"
run 1 "file-client $server put data/message1.txt --auth-file accounts"
expect "403 Forbidden, this needs the role write, and the user 'alice' has the role read"
stop_server all
start_server free 1 file-server 0 --root data --auth-file hashed --auth-read-free
run 0 "file-client $server get sent.txt -o -"
expect "$(cat data/message1.txt)"
stop_server free
start_server readonly 1 file-server 0 --root data --read-only
run 1 "file-client $server post data/client/testClient.txt"
expect '403 Forbidden, this server accepts no uploads'
stop_server readonly

step 'For an hour' 'One file, at /, for two seconds here.' crates/file-server/src/reach.rs
run 0 'file-server 0 --root data/message1.txt --for 2'
expect 'ends after 2s' 'The time of this server is over' 'Shutting down server'

step 'A server that ends by itself' 'When no request has come for a time, 60 seconds unless told otherwise.' crates/daemon/src/registry.rs
run 0 'file-server 0 --root data --idle-exit 1'
expect 'Server started on ' 'No request for 1 s' 'Shutting down server'
stop_server file
