//! The arguments of a command line that are not options, in order: the server, the verb, what the
//! verb is about.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};

use super::nearest::nearest;
use super::value::{port, value};
use crate::{Address, UsageError, unbracketed};

/// The verbs of a program: each name, in lower case, and what it means.
pub type Verbs<V> = [(&'static str, V)];

/// The words that have not been read yet. Most methods read the next one and remove it.
#[derive(Debug, Default)]
pub struct Words {
    words: VecDeque<OsString>,
    /// What stands behind `--`. It comes after the others, and no verb is looked for in it.
    behind_dashes: VecDeque<OsString>,
    verb: Option<&'static str>,
}

impl Words {
    pub(super) fn push(&mut self, word: OsString) {
        self.words.push_back(word);
    }

    pub(super) fn push_behind_dashes(&mut self, words: impl Iterator<Item = OsString>) {
        self.behind_dashes.extend(words);
    }

    /// The next word, if there is one.
    pub fn next_word(&mut self) -> Option<OsString> {
        let word = self.words.pop_front();
        word.or_else(|| self.behind_dashes.pop_front())
    }

    /// What stands behind `--`: a command with options of its own.
    pub fn command(&mut self) -> Vec<OsString> {
        self.behind_dashes.drain(..).collect()
    }

    /// The next word.
    ///
    /// # Errors
    /// [`UsageError::Missing`], naming `what`.
    pub fn required(&mut self, what: &'static str) -> Result<OsString, UsageError> {
        self.next_word().ok_or(UsageError::Missing(what))
    }

    /// The next word as text.
    ///
    /// # Errors
    /// [`UsageError::Missing`] or, if it is not UTF-8, [`UsageError::Value`].
    pub fn required_text(&mut self, what: &'static str) -> Result<String, UsageError> {
        value(what, &self.required(what)?, "valid UTF-8")
    }

    /// A port, if there is a word.
    ///
    /// # Errors
    /// [`UsageError::Value`].
    pub fn port(&mut self, what: &'static str) -> Result<Option<u16>, UsageError> {
        self.next_word().map(|word| port(what, &word)).transpose()
    }

    /// The next word, if there is one; it stays.
    pub fn peek(&self) -> Option<&OsStr> {
        self.get(0)
    }

    fn get(&self, index: usize) -> Option<&OsStr> {
        let mut words = self.words.iter().chain(&self.behind_dashes);
        words.nth(index).map(OsString::as_os_str)
    }

    /// The addresses of the server, if it is named in front of the verb, one for each of its ports.
    /// `ports` are their names in messages.
    ///
    /// A host is a word that is not a verb and has a port behind it. A misspelt verb is not taken for a
    /// host. An address in brackets is always a host, and so is `unix:/path`, which has no port: all
    /// addresses are that socket then.
    ///
    /// # Errors
    /// [`UsageError::UnknownVerb`], [`UsageError::Missing`] or [`UsageError::Value`].
    pub fn server<V, const N: usize>(
        &mut self,
        ports: [&'static str; N],
        verbs: &Verbs<V>,
    ) -> Result<Option<[Address; N]>, UsageError> {
        let Some(first) = self.peek() else {
            return Ok(None);
        };
        if find(first, verbs).is_some() {
            return Ok(None);
        }
        if let Some(socket) = first.to_str().and_then(Address::unix) {
            self.next_word();
            return Ok(Some([(); N].map(|()| socket.clone())));
        }
        let has_port = self.get(1).is_some_and(|word| port("", word).is_ok());
        let mut behind = self.words.iter().skip(1 + N).peekable();
        let ends = behind.peek().is_none();
        let has_verb = behind.any(|word| find(word, verbs).is_some());
        let is_near = nearest_verb(first, verbs).is_some();
        if !(has_verb || has_port && (ends || !is_near) || is_bracketed(first)) {
            let server = format!("HOST {} or unix:/path", ports.join(" "));
            return Err(unknown(first, verbs, Some(server)));
        }
        let host = self.required_text("HOST")?;
        let mut addresses = [(); N].map(|()| Address::new(&host, 0));
        for (address, what) in addresses.iter_mut().zip(ports) {
            *address = address.with_port(port(what, &self.required(what)?)?);
        }
        Ok(Some(addresses))
    }

    /// The host, if it is an address in brackets without a port behind it.
    pub fn bracketed_host(&mut self) -> Option<String> {
        let has_port = self.get(1).is_some_and(|word| port("", word).is_ok());
        let host = self.peek()?.to_str()?;
        let address = unbracketed(host);
        if has_port || address == host {
            return None;
        }
        let address = address.to_owned();
        self.next_word();
        Some(address)
    }

    /// The verb, if there is a word.
    ///
    /// # Errors
    /// [`UsageError::UnknownVerb`].
    pub fn verb<V: Copy>(&mut self, verbs: &Verbs<V>) -> Result<Option<V>, UsageError> {
        let Some(word) = self.next_word() else {
            return Ok(None);
        };
        let Some((name, verb)) = find(&word, verbs) else {
            return Err(unknown(&word, verbs, None));
        };
        self.verb = Some(name);
        Ok(Some(*verb))
    }

    /// The name of the verb that was read.
    pub(super) fn verb_name(&self) -> Option<&'static str> {
        self.verb
    }

    /// Whether the next word is a verb.
    pub fn starts_with_verb<V>(&self, verbs: &Verbs<V>) -> bool {
        self.peek().is_some_and(|word| find(word, verbs).is_some())
    }

    /// Whether any word is a verb.
    pub fn has_verb<V>(&self, verbs: &Verbs<V>) -> bool {
        self.words.iter().any(|word| find(word, verbs).is_some())
    }

    /// Ends the command line.
    ///
    /// # Errors
    /// [`UsageError::Unexpected`] if a word is left.
    pub(super) fn end(mut self) -> Result<(), UsageError> {
        match self.next_word() {
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
        assert_eq!(words.port("PORT").unwrap(), Some(80));
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
        let got = words.server(["PORT"], VERBS).unwrap();
        let want = host.map(|host| [Address::new(host, 80)]);
        assert_eq!(got, want, "{line}");
        words.verb(VERBS).unwrap();
        let got = words.verb_name();
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
        check("unix:/q", Some("unix:/q"), None);
        check("unix:/q send", Some("unix:/q"), Some("send"));
        check("unix:q receive", Some("unix:q"), Some("receive"));
    }

    #[track_caller]
    fn check_refused(line: &str, want: &str) {
        let mut words = words(line);
        let refused = words.server(["PORT"], VERBS);
        let refused = refused.and_then(|_| words.verb(VERBS));
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
        let server = "; a server is HOST PORT or unix:/path";
        check_refused("ls", &format!("unknown verb 'ls', {all}{server}"));
        check_refused("h 80 ls", &format!("unknown verb 'ls', {all}"));
        check_refused("[::1]", "PORT is missing");
        check_refused(
            "unix: send",
            &format!("unknown verb 'unix:', {all}{server}"),
        );
        check_refused("h x send", "PORT must be a port from 0 to 65535, not 'x'");
    }
}
