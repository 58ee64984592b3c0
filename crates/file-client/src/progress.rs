//! Bars on a terminal that show how far transfers are.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use proto::escape::EscapedBytes;

/// A transfer that takes less than this shows no bar.
const UNSEEN: Duration = Duration::from_millis(500);

/// The longest name on a bar, in bytes; `…` stands for the rest.
const NAME_BYTES_MAX: usize = 30;

/// How a bar looks whose length is known, and one whose length is not.
const STYLE: &str = "{msg} [{bar:25}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
const STYLE_WITHOUT_LENGTH: &str = "{msg} {bytes} {bytes_per_sec}";

/// The bars that are shown, one below the other, on standard error; none if that is no terminal.
static SHOWN: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Does something that writes to the terminal without garbling the bars.
pub(crate) fn above_bars<R>(write: impl FnOnce() -> R) -> R {
    SHOWN.suspend(write)
}

/// How far one transfer is. It is shown when it has taken a while; dropping it takes it off the
/// terminal.
pub(crate) struct Bar {
    begun: Instant,
    name: String,
    /// How much there is, in bytes, if that is known.
    bytes: Option<u64>,
    shown: OnceCell<ProgressBar>,
    is_hidden: bool,
}

impl Bar {
    /// The bar of a file.
    pub(crate) fn new(is_shown: bool, name: &OsStr, bytes: Option<u64>) -> Self {
        let name = EscapedBytes {
            bytes: name.as_bytes(),
            bytes_max: NAME_BYTES_MAX,
        };
        Self {
            begun: Instant::now(),
            name: name.to_string(),
            bytes,
            shown: OnceCell::new(),
            is_hidden: !is_shown,
        }
    }

    /// Shows that so many bytes of the file have been transferred.
    pub(crate) fn set(&self, bytes: u64) {
        if self.is_hidden || self.begun.elapsed() < UNSEEN {
            return;
        }
        let mut is_new = false;
        let bar = self.shown.get_or_init(|| {
            is_new = true;
            SHOWN.add(self.make())
        });
        bar.set_position(bytes);
        if is_new {
            // What was there before says nothing about the rate.
            bar.reset_eta();
        }
    }

    fn make(&self) -> ProgressBar {
        let (bar, style) = match self.bytes {
            Some(bytes) => (ProgressBar::new(bytes), STYLE),
            None => (ProgressBar::no_length(), STYLE_WITHOUT_LENGTH),
        };
        let style = ProgressStyle::with_template(style);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.with_style(style)
            .with_message(Cow::Owned(self.name.clone()))
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = self.shown.get() {
            bar.finish_and_clear();
            SHOWN.remove(bar);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_styles_are_well_formed() {
        for style in [STYLE, STYLE_WITHOUT_LENGTH] {
            ProgressStyle::with_template(style).unwrap();
        }
    }

    #[test]
    fn a_bar_is_seen_when_it_has_taken_a_while() {
        let mut bar = Bar::new(true, OsStr::new("a\n"), Some(10));
        bar.set(1);
        assert!(bar.shown.get().is_none());
        bar.begun = Instant::now() - UNSEEN;
        bar.set(2);
        assert_eq!(bar.shown.get().unwrap().position(), 2);
        assert_eq!(bar.shown.get().unwrap().message(), r"a\n");
        let mut hidden = Bar::new(false, OsStr::new("a"), None);
        hidden.begun = bar.begun;
        hidden.set(2);
        assert!(hidden.shown.get().is_none());
    }
}
