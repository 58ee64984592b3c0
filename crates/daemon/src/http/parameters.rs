//! The parameters of requests: those of a query, and those of a form.

use std::io::Read as _;

use cli::escape::Escaped;
use percent_encoding::percent_decode;
use proto::digits;
use proto::http::{Refusal, RequestHead, Status};

use super::{RequestBody, body_refusal};

/// Parameters by their names.
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// The parameters in a text, which may have these names.
    ///
    /// # Errors
    /// If there is one with another name, or one has two values, or they are not UTF-8.
    pub fn parse(text: &[u8], known: &[&str]) -> Result<Self, Refusal> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        let decoded = percent_decode(text).decode_utf8();
        decoded.map_err(|_| bad("the parameters are not UTF-8".to_owned()))?;
        for (name, value) in form_urlencoded::parse(text) {
            if !known.contains(&&*name) {
                let name = Escaped(&name);
                return Err(bad(match known {
                    [] => format!("unknown parameter '{name}'; there are none here"),
                    known => format!("unknown parameter '{name}'; here are {}", known.join(", ")),
                }));
            }
            match parameters.iter().find(|(known, _)| *known == name) {
                Some((_, before)) if *before != value => {
                    return Err(bad(format!("the parameter '{name}' has two values")));
                }
                Some(_) => {}
                None => parameters.push((name.into_owned(), value.into_owned())),
            }
        }
        Ok(Self(parameters))
    }

    /// Those of a request's query.
    ///
    /// # Errors
    /// As [`Parameters::parse`].
    pub fn of_query(request: &RequestHead, known: &[&str]) -> Result<Self, Refusal> {
        Self::parse(request.query.unwrap_or_default().as_bytes(), known)
    }

    /// Those of the form in a request's body, of at most this many bytes.
    ///
    /// # Errors
    /// If the body is longer, or no form; as [`Parameters::parse`]; those of the body.
    pub fn of_form(
        request: &RequestHead,
        body: &mut dyn RequestBody,
        known: &[&str],
        bytes_max: usize,
    ) -> Result<Self, Refusal> {
        const FORM: &[u8] = b"application/x-www-form-urlencoded";
        let content_type = request.single("Content-Type").unwrap_or_default();
        let kind = content_type.split(|byte| *byte == b';').next();
        if !kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(FORM)) {
            let sentence = "the body must be a form: application/x-www-form-urlencoded";
            return Err(Refusal::new(Status::UnsupportedMediaType, sentence));
        }
        let mut text = Vec::new();
        let read = body.take(bytes_max as u64 + 1).read_to_end(&mut text);
        read.map_err(|error| body_refusal(&error))?;
        if text.len() > bytes_max {
            let sentence = format!("the form exceeds {bytes_max} bytes");
            return Err(Refusal::new(Status::ContentTooLarge, sentence));
        }
        Self::parse(&text, known)
    }

    /// Whether there is one with this name, be it empty.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// The value with this name; empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// The number with this name; `None` if there is none.
    ///
    /// # Errors
    /// If it is no number, or too large for its type.
    pub fn number<N: TryFrom<u64>>(&self, name: &str) -> Result<Option<N>, Refusal> {
        if !self.has(name) {
            return Ok(None);
        }
        let value = self.get(name);
        let number = digits::parse(value.as_bytes()).ok();
        let number = number.and_then(|number| N::try_from(number).ok());
        let wrong = || bad(format!("{name} must be a number, not '{}'", Escaped(value)));
        number.map(Some).ok_or_else(wrong)
    }
}

/// A query that names these values, with its question mark; without those that are empty.
pub fn query(parameters: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters.iter().filter(|(_, value)| !value.is_empty()));
    match query.finish() {
        none if none.is_empty() => none,
        some => format!("?{some}"),
    }
}

fn bad(sentence: String) -> Refusal {
    Refusal::new(Status::BadRequest, sentence)
}
