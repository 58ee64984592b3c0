//! The fields of resumable uploads (draft-ietf-httpbis-resumable-upload, interop version 8).
//!
//! A client begins an upload, and the server tells it a path for the upload. There the client asks how
//! much has arrived, and appends the rest. The values are structured fields (RFC 9651); a malformed one
//! counts as missing.

use super::request::RequestHead;
use crate::digits;

/// The version of the draft, for the field `Upload-Draft-Interop-Version`. An interim response is
/// only sent to clients that name it.
pub const INTEROP_VERSION: u64 = 8;

/// The media type of a request that appends.
pub const PARTIAL_UPLOAD: &str = "application/partial-upload";

/// The most digits of an integer in a structured field (RFC 9651 section 3.3.1).
const DIGITS_MAX: usize = 15;

/// The largest integer of a structured field.
pub const INTEGER_MAX: u64 = 999_999_999_999_999;

/// A field that says whether the upload is complete.
pub const COMPLETE: &str = "Upload-Complete";

/// A field that says how many bytes have arrived.
pub const OFFSET: &str = "Upload-Offset";

/// A field that says how many bytes the whole upload has.
pub const LENGTH: &str = "Upload-Length";

/// A field with the limits of a server.
pub const LIMIT: &str = "Upload-Limit";

/// A field with the [`INTEROP_VERSION`].
pub const VERSION: &str = "Upload-Draft-Interop-Version";

/// The boolean in a field of a request.
pub fn boolean(request: &RequestHead, name: &str) -> Option<bool> {
    match request.single(name)?.trim_ascii() {
        b"?1" => Some(true),
        b"?0" => Some(false),
        _ => None,
    }
}

/// The integer in a field of a request. None of these integers is negative.
pub fn integer(request: &RequestHead, name: &str) -> Option<u64> {
    parse_integer(request.single(name)?.trim_ascii())
}

/// Parses the integer in the value of a field.
pub fn parse_integer(value: &[u8]) -> Option<u64> {
    digits::parse(value)
        .ok()
        .filter(|_| value.len() <= DIGITS_MAX)
}

/// A boolean as the value of a field.
pub fn format_boolean(value: bool) -> &'static str {
    if value { "?1" } else { "?0" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &str) -> (Option<bool>, Option<u64>) {
        let head = format!("PUT / HTTP/1.1\r\nHost: h\r\nX: {value}\r\n\r\n");
        let request = RequestHead::parse(head.as_bytes()).unwrap();
        (boolean(&request, "x"), integer(&request, "x"))
    }

    #[test]
    fn values_are_those_of_structured_fields() {
        assert_eq!(with("?1"), (Some(true), None));
        assert_eq!(with("?0"), (Some(false), None));
        assert_eq!(with("0"), (None, Some(0)));
        assert_eq!(with("999999999999999"), (None, Some(999_999_999_999_999)));
        for other in [
            "",
            "1000000000000000",
            "-1",
            "+1",
            "1.0",
            "?2",
            "true",
            "1, 1",
            "1\r\nX: 1",
        ] {
            assert_eq!(with(other), (None, None), "{other}");
        }
        assert_eq!(format_boolean(true), "?1");
    }
}
