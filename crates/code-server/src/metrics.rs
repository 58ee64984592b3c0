//! What `/metrics` tells of the codes and messages.

use std::fmt;
use std::sync::Arc;

use daemon::{Figures, Page};

use crate::codes::Codes;
use crate::messages::Messages;

/// The figures of both ports.
pub(crate) struct CodeFigures {
    pub(crate) codes: Arc<Codes>,
    pub(crate) messages: Arc<Messages>,
}

impl Figures for CodeFigures {
    fn add_to(&self, page: &mut Page) -> fmt::Result {
        let (codes, messages) = (&self.codes, &self.messages);
        let (help, max_help) = (
            "Codes handed out",
            "Codes that may be handed out (--max-codes)",
        );
        page.gauge("quartet_codes", help, codes.count())?;
        page.gauge("quartet_codes_max", max_help, codes.codes_max() as u64)?;
        let help = "Messages logged since the server started";
        page.counter("quartet_code_messages", help, messages.logged())?;
        let (of_codes, of_messages) = (codes.commit_figures(), messages.commit_figures());
        page.commits(&[
            ("codes", &of_codes.changes, &of_codes.seconds),
            ("messages", &of_messages.changes, &of_messages.seconds),
        ])
    }
}
