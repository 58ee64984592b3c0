use proto::queue::Token;

use std::time::Duration;

use proto::queue::{BODY_BYTES_DEFAULT, Priority, Properties};

use super::*;
use crate::{Backoff, Send, Source, TokenSource};

fn parse(line: &str) -> Result<Config, String> {
    APP.config_of(line.split_whitespace())
}

#[track_caller]
fn check(line: &str, want: Action) {
    assert_eq!(parse(line).unwrap().action, want, "{line}");
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const NO_PROPERTIES: Properties = Properties {
    delay_millis: 0,
    priority: Priority::NORMAL,
    key: None,
    expiry_millis: 0,
    attempts_max: 0,
};

const SEND: Send = Send {
    source: Source::Stdin,
    piece_end: None,
    properties: NO_PROPERTIES,
    body_bytes_max: BODY_BYTES_DEFAULT,
    truncate: false,
    key: None,
};

const RECEIVE: Receive = Receive {
    count: Some(1),
    wait: Duration::ZERO,
    ending: Ending::None,
};

#[test]
fn the_help_has_each_option() {
    APP.check_help();
}

#[test]
fn who_goes_on_by_itself_waits_for_a_server_that_it_has_reached() {
    let waits = |line: &str| {
        let config = parse(line).unwrap();
        (config.wait_at_first, config.endpoint.wait_for_server)
    };
    for line in [
        "work -- cat",
        "receive --follow",
        "send - --lines",
        "send - --null",
    ] {
        assert_eq!(waits(line), (secs(0), secs(60)), "{line}");
        let none = format!("--wait-for-server 0 {line}");
        assert_eq!(waits(&none), (secs(0), secs(0)), "{line}");
        let said = format!("--wait-for-server 9 {line}");
        assert_eq!(waits(&said), (secs(9), secs(9)), "{line}");
    }
    for line in [
        "send -",
        "receive",
        "receive --count 2",
        "lease 9 f",
        "purge",
    ] {
        assert_eq!(waits(line), (secs(0), secs(0)), "{line}");
    }
}

#[test]
fn the_server_may_be_left_out() {
    let config = parse("LIST").unwrap();
    let default = Address::new("127.0.0.1", PORT_DEFAULT);
    assert_eq!(config.endpoint.address, default);
    assert_eq!(config.queues, ["default"]);
    let config = parse("h 7 udp --queue jobs.dead peek").unwrap();
    assert_eq!(config.transport, Transport::Udp);
    assert_eq!(config.endpoint.address, Address::new("h", 7));
    assert_eq!(config.queues, ["jobs.dead"]);
    let config = parse("a,b 7 peek").unwrap();
    assert_eq!(config.endpoint.address, Address::new("a", 7));
    assert_eq!(config.endpoint.others, [Address::new("b", 7)]);
    let several = parse("receive --queue urgent,default").unwrap();
    assert_eq!(several.queues, ["urgent", "default"]);
    let config = parse("unix:/q peek --auth-file -").unwrap();
    assert_eq!(config.endpoint.address, Address::new("unix:/q", 0));
    assert_eq!(config.transport, Transport::Tcp);
}

#[test]
fn sending() {
    check("send -", Action::Send(SEND));
    let cut = Send {
        source: Source::File("f".into()),
        body_bytes_max: 5,
        truncate: true,
        key: None,
        ..SEND
    };
    check("--truncate send --max-message=5 f", Action::Send(cut));
    let lines = Send {
        piece_end: Some(b'\n'),
        properties: Properties {
            delay_millis: 2000,
            priority: Priority::new(9).unwrap(),
            expiry_millis: 3_600_000,
            attempts_max: 3,
            key: None,
        },
        ..SEND
    };
    let line = "send - --lines --delay 2 --priority 9 --expires 1h --max-attempts 3";
    check(line, Action::Send(lines));
    let null = Send {
        piece_end: Some(0),
        ..SEND
    };
    check("send - --null", Action::Send(null));
    let escaped = Send {
        source: Source::File("--lines".into()),
        ..SEND
    };
    check("send -- --lines", Action::Send(escaped));
}

#[test]
fn receiving() {
    check("receive", Action::Receive(RECEIVE));
    let two = Receive {
        count: Some(2),
        wait: secs(3),
        ending: Ending::Line,
    };
    check("receive --count 2 --wait 3", Action::Receive(two));
    let follow = Receive {
        count: None,
        ending: Ending::Always(vec![0]),
        ..RECEIVE
    };
    check("receive --follow --null", Action::Receive(follow));
    let delimited = Receive {
        ending: Ending::Always(b"--".to_vec()),
        ..RECEIVE
    };
    check("receive --delimiter=--", Action::Receive(delimited));
    let peek = Peek {
        which: Which::First(MessageState::Ready),
        count: 1,
        ending: Ending::None,
        json: false,
    };
    check("peek", Action::Peek(peek.clone()));
    let lines = Peek {
        ending: Ending::Line,
        ..peek.clone()
    };
    check("peek --count 1", Action::Peek(lines));
    let json = Peek {
        json: true,
        ..peek.clone()
    };
    check("peek --json", Action::Peek(json));
    for (option, which) in [
        ("--id 42", Which::One(42)),
        ("--reserved", Which::First(MessageState::Reserved)),
        ("--delayed", Which::First(MessageState::Delayed)),
        ("--dead", Which::Dead),
    ] {
        let one = Peek {
            which,
            ..peek.clone()
        };
        check(&format!("peek {option}"), Action::Peek(one));
    }
}

#[test]
fn working() {
    let work = Work {
        jobs: 1,
        once: false,
        drain: false,
        wait: None,
        backoff: Backoff {
            min: secs(1),
            max: secs(300),
        },
        dead_on: Vec::new(),
        uncounted_on: Vec::new(),
        time_limit: None,
        command: "cat".into(),
        args: Vec::new(),
    };
    check("work -- cat", Action::Work(work.clone()));
    let many = Work {
        jobs: 8,
        drain: true,
        wait: Some(Duration::ZERO),
        backoff: Backoff::constant(secs(1)),
        args: vec!["--jobs".into(), "--".into()],
        ..work.clone()
    };
    let line = "work --jobs 8 --drain --retry-delay 1 -- cat --jobs --";
    check(line, Action::Work(many));
    let careful = Work {
        backoff: Backoff {
            min: secs(5),
            max: secs(600),
        },
        dead_on: vec![65, 78],
        uncounted_on: vec![75],
        time_limit: Some(secs(600)),
        ..work.clone()
    };
    let line = "work --backoff 5s..10m --dead-on 65,78 --uncounted-on 75 --time-limit 10m -- cat";
    check(line, Action::Work(careful));
    let at_once = Work {
        backoff: Backoff::constant(Duration::ZERO),
        ..work.clone()
    };
    check("work --backoff 0s -- cat", Action::Work(at_once));
    let once = Work {
        once: true,
        wait: Some(secs(9)),
        ..work
    };
    check("--once work --wait 9 -- cat", Action::Work(once));
}

#[test]
fn leasing() {
    let token: Token = "0b6ab2d4-5d49-4a8f-8c39-2f0cbd2a9d3f".parse().unwrap();
    let lease = Lease {
        lease: secs(60),
        wait: secs(1),
        path: "f".into(),
    };
    check("lease 60 f --wait 1", Action::Lease(lease));
    let given = TokenSource::Given(token);
    check(&format!("ack {token}"), Action::Ack(given));
    check("ack -", Action::Ack(TokenSource::Stdin));
    let release = Action::Release(given, secs(4), String::new());
    check(&format!("release {token} --retry-delay 4"), release);
    let explained = Action::Release(given, secs(0), "ill".to_owned());
    check(&format!("release {token} --reason ill"), explained);
    check(&format!("extend {token} 5"), Action::Extend(given, secs(5)));
}

#[test]
fn one_message() {
    check("delete --id 7", Action::Delete(7));
    check("kick --id 7 --queue jobs", Action::KickOne(7));
    check("move --id 7 42", Action::Move(7, "42".to_owned()));
    check("release --id 7", Action::ReleaseOne(7));
    check("release --holder 4", Action::ReleaseHolder(4));
    let config = parse("move --queue jobs --id 7 other").unwrap();
    assert_eq!(config.queues, ["jobs"]);
    check_refused("delete", "the --id ID of the message is missing");
    check_refused("move other", "the --id ID of the message is missing");
    check_refused("move --id 7", "the QUEUE that it goes to is missing");
    check_refused("delete 7", "the --id ID of the message is missing");
    check_refused("kick jobs --id 7", "there is one argument too many: 'jobs'");
    let number = "--id must be a number from 1 to 18446744073709551615, not '0'";
    check_refused("delete --id 0", number);
    check_refused("purge --id 1", "--id does not go with purge");
    check_refused("ack - --holder 1", "--holder does not go with ack");
}

#[test]
fn looking_after_it() {
    check("list", Action::List(List::default()));
    let list = List {
        json: true,
        ready_max: Some(100),
        age_max: Some(secs(600)),
    };
    let line = "list --json --max-ready 100 --max-age 10m";
    check(line, Action::List(list));
    check("stats --json", Action::Stats { json: true });
    check("drain", Action::Drain(true));
    check("drain --off", Action::Drain(false));
    assert_eq!(parse("kick jobs").unwrap().queues, ["jobs"]);
}

#[track_caller]
fn check_refused(line: &str, want: &str) {
    assert_eq!(parse(line).unwrap_err(), want, "{line}");
}

#[test]
fn a_wrong_command_line_is_one_sentence() {
    check_refused("", "the verb is missing");
    check_refused("send", "the FILE to send is missing");
    check_refused("receive x", "there is one argument too many: 'x'");
    check_refused("recieve", "unknown verb 'recieve', did you mean receive?");
    check_refused(
        "h 1 tcp recieve",
        "unknown verb 'recieve', did you mean receive?",
    );
    check_refused(
        "h 1 recieve",
        "unknown verb 'recieve', did you mean receive?",
    );
    check_refused("leas 5 job", "unknown verb 'leas', did you mean lease?");
    check_refused("h 1", "the verb is missing");
    check_refused(
        "h 1 sctp send x",
        "the transport must be TCP or UDP, not 'sctp'",
    );
    check_refused("h x send x", "PORT must be a port from 0 to 65535, not 'x'");
    check_refused(
        "receive --timeout 0",
        "--timeout must be a duration from 0.001s to 365d, such as 90, 90s, 15m, 2h or 7d, not '0'",
    );
    check_refused("receive --lines", "--lines does not go with receive");
    check_refused("list -- cat", "there is one argument too many: 'cat'");
    check_refused(
        "list --max-age x",
        "--max-age must be a duration from 0 to 365d, such as 90, 90s, 15m, 2h or 7d, not 'x'",
    );
    check_refused("list --frobnicate", "unknown option '--frobnicate'");
    check_refused(
        "send - --lnies",
        "unknown option '--lnies', did you mean --lines?",
    );
    check_refused("send - --delay 1 --delay 2", "--delay is given twice");
    check_refused(
        "send - --delay 50d",
        "--delay must be a duration from 0 to 49d, such as 90, 90s, 15m, 2h or 7d, not '50d'",
    );
    for verb in ["list", "stats", "drain", "kick x"] {
        let (name, _) = verb.split_once(' ').unwrap_or((verb, ""));
        let sentence = format!("--queue does not go with {name}");
        check_refused(&format!("{verb} --queue x"), &sentence);
    }
    check_refused("work", "the COMMAND, behind --, is missing");
    check_refused("work --", "the COMMAND, behind --, is missing");
    check_refused(
        "work --jobs 0 -- cat",
        "--jobs must be a number from 1 to 256, not '0'",
    );
    check_refused(
        "work --backoff 10m..5s -- cat",
        "--backoff must be the shortest delay before the longest, such as 5s..10m, not '10m..5s'",
    );
    check_refused(
        "work --dead-on 1,x -- cat",
        "--dead-on must be a number from 1 to 255, not 'x'",
    );
    check_refused("ack 7", "TOKEN must be what lease has printed, not '7'");
    check_refused("kick", "the NAME of the queue is missing");
    check_refused(
        "peek --queue a/b",
        "--queue must be 1 to 64 of A-Z a-z 0-9 . _ -, not 'a/b'",
    );
    check_refused(
        "receive --queue a,,b",
        "--queue must be 1 to 64 of A-Z a-z 0-9 . _ -, not ''",
    );
    check_refused(
        "send - --queue a,b",
        "--queue must be 1 to 64 of A-Z a-z 0-9 . _ -, not 'a,b'",
    );
    let many = ["q"; 17].join(",");
    check_refused(
        &format!("receive --queue {many}"),
        "--queue must be at most 16 names, not '17'",
    );
    check_refused(
        "send - --priority 10",
        "--priority must be a number from 0 to 9, not '10'",
    );
    check_refused(
        "send - --expires 0",
        "--expires must be a duration from 0.001s to 49d, such as 90, 90s, 15m, 2h or 7d, not '0'",
    );
    check_refused(
        "kick a/b",
        "NAME must be 1 to 64 of A-Z a-z 0-9 . _ -, not 'a/b'",
    );
    check_refused(
        "lease 5 -",
        "the FILE of lease cannot be -, for standard output gets the token",
    );
}

#[test]
fn what_waits_or_holds_needs_tcp() {
    check_refused("h 1 udp receive --wait 1", "--wait needs TCP");
    check_refused("h 1 udp receive --follow", "--follow needs TCP");
    check_refused("h 1 udp lease 5 f --wait 1", "--wait needs TCP");
    check_refused("h 1 udp work -- cat", "work needs TCP");
    check_refused("h 1 udp list --tls", "--tls needs TCP");
    check_refused("h 1 udp list --auth-file a", "--auth-file needs TCP");
    check_refused("h,h 1 udp list", "several servers need TCP");
    let neither = "a Unix socket has neither TCP nor UDP: leave it out";
    check_refused("unix:/q udp list", neither);
    check_refused("unix:/q TCP list", neither);
    for line in ["send -", "ack -", "release -", "extend - 5"] {
        let refused = parse(&format!("{line} --auth-file -")).unwrap_err();
        assert!(refused.starts_with("standard input is for one thing: "));
    }
    assert_eq!(parse("h 1 udp receive").unwrap().transport, Transport::Udp);
}

#[test]
fn what_excludes_each_other_is_said() {
    for line in [
        "send - --lines --null",
        "send - --lines --truncate",
        "receive --null --delimiter x",
        "peek --json --null",
        "peek --id 1 --dead",
        "peek --reserved --delayed",
        "peek --id 1 --count 2",
        "release --id 1 --holder 2",
        "receive --follow --count 2",
        "receive --follow --wait 2",
        "work --backoff 1 --retry-delay 1 -- cat",
        "work --dead-on 1,2 --uncounted-on 2 -- cat",
        "work --drain --queue a,a.dead -- cat",
        "work --drain --once -- cat",
        "work --drain --wait 1 -- cat",
        "work --once --jobs 2 -- cat",
    ] {
        let sentence = parse(line).unwrap_err();
        assert!(!sentence.contains('\n') && sentence.len() > 20, "{line}");
    }
}
