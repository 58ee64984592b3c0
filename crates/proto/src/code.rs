//! The bodies of the code service: JSON, or the Python dict literals of its original clients.
//!
//! A request is one flat object of strings. A nested value is refused where it begins, so no body,
//! however deep, can use up a thread's stack.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use uuid::Uuid;

/// The largest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// Asks for the code of a UUID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeRequest {
    /// Whose code, in any spelling that the `uuid` crate parses.
    pub uuid: Uuid,
}

/// Asks the server to log a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRequest {
    /// Who sends it.
    pub uuid: Uuid,
    /// The code that was handed out for `uuid`. It is not parsed: text that is no UUID is a wrong code.
    pub unique: String,
    /// The message.
    pub text: String,
}

/// What the server replies on both ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `{"success": true, "unique": "..."}`
    Code(Uuid),
    /// `{"success": true}`
    Logged,
    /// `{"success": false, "error": "..."}`
    Refused(String),
}

/// Why a body is not a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The body is neither a JSON object nor a Python dict; with the JSON parser's reason.
    #[error("the body must be a flat JSON object such as {{\"uuid\": \"...\"}}: {0}")]
    NotAnObject(String),
    /// The named field is missing.
    #[error("the field '{0}' is missing")]
    Missing(&'static str),
    /// The named field is there, but is not a string.
    #[error("the field '{0}' must be a string")]
    NotAString(&'static str),
    /// The named field is a string, but not a UUID.
    #[error("the field '{0}' must be a UUID such as 67e55044-10b1-426f-9247-bb680e5fe0c8")]
    NotAUuid(&'static str),
}

impl CodeRequest {
    /// Reads `{"uuid": "..."}`.
    ///
    /// # Errors
    /// If the body is not such an object; other fields are ignored.
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        Object::decode(body, |fields| {
            Ok(Self {
                uuid: fields.uuid("uuid")?,
            })
        })
    }

    /// The request as JSON.
    pub fn encode(&self) -> String {
        serde_json::json!({ "uuid": self.uuid.to_string() }).to_string()
    }
}

impl MessageRequest {
    /// Reads `{"uuid": "...", "unique": "...", "text": "..."}`.
    ///
    /// # Errors
    /// If the body is not such an object; other fields are ignored.
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        Object::decode(body, |fields| {
            Ok(Self {
                uuid: fields.uuid("uuid")?,
                unique: fields.string("unique")?.to_owned(),
                text: fields.string("text")?.to_owned(),
            })
        })
    }

    /// The request as JSON.
    pub fn encode(&self) -> String {
        serde_json::json!({
            "uuid": self.uuid.to_string(),
            "unique": self.unique,
            "text": self.text,
        })
        .to_string()
    }
}

impl Reply {
    /// The reply as JSON.
    pub fn to_json(&self) -> String {
        match self {
            Self::Code(unique) => {
                let mut text = Uuid::encode_buffer();
                let unique = unique.hyphenated().encode_lower(&mut text);
                [r#"{"success": true, "unique": ""#, unique, r#""}"#].concat()
            }
            Self::Logged => r#"{"success": true}"#.to_owned(),
            Self::Refused(error) => {
                let error = serde_json::Value::from(error.as_str());
                format!(r#"{{"success": false, "error": {error}}}"#)
            }
        }
    }

    /// The reply as the literal of a Python dict, in ASCII: the original client decodes it as Latin-1
    /// and passes it to `ast.literal_eval`.
    pub fn to_python(&self) -> String {
        match self {
            Self::Code(unique) => format!("{{'success': True, 'unique': '{unique}'}}"),
            Self::Logged => "{'success': True}".to_owned(),
            Self::Refused(error) => {
                let mut literal = String::from("{'success': False, 'error': '");
                for c in error.chars() {
                    match c {
                        '\\' | '\'' => literal.extend(['\\', c]),
                        ' '..='~' => literal.push(c),
                        other => literal.push_str(&format!("\\U{:08x}", other as u32)),
                    }
                }
                literal.push_str("'}");
                literal
            }
        }
    }

    /// Reads a reply in JSON.
    ///
    /// # Errors
    /// If it is not one of the three.
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        Object::decode(body, |fields| match fields.get("success") {
            Some(Value::Bool(true)) if fields.get("unique").is_some() => {
                Ok(Self::Code(fields.uuid("unique")?))
            }
            Some(Value::Bool(true)) => Ok(Self::Logged),
            _ => Ok(Self::Refused(fields.string("error")?.to_owned())),
        })
    }
}

/// The fields of a flat object. Strings without escapes are borrowed from the body.
struct Object<'a>(Vec<(Name<'a>, Value<'a>)>);

#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

enum Value<'a> {
    String(Cow<'a, str>),
    Bool(bool),
    Other,
}

impl Object<'_> {
    /// Parses a body, and makes of its fields what the caller needs.
    fn decode<T>(
        body: &[u8],
        make: impl FnOnce(&Object) -> Result<T, BodyError>,
    ) -> Result<T, BodyError> {
        let text = std::str::from_utf8(body)
            .map_err(|_| BodyError::NotAnObject("it is not UTF-8".to_owned()))?;
        match serde_json::from_str(text) {
            Ok(object) => make(&object),
            Err(not_json) => match json5::from_str(&astral_escapes(text)) {
                Ok(object) => make(&object),
                Err(_) => Err(BodyError::NotAnObject(not_json.to_string())),
            },
        }
    }

    /// The value of a field. If several have this name, the last one counts.
    fn get(&self, field: &str) -> Option<&Value<'_>> {
        let found = self.0.iter().rfind(|(name, _)| name.0 == field);
        found.map(|(_, value)| value)
    }

    fn string(&self, field: &'static str) -> Result<&str, BodyError> {
        match self.get(field) {
            Some(Value::String(string)) => Ok(string),
            Some(_) => Err(BodyError::NotAString(field)),
            None => Err(BodyError::Missing(field)),
        }
    }

    fn uuid(&self, field: &'static str) -> Result<Uuid, BodyError> {
        Uuid::try_parse(self.string(field)?).map_err(|_| BodyError::NotAUuid(field))
    }
}

/// Replaces `\UXXXXXXXX` by the character it stands for. Python writes unprintable characters beyond
/// U+FFFF like this; JSON5 does not know the escape and would read a plain `U`.
fn astral_escapes(text: &str) -> Cow<'_, str> {
    if !text.contains("\\U") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = &rest[at..];
        let astral = escape
            .strip_prefix("\\U")
            .and_then(|digits| digits.get(..8))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .filter(|code| *code > 0xffff)
            .and_then(char::from_u32);
        let escape_bytes = match astral {
            Some(c) => {
                out.push(c);
                10
            }
            // The backslash and what it escapes, so that `\\U` is not taken for an escape.
            None => {
                let escaped = escape.chars().take(2).map(char::len_utf8).sum();
                out.push_str(&escape[..escaped]);
                escaped
            }
        };
        rest = &escape[escape_bytes..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;

        /// A list or an object meets serde's default, an error that does not descend into it.
        impl<'de> Visitor<'de> for Scalar {
            type Value = Value<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number, true, false or null")
            }

            fn visit_borrowed_str<E>(self, string: &'de str) -> Result<Value<'de>, E> {
                Ok(Value::String(Cow::Borrowed(string)))
            }

            fn visit_str<E>(self, string: &str) -> Result<Value<'de>, E> {
                Ok(Value::String(Cow::Owned(string.to_owned())))
            }

            fn visit_string<E>(self, string: String) -> Result<Value<'de>, E> {
                Ok(Value::String(Cow::Owned(string)))
            }

            fn visit_bool<E>(self, bool: bool) -> Result<Value<'de>, E> {
                Ok(Value::Bool(bool))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Value<'de>, E> {
                Ok(Value::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Value<'de>, E> {
                Ok(Value::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Value<'de>, E> {
                Ok(Value::Other)
            }

            fn visit_unit<E>(self) -> Result<Value<'de>, E> {
                Ok(Value::Other)
            }
        }

        deserializer.deserialize_any(Scalar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

    #[track_caller]
    fn check_uuid(body: &str) {
        let uuid = CodeRequest::decode(body.as_bytes()).map(|request| request.uuid.to_string());
        assert_eq!(uuid.as_deref(), Ok(UUID), "{body}");
    }

    #[test]
    fn a_uuid_in_any_spelling_in_json_or_python() {
        check_uuid(&format!(r#"{{"uuid": "{UUID}"}}"#));
        check_uuid(&format!("{{'uuid': '{UUID}'}}"));
        check_uuid(&format!("{{'uuid': \"{UUID}\", 'other': 3}}"));
        check_uuid(r#"{"uuid":"67E5504410B1426F9247BB680E5FE0C8", "null": null, "t": true}"#);
        check_uuid(r#"{"uuid":"{67e55044-10b1-426f-9247-bb680e5fe0c8}", "f": -1.5}"#);
        check_uuid(r#"{"uuid":"urn:uuid:67e55044-10b1-426f-9247-bb680e5fe0c8"}"#);
    }

    #[track_caller]
    fn check_refused(body: &str, want: BodyError) {
        assert_eq!(CodeRequest::decode(body.as_bytes()), Err(want), "{body}");
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        check_refused("{}", BodyError::Missing("uuid"));
        check_refused(r#"{"uuid": 3}"#, BodyError::NotAString("uuid"));
        check_refused(r#"{"uuid": "3"}"#, BodyError::NotAUuid("uuid"));
        for not_an_object in ["", "[]", "{", "null", "{'uuid'}", r#"{"uuid": ["a"]}"#] {
            match CodeRequest::decode(not_an_object.as_bytes()) {
                Err(BodyError::NotAnObject(_)) => {}
                other => panic!("{not_an_object}: {other:?}"),
            }
        }
        CodeRequest::decode(b"{\"uuid\": \"\xff\"}").unwrap_err();
    }

    #[test]
    fn names_and_values_may_be_spelt_with_escapes() {
        check_uuid(r#"{"\u0075uid":"\u00367E5504410B1426F9247BB680E5FE0C8"}"#);
        check_uuid(r#"{'\u0075uid':'\u00367E5504410B1426F9247BB680E5FE0C8'}"#);
    }

    #[test]
    fn of_several_fields_with_one_name_the_last_counts() {
        check_uuid(&format!(r#"{{"uuid": 3, "uuid": "3", "uuid": "{UUID}"}}"#));
        check_uuid(&format!("{{'uuid': 3, 'uuid': '3', 'uuid': '{UUID}'}}"));
        let body = format!(r#"{{"uuid": "{UUID}", "uuid": 3}}"#);
        check_refused(&body, BodyError::NotAString("uuid"));
    }

    #[test]
    fn no_depth_of_nesting_uses_up_a_stack() {
        let nests = ["[", "{\"a\":", "{'a':", "(", "/*", "{uuid:["];
        let run = move || {
            for nest in nests {
                let body = nest.repeat(BODY_BYTES_MAX / nest.len());
                CodeRequest::decode(body.as_bytes()).unwrap_err();
                CodeRequest::decode(format!("{{'x': {body}").as_bytes()).unwrap_err();
            }
        };
        let small = std::thread::Builder::new().stack_size(96 * 1024);
        small.spawn(run).unwrap().join().unwrap();
    }

    #[test]
    fn python_escapes_are_read_as_python_means_them() {
        let body = format!(
            r"{{'uuid': '{UUID}', 'unique': 'x', 'text': 'it\'s \x07 \u20ac \U000e0001 \\U000e0001 \n'}}"
        );
        let text = MessageRequest::decode(body.as_bytes()).unwrap().text;
        assert_eq!(text, "it's \x07 \u{20ac} \u{e0001} \\U000e0001 \n");
    }

    #[test]
    fn requests_round_trip() {
        let request = MessageRequest {
            uuid: Uuid::try_parse(UUID).unwrap(),
            unique: UUID.to_owned(),
            text: "\"quoted\"\n\u{1f600}".to_owned(),
        };
        assert_eq!(
            MessageRequest::decode(request.encode().as_bytes()),
            Ok(request)
        );
        let uuid = Uuid::try_parse(UUID).unwrap();
        let request = CodeRequest { uuid };
        assert_eq!(
            CodeRequest::decode(request.encode().as_bytes()),
            Ok(request)
        );
    }

    #[test]
    fn replies_in_both_spellings() {
        let unique = Uuid::try_parse(UUID).unwrap();
        let refused = Reply::Refused("it's \"no\"\n\u{20ac}".to_owned());
        for reply in [Reply::Code(unique), Reply::Logged, refused.clone()] {
            assert_eq!(Reply::decode(reply.to_json().as_bytes()), Ok(reply));
        }
        assert_eq!(
            Reply::Code(unique).to_python(),
            format!("{{'success': True, 'unique': '{UUID}'}}")
        );
        assert_eq!(Reply::Logged.to_python(), "{'success': True}");
        assert_eq!(
            refused.to_python(),
            r#"{'success': False, 'error': 'it\'s "no"\U0000000a\U000020ac'}"#
        );
    }
}
