//! Progress bars on a terminal: one for each transfer, or one for all the files of a folder.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
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

/// The bar of a folder.
const STYLE_OF_TOTAL: &str = "{prefix} [{bar:25}] {bytes}/{total_bytes} {msg}";

/// The time that is left of a folder is known when this many bytes have been transferred.
const MOVED_MIN: u64 = 64 << 10;

/// The line of a folder is written again after this long.
const REFRESH: Duration = Duration::from_millis(100);

/// The bars on standard error, one below the other; none if that is not a terminal.
static SHOWN: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Runs `write`, which writes to the terminal, while the bars are hidden.
pub(crate) fn above_bars<R>(write: impl FnOnce() -> R) -> R {
    SHOWN.suspend(write)
}

/// The progress bar of one transfer. It is shown after [`DELAY`]; dropping it removes it.
pub(crate) enum Bar {
    Hidden,
    /// One of its own.
    Own(OwnBar),
    /// A share of a folder's bar.
    Part(Part),
}

pub(crate) struct OwnBar {
    name: String,
    /// The length of the file, in bytes, if that is known.
    bytes: Option<u64>,
    start: OnceCell<Start>,
    shown: OnceCell<ProgressBar>,
}

/// A file of a folder. Dropping it leaves the file to [`Total::end`].
pub(crate) struct Part {
    total: Arc<Total>,
    /// How much of the file has been counted, in bytes; `None` before the first.
    counted: Cell<Option<u64>>,
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
        if !is_shown {
            return Self::Hidden;
        }
        let name = EscapedBytes {
            bytes: name.as_bytes(),
            bytes_max: NAME_BYTES_MAX,
        };
        Self::Own(OwnBar {
            name: name.to_string(),
            bytes,
            start: OnceCell::new(),
            shown: OnceCell::new(),
        })
    }

    /// The share of a file in the bar of its folder.
    pub(crate) fn part_of(total: &Arc<Total>) -> Self {
        Self::Part(Part {
            total: Arc::clone(total),
            counted: Cell::new(None),
        })
    }

    /// Shows how many bytes of the file there are. The first call says where the transfer begins.
    pub(crate) fn set(&self, bytes: u64) {
        match self {
            Self::Hidden => {}
            Self::Own(bar) => bar.set(bytes),
            Self::Part(part) => {
                let before = part.counted.replace(Some(bytes));
                part.total.set_part(before, bytes);
            }
        }
    }
}

impl OwnBar {
    fn set(&self, bytes: u64) {
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

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(bytes) = self.counted.get() {
            self.total.lock().bytes_under_way -= bytes;
        }
    }
}

impl Drop for OwnBar {
    fn drop(&mut self) {
        if let Some(bar) = self.shown.get() {
            bar.finish_and_clear();
            SHOWN.remove(bar);
        }
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
        let _ = write!(out, "{}", time_left(bytes, start.rate(state.pos())));
    };
    style.with_key("rate", rate).with_key("left", left)
}

/// How long these bytes take at this many a second.
fn time_left(bytes: u64, rate: f64) -> String {
    match Duration::try_from_secs_f64(bytes as f64 / rate) {
        Ok(left) => format!("{:#}", HumanDuration(left)),
        Err(_) => "?".to_owned(),
    }
}

/// How far the files of a folder are, and one bar for all of them. It is shown after [`DELAY`];
/// dropping it removes it.
pub(crate) struct Total {
    is_shown: bool,
    state: Mutex<TotalState>,
}

struct TotalState {
    start: Instant,
    refreshed: Instant,
    shown: Option<ProgressBar>,
    /// What is known of so far.
    files: u64,
    bytes: u64,
    /// Whether nothing will be added to that.
    is_known: bool,
    /// Files that are done, for good or bad, and their bytes.
    ended: u64,
    bytes_ended: u64,
    /// How much there is of the files whose transfers are under way, in bytes.
    bytes_under_way: u64,
    /// How much was transferred, in bytes.
    bytes_moved: u64,
}

impl Total {
    /// Of a folder of which nothing is known yet.
    pub(crate) fn new(is_shown: bool) -> Self {
        let now = Instant::now();
        let state = TotalState {
            start: now,
            refreshed: now,
            shown: None,
            files: 0,
            bytes: 0,
            is_known: false,
            ended: 0,
            bytes_ended: 0,
            bytes_under_way: 0,
            bytes_moved: 0,
        };
        Self {
            is_shown,
            state: Mutex::new(state),
        }
    }

    /// There is one more file, of this many bytes.
    pub(crate) fn add(&self, bytes: u64) {
        let mut state = self.lock();
        state.files += 1;
        state.bytes = state.bytes.saturating_add(bytes);
        self.show(&mut state);
    }

    /// No more files will come.
    pub(crate) fn close(&self) {
        self.lock().is_known = true;
    }

    /// How many files have been added and are not at their end.
    pub(crate) fn files_left(&self) -> u64 {
        let state = self.lock();
        state.files.saturating_sub(state.ended)
    }

    /// A file that was added with this many bytes is done, or has failed.
    pub(crate) fn end(&self, bytes: u64) {
        let mut state = self.lock();
        state.ended += 1;
        state.bytes_ended = state.bytes_ended.saturating_add(bytes);
        self.show(&mut state);
    }

    fn set_part(&self, before: Option<u64>, bytes: u64) {
        let mut state = self.lock();
        state.bytes_under_way = state.bytes_under_way - before.unwrap_or(0) + bytes;
        let moved = before.map_or(0, |before| bytes.saturating_sub(before));
        state.bytes_moved += moved;
        self.show(&mut state);
    }

    fn show(&self, state: &mut TotalState) {
        if !self.is_shown || state.start.elapsed() < DELAY || state.refreshed.elapsed() < REFRESH {
            return;
        }
        state.refreshed = Instant::now();
        let (prefix, message) = (state.files_done(), state.rate_and_time_left());
        let bar = state.shown.get_or_insert_with(|| {
            let style = ProgressStyle::with_template(STYLE_OF_TOTAL);
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(state.bytes).with_style(style);
            SHOWN.add(
                bar.with_prefix(prefix.clone())
                    .with_message(message.clone()),
            )
        });
        bar.set_length(state.bytes);
        bar.set_prefix(prefix);
        bar.set_message(message);
        bar.set_position(state.bytes_ended.saturating_add(state.bytes_under_way));
    }

    fn lock(&self) -> MutexGuard<'_, TotalState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TotalState {
    /// `12/345 files`, with a plus if more may come.
    fn files_done(&self) -> String {
        let more = if self.is_known { "" } else { "+" };
        format!("{}/{}{more} files", self.ended, self.files)
    }

    fn rate_and_time_left(&self) -> String {
        let rate = self.bytes_moved as f64 / self.start.elapsed().as_secs_f64().max(f64::EPSILON);
        let there = self.bytes_ended.saturating_add(self.bytes_under_way);
        // Before the first bytes it would be years.
        let left = match self.is_known && self.bytes_moved >= MOVED_MIN {
            true => time_left(self.bytes.saturating_sub(there), rate),
            false => "?".to_owned(),
        };
        format!("{}/s, {left} left", HumanBytes(rate as u64))
    }
}

impl Drop for Total {
    fn drop(&mut self) {
        if let Some(bar) = &self.lock().shown {
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
        for style in [STYLE, STYLE_WITHOUT_LENGTH, STYLE_OF_TOTAL] {
            ProgressStyle::with_template(style).unwrap();
        }
    }

    #[test]
    fn a_bar_is_seen_when_it_has_taken_a_while() {
        let own = || match Bar::new(true, OsStr::new("a\n"), Some(10)) {
            Bar::Own(bar) => bar,
            Bar::Hidden | Bar::Part(_) => panic!("it has none of its own"),
        };
        let bar = own();
        bar.set(1);
        assert!(bar.shown.get().is_none());
        let mut bar = own();
        bar.start = OnceCell::from(Start {
            at: Instant::now() - DELAY,
            bytes: 1,
        });
        bar.set(2);
        assert_eq!(bar.shown.get().unwrap().position(), 2);
        assert_eq!(bar.shown.get().unwrap().message(), r"a\n");
    }

    #[test]
    fn the_bar_of_a_folder_has_all_of_its_files() {
        let total = Arc::new(Total::new(true));
        let long_ago = Instant::now() - Duration::from_secs(10);
        total.lock().start = long_ago;
        total.add(100);
        total.add(50);
        let bar = Bar::part_of(&total);
        // What was there before was not transferred now.
        bar.set(40);
        bar.set(90);
        let state = || {
            let state = total.lock();
            (state.bytes_ended, state.bytes_under_way, state.bytes_moved)
        };
        assert_eq!(state(), (0, 90, 50));
        assert!(total.lock().rate_and_time_left().ends_with("/s, ? left"));
        assert_eq!(total.lock().files_done(), "0/2+ files");
        // A transfer that starts over moves the bar back.
        bar.set(10);
        assert_eq!(state(), (0, 10, 50));
        drop(bar);
        total.end(100);
        total.close();
        assert_eq!(state(), (100, 0, 50));
        assert_eq!(total.lock().files_done(), "1/2 files");
        assert!(total.lock().rate_and_time_left().ends_with("/s, ? left"));
        total.lock().bytes_moved = MOVED_MIN;
        assert!(!total.lock().rate_and_time_left().contains('?'));
        total.lock().refreshed = long_ago;
        total.end(50);
        let state = total.lock();
        let bar = state.shown.as_ref().unwrap();
        assert_eq!((bar.position(), bar.length()), (150, Some(150)));
    }
}
