//! What is refused over HTTP, and in which words.

use super::*;

#[test]
fn what_is_wrong_is_said_in_json() {
    if !is_ready() {
        return;
    }
    let server = Server::start(
        "queue-server",
        &["0", "--max-message", "10", "--max-messages", "2"],
    );
    let token = "/leases/0b6ab2d4-5d49-4a8f-8c39-2f0cbd2a9d3f";
    let long = "x".repeat(2049);
    let chunked = ["--header", "Transfer-Encoding: chunked"];
    let chunks = [&["--data", "01234567890"], &chunked[..]].concat();
    for (args, target, status, part) in [
        (vec![], "/nothing", 404, "/openapi.json"),
        (
            vec!["--request", "PUT"],
            "/queues",
            405,
            "the methods here are HEAD, GET",
        ),
        (vec![], "/queues/a/lease", 405, "POST"),
        (vec![], "/queues/a%2Fb/messages", 400, "'a/b'"),
        (vec![], "/queues/a/messages?state=gone", 400, "'gone'"),
        (vec![], "/queues/a/messages?limit=0", 400, "1 to 1000"),
        (vec![], "/queues/a/messages?bytes=4097", 400, "0 to 4096"),
        (vec![], "/queues/a/messages?foo=1", 400, "'foo'"),
        (vec![], "/queues?x", 400, "there are none here"),
        (vec![], "/queues/a/messages/x", 400, "'x'"),
        (vec![], "/queues/a/messages/7", 404, "NotFound"),
        (
            vec!["--data", "x"],
            "/queues/a/messages?delay=soon",
            400,
            "'soon'",
        ),
        (
            vec!["--data", "x"],
            "/queues/a/messages?delay=50d",
            400,
            "49d",
        ),
        (
            vec!["--data", "x"],
            "/queues/a/messages?priority=10",
            400,
            "'10'",
        ),
        (
            vec!["--data", "x"],
            "/queues/a/messages?max-attempts=0",
            400,
            "'0'",
        ),
        (
            vec!["--data", "x"],
            "/queues/a/messages?expires=0",
            400,
            "'0'",
        ),
        (
            vec!["--data", "x", "--header", "Queue-Priority: 1"],
            "/queues/a/messages?priority=2",
            400,
            "more than one",
        ),
        (
            vec!["--data", "x"],
            "/queues/a/messages?priority=2&priority=3",
            400,
            "the parameter 'priority' has two values",
        ),
        (
            vec!["--data", "x"],
            "/queues/a/messages?key=",
            400,
            "the key is empty",
        ),
        (
            vec!["--data", "x", "--header", "Queue-Key;"],
            "/queues/a/messages",
            400,
            "the key is empty",
        ),
        (
            vec!["--data", "x"],
            "/queues/a.dead/messages?key=k",
            400,
            "dead letters hold none",
        ),
        (
            vec!["--data", "01234567890"],
            "/queues/a/messages",
            413,
            "11 bytes exceeds the limit of 10",
        ),
        (chunks, "/queues/a/messages", 413, "exceeds the limit of 10"),
        (
            vec!["--request", "DELETE", "--data", "x"],
            token,
            400,
            "no body",
        ),
        (DELETE.to_vec(), "/leases/7", 400, "a token is a UUID"),
        (PATCH.to_vec(), token, 400, "seconds"),
        (
            POST.to_vec(),
            "/queues/a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q/lease",
            400,
            "16",
        ),
        (POST.to_vec(), "/queues/a/pause", 404, "'a'"),
        (POST.to_vec(), "/queues/a/messages/7/move", 400, "''"),
        (POST.to_vec(), "/queues/a/messages/7/kick", 404, ""),
    ] {
        server.check_ask(&args, target, status, part);
    }
    let release = format!("{token}/release");
    server.check_ask(
        &["--data", &long],
        &release,
        413,
        "a reason exceeds 2048 bytes",
    );
    let both = format!("{release}?retry=never&delay=1s");
    server.check_ask(&POST, &both, 400, "has no delay");
    send(&server, "a", "1");
    send(&server, "a", "2");
    server.check_ask(&["--data", "3"], "/queues/a/messages", 507, "\"code\":8");
    // All of them are JSON with the same three fields, also what no handler has seen.
    for args in [
        vec!["--header", "Host: evil.example"],
        vec!["--request", "FOO"],
    ] {
        let (_, body) = server.ask(&args, "/queues");
        let said: Value = serde_json::from_str(&body).unwrap();
        assert!(said["error"].is_string() && said["code"].is_u64(), "{said}");
        assert!(said["name"].is_string(), "{said}");
    }
}
