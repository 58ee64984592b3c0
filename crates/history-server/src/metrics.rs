//! What `/metrics` tells of the history.

use std::fmt;
use std::sync::Arc;

use daemon::{Figures, Page};

use crate::History;

/// The history's figures.
pub(crate) struct HistoryFigures(pub(crate) Arc<History>);

impl Figures for HistoryFigures {
    fn add_to(&self, page: &mut Page) -> fmt::Result {
        let history = &self.0;
        let help = "Lines of the history";
        page.gauge("quartet_history_lines", help, history.lines())?;
        let help = "Length of the history's file";
        page.gauge("quartet_history_file_bytes", help, history.bytes())?;
        let figures = history.commit_figures();
        page.commits(&[("history", &figures.changes, &figures.seconds)])
    }
}
