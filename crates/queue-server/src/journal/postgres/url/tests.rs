use super::*;

#[track_caller]
fn parse(text: &str) -> Url {
    Url::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[track_caller]
fn servers(text: &str, want: &[(&str, u16)]) {
    let servers = parse(text).servers;
    let shown = servers.iter().map(|server| match &server.host {
        Host::Name(name) => (name.clone(), server.port),
        Host::Folder(path) => (format!("in {}", path.display()), server.port),
    });
    let shown: Vec<_> = shown.collect();
    let shown: Vec<_> = shown
        .iter()
        .map(|(host, port)| (host.as_str(), *port))
        .collect();
    assert_eq!(shown, want, "{text}");
}

#[track_caller]
fn refused(text: &str, want: &str) {
    let error = Url::parse(text).map(|url| url.to_string()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains(want), "{text}: {error}");
    assert!(!error.contains("s3cret"), "{error}");
}

#[test]
fn every_part_is_read_and_has_its_default() {
    let url = parse(
        "postgresql://jo%40x@db1:6000,db2/queue%20s?target_session_attrs=read-write\
         &sslmode=verify-full&sslrootcert=%2Fca.pem&connect_timeout=3&tcp_user_timeout=2500\
         &application_name=q",
    );
    assert_eq!(url.user.as_deref(), Some("jo@x"));
    assert_eq!(url.database.as_deref(), Some("queue s"));
    assert_eq!(url.ssl_mode, Some(SslMode::VerifyFull));
    assert_eq!(url.ssl_root, Some(SslRoot::File("/ca.pem".into())));
    assert_eq!(url.connect_timeout, Duration::from_secs(3));
    assert_eq!(url.tcp_user_timeout, Duration::from_millis(2500));
    assert_eq!(url.application_name, "q");
    assert_eq!(
        url.to_string(),
        "postgresql://jo%40x@db1:6000,db2/queue%20s"
    );
    assert_eq!(parse(&url.to_string()).servers, url.servers);
    let url = parse("postgres://");
    assert_eq!((url.user, url.database), (None, None));
    assert_eq!((url.ssl_mode, url.ssl_root), (None, None));
    assert_eq!(url.connect_timeout, TIMEOUT_DEFAULT);
    assert_eq!(url.tcp_user_timeout, TIMEOUT_DEFAULT);
    assert_eq!(url.application_name, "queue-server");
    let url = parse("postgresql:///?user=u&dbname=d");
    assert_eq!(url.user.as_deref(), Some("u"));
    assert_eq!(url.database.as_deref(), Some("d"));
}

#[test]
fn a_host_is_a_name_an_address_or_a_folder() {
    servers("postgresql://db", &[("db", 5432)]);
    servers(
        "postgresql://u@a,b:1,c:2/d",
        &[("a", 5432), ("b", 1), ("c", 2)],
    );
    servers("postgresql://[::1]:7,[::2]/d", &[("::1", 7), ("::2", 5432)]);
    servers("postgresql:///d", &[("in /var/run/postgresql", 5432)]);
    servers("postgresql://:9/d", &[("in /var/run/postgresql", 9)]);
    servers("postgresql://%2Ftmp%2Fx:9/d", &[("in /tmp/x", 9)]);
    servers("postgresql:///d?host=/tmp/x&port=9", &[("in /tmp/x", 9)]);
    servers("postgresql:///d?host=/tmp/x", &[("in /tmp/x", 5432)]);
    servers("postgresql:///d?port=9", &[("in /var/run/postgresql", 9)]);
    servers("postgresql:///d?host=a,b&port=9", &[("a", 9), ("b", 9)]);
    servers("postgresql:///d?host=a,b&port=8,9", &[("a", 8), ("b", 9)]);
    let folder = parse("postgresql://u@%2Ftmp%2Fx:9,[::1]:7/d").to_string();
    assert_eq!(folder, "postgresql://u@%2Ftmp%2Fx:9,[::1]:7/d");
}

#[test]
fn a_password_is_refused_and_never_shown() {
    for text in [
        "postgresql://u:s3cret@db/d",
        "postgresql://u:s3@cret@db/d",
        "postgresql://:s3cret@db/d",
        "postgresql://u@db/d?password=s3cret",
    ] {
        refused(text, "PGPASSFILE");
        refused(text, "PGPASSWORD");
    }
    // What stands before the slash looks like a host and its port.
    refused("postgresql://u:s3cret/x@db/d", "port of u");
}

#[test]
fn what_is_not_known_is_refused_with_what_is() {
    refused("mysql://db/d", "postgresql://");
    refused("postgresql:db", "postgresql://");
    refused("postgresql://db?sslcert=x", "'sslcert'");
    refused("postgresql://db?sslcert=x", "sslrootcert");
    refused("postgresql://db?sslmode=allow", "prefer");
    refused("postgresql://db?target_session_attrs=any", "read-write");
    refused("postgresql://db?connect_timeout=0", "1 to 86400");
    refused("postgresql://db?connect_timeout=86401", "1 to 86400");
    refused("postgresql://db?tcp_user_timeout=5s", "milliseconds");
    refused("postgresql://db:0", "port of db");
    refused("postgresql://db:65536", "port of db");
    refused("postgresql://[::1", "']'");
    refused("postgresql://d%zzb", "%");
    refused("postgresql://d%2", "%");
    refused("postgresql://d%00b", "%");
    refused("postgresql://db/%FF", "%");
    refused("postgresql://a,b,c,d,e,f,g,h,i/d", "9");
    refused("postgresql:///d?host=a,b&port=1,2,3", "3 ports");
}

#[test]
fn nothing_may_be_given_twice() {
    refused("postgresql://u@db?user=u", "user");
    refused("postgresql://db/d?dbname=e", "dbname");
    refused("postgresql://db/d?host=e", "host");
    refused("postgresql://db/d?port=1", "host");
    refused(
        "postgresql://db/d?sslmode=require&sslmode=disable",
        "sslmode",
    );
}

#[test]
fn every_mode_has_its_word() {
    let mode = |query: &str| parse(&format!("postgresql://db?{query}")).ssl_mode;
    for (text, want) in [
        ("disable", SslMode::Disable),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ] {
        assert_eq!(mode(&format!("sslmode={text}")), Some(want), "{text}");
    }
    let root = parse("postgresql://db?sslrootcert=system").ssl_root;
    assert_eq!(root, Some(SslRoot::System));
}
