//! The arguments of a command line that are not options.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};

use super::near::nearest;
use super::{UsageError, port, value};
use crate::unbracketed;

/// The verbs of a program: each name, in lower case, and what it means.
pub type Verbs<V> = [(&'static str, V)];

/// The arguments of a command line that are not options, in order.
#[derive(Debug, Default)]
pub struct Words(VecDeque<OsString>);

impl Words {
    /// Appends one.
    pub fn push(&mut self, word: OsString) {
        self.0.push_back(word);
    }

    /// Takes the next word, if there is one.
    pub fn take(&mut self) -> Option<OsString> {
        self.0.pop_front()
    }

    /// Takes the next word.
    ///
    /// # Errors
    /// [`UsageError::Missing`], naming `what`.
    pub fn required(&mut self, what: &'static str) -> Result<OsString, UsageError> {
        self.take().ok_or(UsageError::Missing(what))
    }

    /// Takes the next word as text.
    ///
    /// # Errors
    /// [`UsageError::Missing`] or, if it is not UTF-8, [`UsageError::Value`].
    pub fn required_text(&mut self, what: &'static str) -> Result<String, UsageError> {
        value(what, &self.required(what)?, "valid UTF-8")
    }

    /// Takes a port.
    ///
    /// # Errors
    /// [`UsageError::Missing`] or [`UsageError::Value`].
    pub fn required_port(&mut self, what: &'static str) -> Result<u16, UsageError> {
        port(what, &self.required(what)?)
    }

    /// The next word, if there is one; it stays.
    pub fn peek(&self) -> Option<&OsStr> {
        self.0.front().map(OsString::as_os_str)
    }

    /// Takes the host, if a server is named in front of the verb; `ports` are what stands between the
    /// two. The ports are left to be taken.
    ///
    /// A host is a word that is no verb and has a port behind it. A misspelt verb is neither that nor
    /// a verb, and must not be taken for a host. An address in brackets is a host with nothing behind
    /// it, too, and comes without them.
    ///
    /// # Errors
    /// [`UsageError::UnknownVerb`].
    pub fn host<V>(
        &mut self,
        ports: &[&'static str],
        verbs: &Verbs<V>,
    ) -> Result<Option<String>, UsageError> {
        let Some(first) = self.peek() else {
            return Ok(None);
        };
        if find(first, verbs).is_some() {
            return Ok(None);
        }
        let has_port = self.0.get(1).is_some_and(|word| port("", word).is_ok());
        let mut behind = self.0.iter().skip(1 + ports.len()).peekable();
        let ends = behind.peek().is_none();
        let has_verb = behind.any(|word| find(word, verbs).is_some());
        let is_near = nearest_verb(first, verbs).is_some();
        if has_verb || has_port && (ends || !is_near) || is_bracketed(first) {
            let host = self.required_text("HOST")?;
            return Ok(Some(unbracketed(&host).to_owned()));
        }
        let server = format!("HOST {}", ports.join(" "));
        Err(unknown(first, verbs, Some(server)))
    }

    /// Takes the verb, if there is a word: its name and what it means.
    ///
    /// # Errors
    /// [`UsageError::UnknownVerb`].
    pub fn verb<V: Copy>(
        &mut self,
        verbs: &Verbs<V>,
    ) -> Result<Option<(&'static str, V)>, UsageError> {
        let Some(word) = self.take() else {
            return Ok(None);
        };
        match find(&word, verbs) {
            Some(verb) => Ok(Some(*verb)),
            None => Err(unknown(&word, verbs, None)),
        }
    }

    /// Whether the next word is a verb.
    pub fn starts_with_verb<V>(&self, verbs: &Verbs<V>) -> bool {
        self.peek().is_some_and(|word| find(word, verbs).is_some())
    }

    /// Whether any word is a verb.
    pub fn has_verb<V>(&self, verbs: &Verbs<V>) -> bool {
        self.0.iter().any(|word| find(word, verbs).is_some())
    }

    /// Ends the command line.
    ///
    /// # Errors
    /// [`UsageError::Unexpected`] if a word is left.
    pub fn end(mut self) -> Result<(), UsageError> {
        match self.take() {
            None => Ok(()),
            Some(word) => Err(UsageError::Unexpected(word.to_string_lossy().into_owned())),
        }
    }
}

/// The verb that a word is, in any case.
fn find<'v, V>(word: &OsStr, verbs: &'v Verbs<V>) -> Option<&'v (&'static str, V)> {
    verbs
        .iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name))
}

fn is_bracketed(word: &OsStr) -> bool {
    word.to_str().is_some_and(|word| unbracketed(word) != word)
}

fn nearest_verb<V>(word: &OsStr, verbs: &Verbs<V>) -> Option<&'static str> {
    nearest(&word.to_string_lossy(), verbs.iter().map(|(name, _)| *name))
}

fn unknown<V>(word: &OsStr, verbs: &Verbs<V>, server: Option<String>) -> UsageError {
    UsageError::UnknownVerb {
        verb: word.to_string_lossy().into_owned(),
        verbs: match nearest_verb(word, verbs) {
            Some(nearest) => vec![nearest],
            None => verbs.iter().map(|(name, _)| *name).collect(),
        },
        server,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Words {
        let mut words = Words::default();
        for word in line.split_whitespace() {
            words.push(word.into());
        }
        words
    }

    #[test]
    fn words_are_taken_in_order() {
        let mut words = words("localhost 80 extra");
        assert_eq!(words.required_text("HOST").unwrap(), "localhost");
        assert_eq!(words.required_port("PORT").unwrap(), 80);
        assert_eq!(
            words.end().unwrap_err().to_string(),
            "there is one argument too many: 'extra'"
        );
        assert_eq!(
            Words::default().required("VERB").unwrap_err().to_string(),
            "VERB is missing"
        );
    }

    const VERBS: &Verbs<u8> = &[("send", 1), ("receive", 2), ("post", 3)];

    /// Checks which host and which verb a command line names.
    #[track_caller]
    fn check(line: &str, host: Option<&str>, verb: Option<&'static str>) {
        let mut words = words(line);
        let got = words.host(&["PORT"], VERBS).unwrap();
        assert_eq!(got.as_deref(), host, "{line}");
        if got.is_some() {
            words.required_port("PORT").unwrap();
        }
        let got = words.verb(VERBS).unwrap().map(|(name, _)| name);
        assert_eq!(got, verb, "{line}");
    }

    #[test]
    fn a_host_has_a_port_and_a_verb_is_one() {
        check("", None, None);
        check("SEND x", None, Some("send"));
        check("send 80", None, Some("send"));
        check("h 80", Some("h"), None);
        check("host 80", Some("host"), None);
        check("host 80 receive", Some("host"), Some("receive"));
        check("sent 80 send", Some("sent"), Some("send"));
        check("[::1] 80", Some("::1"), None);
        check("[::1] 80 send", Some("::1"), Some("send"));
        check("::1 80 send", Some("::1"), Some("send"));
    }

    #[track_caller]
    fn check_refused(line: &str, want: &str) {
        let mut words = words(line);
        let refused = words.host(&["PORT"], VERBS).and_then(|host| {
            if host.is_some() {
                words.required_port("PORT")?;
            }
            words.verb(VERBS)
        });
        assert_eq!(refused.unwrap_err().to_string(), want, "{line}");
    }

    #[test]
    fn a_misspelt_verb_is_no_host() {
        let receive = "unknown verb 'recieve', did you mean receive?";
        check_refused("recieve", receive);
        check_refused("recieve x y", receive);
        check_refused("recieve 5 x", receive);
        check_refused("h 80 recieve", receive);
        check_refused("sned 80 f", "unknown verb 'sned', did you mean send?");
        let all = "the verbs are send, receive, post";
        let server = "; a server is HOST PORT";
        check_refused("ls", &format!("unknown verb 'ls', {all}{server}"));
        check_refused("h 80 ls", &format!("unknown verb 'ls', {all}"));
        check_refused("[::1]", "PORT is missing");
        check_refused("h x send", "PORT must be a port from 0 to 65535, not 'x'");
    }
}
