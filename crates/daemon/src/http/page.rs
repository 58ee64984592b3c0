//! What the pages of all servers share: their style sheet, and who wants a page.

use proto::http::RequestHead;

/// The style sheet. What only one server's pages have is in a sheet of its own, behind this one.
pub const STYLE: &str = include_str!("page/style.css");

/// Whether a refusal is a page. Browsers accept `text/html` by name; other programs, and scripts on a
/// page, accept anything.
pub fn is_wanted(request: &RequestHead) -> bool {
    quality(request, b"text/html") > 0.0
}

/// The weight of a type in `Accept`, if it is named there: from 0, not acceptable, to 1 (RFC 9110 section
/// 12.4.2).
pub fn quality(request: &RequestHead, content_type: &[u8]) -> f32 {
    let members = request
        .fields("accept")
        .flat_map(|value| value.split(|byte| *byte == b','));
    let quality = |member: &[u8]| {
        let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let is_meant = parts.next()?.eq_ignore_ascii_case(content_type);
        let weight = parts.find_map(|part| {
            part.strip_prefix(b"q=")
                .or_else(|| part.strip_prefix(b"Q="))
        });
        let number = |weight| std::str::from_utf8(weight).ok()?.parse().ok();
        let is_weight = |number: &f32| (0.0..=1.0).contains(number);
        let weight = weight.map_or(Some(1.0), |weight| number(weight).filter(is_weight));
        weight.filter(|_| is_meant)
    };
    members.filter_map(quality).fold(0.0, f32::max)
}
