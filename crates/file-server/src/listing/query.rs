//! Which list a request asks for, and the links to other parts of it.

use percent_encoding::{percent_decode_str, percent_encode};
use proto::http::RequestHead;
use proto::http::negotiation::accept;

use crate::files::{Column, Order, PAGES_MAX, Selection};
use crate::page::LINK_ESCAPES;

/// The columns: their names in requests, and their titles.
pub(super) const COLUMNS: [(Column, &str, &str); 3] = [
    (Column::Name, "name", "name"),
    (Column::Size, "size", "size"),
    (Column::Time, "time", "time (UTC)"),
];

/// The list that a request asks for: `?sort=name|size|time`, `&desc` for descending, `&search=TEXT` for the
/// names that contain a text, `&page=N`, and `&json`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pub(super) order: Order,
    /// The text as the request has it; empty for all names.
    pub(super) search: String,
    page: usize,
    /// Whether it is JSON, which has no pages.
    pub(super) is_json: bool,
}

impl Query {
    /// That of a request. What it says of other things is ignored, and so is what is malformed.
    pub(crate) fn of(request: &RequestHead) -> Self {
        let value = |name: &str| {
            let value = |one: &'_ str| one.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
            parameters(request).find_map(value)
        };
        let column = |name: String| COLUMNS.iter().find(|(_, word, _)| *word == name);
        let search = value("search").unwrap_or_default().replace('+', " ");
        let search = percent_decode_str(&search).decode_utf8_lossy();
        Self {
            order: Order {
                column: value("sort")
                    .and_then(column)
                    .map(|(column, ..)| *column)
                    .unwrap_or_default(),
                // A form cannot send a name without a value.
                is_descending: parameters(request).any(|one| matches!(one, "desc" | "desc=")),
            },
            // No name has a NUL, and no page may have one.
            search: search.replace('\0', "\u{fffd}"),
            page: value("page")
                .and_then(|page| page.parse().ok())
                .unwrap_or(1),
            is_json: wants_json(request),
        }
    }

    /// The entries that it selects.
    pub(crate) fn selection(&self) -> Selection {
        Selection {
            order: self.order,
            search: self.search.to_lowercase(),
            page: (!self.is_json).then_some(self.page.clamp(1, PAGES_MAX)),
        }
    }

    /// The same list of all names.
    pub(super) fn without_search(&self) -> Self {
        Self {
            search: String::new(),
            ..self.clone()
        }
    }

    /// The name of its column, if that is not the default.
    pub(super) fn sort(&self) -> Option<&'static str> {
        let is_ours = |(column, ..): &&(Column, &str, &str)| *column == self.order.column;
        let named = COLUMNS.iter().find(is_ours);
        named
            .filter(|_| self.order.column != Column::default())
            .map(|(_, name, _)| *name)
    }

    /// The link to a page of the same list. Each page has one link, so that a program that follows all of
    /// them gets each once.
    pub(super) fn link(&self, page: usize) -> String {
        let search = percent_encode(self.search.as_bytes(), LINK_ESCAPES);
        let parts = [
            self.sort().map(|column| format!("sort={column}")),
            self.order.is_descending.then(|| "desc".to_owned()),
            (!self.search.is_empty()).then(|| format!("search={search}")),
            (page > 1).then(|| format!("page={page}")),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        match parts.is_empty() {
            true => "./".to_owned(),
            false => format!("./?{}", parts.join("&")),
        }
    }
}

fn parameters<'r>(request: &RequestHead<'r>) -> impl Iterator<Item = &'r str> {
    request.query.unwrap_or_default().split('&')
}

/// Whether the request asks for the list, even if there is an index page: `?json`.
pub(crate) fn is_asked_for(request: &RequestHead) -> bool {
    parameters(request).any(|one| one == "json")
}

/// Whether the request prefers JSON, by name, to a page. A browser asks for pages, and other programs
/// accept anything.
fn wants_json(request: &RequestHead) -> bool {
    let json = accept(request, b"application/json");
    is_asked_for(request) || json > 0.0 && json >= accept(request, b"text/html")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(query: &str) -> Query {
        let head = format!("GET /{query} HTTP/1.1\r\nHost: h\r\n\r\n");
        Query::of(&RequestHead::parse(head.as_bytes()).unwrap())
    }

    #[test]
    fn the_order_is_the_one_of_the_request() {
        for (text, column, is_descending) in [
            ("", Column::Name, false),
            ("?sort=size", Column::Size, false),
            ("?sort=time&desc", Column::Time, true),
            ("?desc=&sort=name", Column::Name, true),
            ("?sort=mood", Column::Name, false),
        ] {
            let want = Order {
                column,
                is_descending,
            };
            assert_eq!(query(text).order, want, "{text}");
        }
    }

    #[test]
    fn a_search_is_any_text() {
        for (text, want) in [
            ("", ""),
            ("?search", ""),
            ("?search=", ""),
            ("?sort=size&search=a+b%2B%20%c3%84", "a b+ Ä"),
            ("?search=%00%ff", "\u{fffd}\u{fffd}"),
            ("?research=a", ""),
        ] {
            assert_eq!(query(text).search, want, "{text}");
        }
    }

    #[test]
    fn a_page_is_a_number_from_1() {
        for (text, want) in [
            ("", 1),
            ("?page=7", 7),
            ("?page=0", 1),
            ("?page=-1", 1),
            ("?page=x", 1),
            ("?page=99999999999999999999", 1),
            ("?page=999999", PAGES_MAX),
        ] {
            assert_eq!(query(text).selection().page, Some(want), "{text}");
        }
        assert_eq!(query("?json&page=2").selection().page, None);
    }

    #[test]
    fn each_page_has_one_link() {
        for (text, page, want) in [
            ("", 1, "./"),
            ("?page=3&sort=name&x", 1, "./"),
            ("", 2, "./?page=2"),
            (
                "?search=%26+%22&page=9&desc=&sort=size",
                3,
                "./?sort=size&desc&search=%26%20%22&page=3",
            ),
            ("?sort=time", 1, "./?sort=time"),
        ] {
            let link = query(text).link(page);
            assert_eq!(link, want, "{text}");
            assert_eq!(query(&link[2..]).link(page), want, "{text}");
        }
    }
}
