//! Progress bars on a terminal.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use cli::escape::EscapedBytes;
use indicatif::{
    HumanBytes, HumanDuration, MultiProgress, ProgressBar, ProgressState, ProgressStyle,
};

/// A transfer that takes less than this shows no bar.
const DELAY: Duration = Duration::from_millis(500);

/// The longest name on a bar, in bytes; `…` stands for the rest.
const NAME_BYTES_MAX: usize = 30;

/// The bar of a transfer whose length is known, and of one whose length is not.
const STYLE: &str = "{msg} [{bar:25}] {bytes}/{total_bytes} {rate}, {left} left";
const STYLE_WITHOUT_LENGTH: &str = "{msg} {bytes} {rate}";

/// The bars on standard error, one below the other; none if that is not a terminal.
static SHOWN: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Runs `write`, which writes to the terminal, while the bars are hidden.
pub(crate) fn above_bars<R>(write: impl FnOnce() -> R) -> R {
    SHOWN.suspend(write)
}

/// The progress bar of one transfer. It is shown after [`DELAY`]; dropping it removes it.
pub(crate) struct Bar {
    name: String,
    /// The length of the file, in bytes, if that is known.
    bytes: Option<u64>,
    start: OnceCell<Start>,
    shown: OnceCell<ProgressBar>,
    is_hidden: bool,
}

/// When a transfer began, and how much there was of the file.
#[derive(Debug, Clone, Copy)]
struct Start {
    at: Instant,
    bytes: u64,
}

impl Start {
    /// Bytes a second since the start.
    fn rate(self, bytes: u64) -> f64 {
        bytes.saturating_sub(self.bytes) as f64 / self.at.elapsed().as_secs_f64().max(f64::EPSILON)
    }
}

impl Bar {
    /// The bar of a file.
    pub(crate) fn new(is_shown: bool, name: &OsStr, bytes: Option<u64>) -> Self {
        let name = EscapedBytes {
            bytes: name.as_bytes(),
            bytes_max: NAME_BYTES_MAX,
        };
        Self {
            name: name.to_string(),
            bytes,
            start: OnceCell::new(),
            shown: OnceCell::new(),
            is_hidden: !is_shown,
        }
    }

    /// Shows how many bytes of the file have been transferred.
    pub(crate) fn set(&self, bytes: u64) {
        if self.is_hidden {
            return;
        }
        let at = Instant::now();
        let start = self.start.get_or_init(|| Start { at, bytes });
        if start.at.elapsed() >= DELAY {
            let bar = self.shown.get_or_init(|| SHOWN.add(self.make(*start)));
            bar.set_position(bytes);
        }
    }

    fn make(&self, start: Start) -> ProgressBar {
        let (bar, style) = match self.bytes {
            Some(bytes) => (ProgressBar::new(bytes), STYLE),
            None => (ProgressBar::no_length(), STYLE_WITHOUT_LENGTH),
        };
        bar.with_style(style_of(style, start))
            .with_message(Cow::Owned(self.name.clone()))
    }
}

/// A style with the rate of the whole transfer, without what was there before.
fn style_of(template: &str, start: Start) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    // A bar that cannot be written is no failure of the transfer.
    let rate = move |state: &ProgressState, out: &mut dyn Write| {
        let _ = write!(out, "{}/s", HumanBytes(start.rate(state.pos()) as u64));
    };
    let left = move |state: &ProgressState, out: &mut dyn Write| {
        let bytes = state.len().unwrap_or_default().saturating_sub(state.pos());
        let seconds = bytes as f64 / start.rate(state.pos());
        let _ = match Duration::try_from_secs_f64(seconds) {
            Ok(left) => write!(out, "{:#}", HumanDuration(left)),
            Err(_) => write!(out, "?"),
        };
    };
    style.with_key("rate", rate).with_key("left", left)
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
        let bar = Bar::new(true, OsStr::new("a\n"), Some(10));
        bar.set(1);
        assert!(bar.shown.get().is_none());
        let mut bar = Bar::new(true, OsStr::new("a\n"), Some(10));
        bar.start = OnceCell::from(Start {
            at: Instant::now() - DELAY,
            bytes: 1,
        });
        bar.set(2);
        assert_eq!(bar.shown.get().unwrap().position(), 2);
        assert_eq!(bar.shown.get().unwrap().message(), r"a\n");
    }
}
