use std::ffi::OsStr;

use super::*;
use crate::ClientOptions;

const OPTIONS: &[Opt] = &[
    Opt::value("--wait"),
    Opt::flag("--json").short('j'),
    Opt::value("--queue").short('Q'),
    Opt::optional("--update"),
];

/// Reads a command line with `read`.
fn parse<C>(
    line: &str,
    read: impl FnOnce(&mut Args) -> Result<C, UsageError>,
) -> Result<Parsed<C>, String> {
    let args = ["program"].into_iter().chain(line.split_whitespace());
    let parser = lexopt::Parser::from_iter(args);
    let parsed = super::parse(parser, &[OPTIONS, ClientOptions::TABLE], read);
    parsed.map_err(|error| error.to_string())
}

/// Reads all words and all options.
fn read_all(args: &mut Args) -> Result<(), UsageError> {
    while args.words.next_word().is_some() {}
    args.options = Options::default();
    Ok(())
}

#[test]
fn numbers_say_their_range() {
    let parse = |word: &str| number("N", OsStr::new(word), 1..=9u64).map_err(|e| e.to_string());
    assert_eq!(parse("9"), Ok(9));
    for bad in ["0", "10", "", "x", "1.5"] {
        let want = format!("N must be a number from 1 to 9, not '{bad}'");
        assert_eq!(parse(bad), Err(want));
    }
}

#[test]
fn options_may_stand_anywhere() {
    for line in [
        "--wait 5 a -j b",
        "a --wait=5 b --json",
        "-j a b --wait 5 -j",
    ] {
        let parsed = parse(line, |Args { words, options }| {
            assert_eq!(options.raw("--wait").unwrap(), "5", "{line}");
            assert!(options.flag("--json") && !options.flag("--json"), "{line}");
            assert_eq!(words.next_word().unwrap(), "a");
            assert_eq!(words.next_word().unwrap(), "b");
            Ok(())
        });
        parsed.unwrap();
    }
}

#[test]
fn a_value_may_be_left_out() {
    for (line, want) in [
        ("--update a", Some("")),
        ("a --update=b", Some("b")),
        ("a", None),
    ] {
        let parsed = parse(line, |Args { words, options }| {
            let value = options.raw("--update");
            assert_eq!(value.as_deref(), want.map(OsStr::new), "{line}");
            assert_eq!(words.next_word().unwrap(), "a", "{line}");
            Ok(())
        });
        parsed.unwrap();
    }
}

#[test]
fn what_stands_behind_dashes_is_no_option() {
    let parsed = parse("a -- --wait -j", |args| {
        for want in ["a", "--wait", "-j"] {
            assert_eq!(args.words.next_word().unwrap(), want);
        }
        Ok(())
    });
    parsed.unwrap();
    let parsed = parse("a -- --wait -j", |args| {
        assert_eq!(args.words.command(), ["--wait", "-j"]);
        args.words.required("a").map(drop)
    });
    parsed.unwrap();
}

#[test]
fn how_much_is_said() {
    let verbosity = |line: &str| match parse(line, read_all) {
        Ok(Parsed::Run { verbosity, .. }) => verbosity,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(verbosity("a"), Verbosity::Normal);
    assert_eq!(verbosity("a -v"), Verbosity::Verbose);
    assert_eq!(verbosity("--quiet a -q"), Verbosity::Quiet);
    let help = parse("a --help --nonsense", read_all);
    assert!(matches!(help, Ok(Parsed::Help)));
    assert!(matches!(parse("-V", read_all), Ok(Parsed::Version)));
}

#[test]
fn wrong_options_are_one_sentence() {
    for (line, want) in [
        ("--quue x", "unknown option '--quue', did you mean --queue?"),
        ("--jsn", "unknown option '--jsn', did you mean --json?"),
        ("--frobnicate", "unknown option '--frobnicate'"),
        ("-x", "unknown option '-x'"),
        ("--wait 1 --wait 1", "--wait is given twice"),
        ("-Q a --queue=b", "--queue is given twice"),
        ("--update --update=a", "--update is given twice"),
        ("--wait", "missing argument for option '--wait'"),
        ("-q -v", "--quiet and --verbose exclude each other"),
    ] {
        assert_eq!(parse(line, read_all).unwrap_err(), want, "{line}");
    }
    // A flag has no value.
    parse("--json=1", read_all).unwrap_err();
}

#[test]
fn what_is_not_read_is_refused() {
    let refused = |line: &str| {
        let read = |args: &mut Args| args.words.verb(&[("list", ())]);
        parse(line, read).unwrap_err()
    };
    assert_eq!(refused("list --wait 5"), "--wait does not go with list");
    assert_eq!(refused("--wait 5"), "--wait needs a verb");
    assert_eq!(refused("list x"), "there is one argument too many: 'x'");
}
