//! Under which name a client saves what it gets (RFC 6266).

use percent_encoding::percent_encode;

use crate::page::LINK_ESCAPES;

/// The value of `Content-Disposition`: `how` is `attachment` or `inline`. What the name cannot say in ASCII
/// it says once more in UTF-8.
pub(crate) fn disposition(how: &str, name: &str) -> String {
    let plain = |c: char| match c {
        '"' | '\\' | '%' => '_',
        ' '..='~' => c,
        _ => '_',
    };
    let ascii: String = name.chars().map(plain).collect();
    let encoded = percent_encode(name.as_bytes(), LINK_ESCAPES);
    format!("{how}; filename=\"{ascii}\"; filename*=UTF-8''{encoded}")
}
