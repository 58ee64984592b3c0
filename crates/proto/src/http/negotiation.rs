//! Content negotiation (RFC 9110 section 12): what a client would rather have.

use super::request::RequestHead;

/// The weight of a value in a field of preferences, such as `Accept`, if the field names it: from 0, not
/// acceptable, to 1 (RFC 9110 section 12.4.2). A member with a malformed weight is ignored.
pub fn weight(request: &RequestHead, field: &str, value: &[u8]) -> Option<f32> {
    let members = request
        .fields(field)
        .flat_map(|members| members.split(|byte| *byte == b','));
    let weight = |member: &[u8]| {
        let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let is_meant = parts.next()?.eq_ignore_ascii_case(value);
        let weight = parts.find_map(|part| {
            part.strip_prefix(b"q=")
                .or_else(|| part.strip_prefix(b"Q="))
        });
        let number = |weight| std::str::from_utf8(weight).ok()?.parse().ok();
        let is_weight = |number: &f32| (0.0..=1.0).contains(number);
        let weight = weight.map_or(Some(1.0), |weight| number(weight).filter(is_weight));
        weight.filter(|_| is_meant)
    };
    members.filter_map(weight).reduce(f32::max)
}

/// The weight of a type in `Accept`; 0 if it is not named there.
pub fn accept(request: &RequestHead, content_type: &[u8]) -> f32 {
    weight(request, "accept", content_type).unwrap_or(0.0)
}

/// Whether a client accepts a body that is compressed by gzip, at least as much as one that is not (RFC
/// 9110 section 12.5.3).
pub fn accepts_gzip(request: &RequestHead) -> bool {
    let weight = |coding: &[u8]| weight(request, "accept-encoding", coding);
    let others = weight(b"*").unwrap_or(0.0);
    let gzip = weight(b"gzip").or_else(|| weight(b"x-gzip"));
    let (gzip, plain) = (
        gzip.unwrap_or(others),
        weight(b"identity").unwrap_or(others),
    );
    gzip > 0.0 && gzip >= plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(field: &str, want: bool) {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n");
        let request = RequestHead::parse(head.as_bytes()).unwrap();
        assert_eq!(accepts_gzip(&request), want, "{field}");
    }

    #[test]
    fn gzip_is_for_clients_that_say_so() {
        check("Accept: text/html", false);
        check("Accept-Encoding: gzip", true);
        check("accept-encoding: deflate, GZIP, br", true);
        check("Accept-Encoding: x-gzip", true);
        check("Accept-Encoding: *", true);
        check("Accept-Encoding:", false);
        check("Accept-Encoding: br", false);
        check("Accept-Encoding: br\r\nAccept-Encoding: gzip", true);
        check("Accept-Encoding: gzip;q=0", false);
        check("Accept-Encoding: gzip; q=0.000, *", false);
        check("Accept-Encoding: gzip;q=2", false);
        check("Accept-Encoding: gzip;q=0.5, identity;q=0.5", true);
        check("Accept-Encoding: gzip;q=0.5, identity", false);
        check("Accept-Encoding: gzip;q=0.4, *;q=0.9", false);
        check("Accept-Encoding: gzip;q=0.9, *;q=0.4", true);
        check("Accept-Encoding: identity;q=0, gzip;q=0.1", true);
    }
}
