//! `follow`: the last lines of the history, and each new one as it comes.
//!
//! After a loss of the server it continues behind the last line that it has printed, by the sequence
//! number of that line, so it prints each line once.

use std::io::Write as _;
use std::time::Instant;

use cli::stream::{Output, output};
use cli::{ClientError, Losses, pause};

use crate::{Begin, Client, Config, Error, Event};

/// What to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    /// Who follows.
    pub user: String,
    /// How many of the last lines come first.
    pub last: u64,
}

/// What is printed.
struct Printer {
    out: Output,
    /// Lines that are not written yet: those that arrived together.
    text: Vec<u8>,
    /// The sequence number of the last line, if there was one.
    last: Option<u64>,
    has_greeted: bool,
}

impl Follow {
    pub(crate) fn run(&self, config: &Config) -> Result<(), Error> {
        let mut printer = Printer {
            out: output()?,
            text: Vec::new(),
            last: None,
            has_greeted: false,
        };
        let mut losses = Losses::default();
        loop {
            let mut client = Client::connect(&config.endpoint)?;
            let asked = Instant::now();
            let followed = self.follow(&mut client, config, &mut printer);
            // What has come is printed, however this ended.
            printer.flush()?;
            let error = match followed {
                Err(error) if error.is_server_away() => error,
                ended => return ended,
            };
            match losses.pause_before_next(&config.endpoint, asked, &error) {
                Some(length) => pause(length),
                None => return Err(error),
            };
        }
    }

    /// Follows over one connection. Ends without an error when nobody reads the output any more.
    fn follow(
        &self,
        client: &mut Client,
        config: &Config,
        printer: &mut Printer,
    ) -> Result<(), Error> {
        let begin = match printer.last {
            Some(last) => Begin::Behind(last),
            None => Begin::Last(self.last),
        };
        client.follow(&self.user, begin)?;
        loop {
            if !client.has_event() {
                printer.flush()?;
                if !client.wait_for_event(&printer.out)? {
                    return Ok(());
                }
            }
            match client.next_event()? {
                Event::About(text) if !printer.has_greeted => {
                    printer.has_greeted = true;
                    config.tell(text);
                }
                Event::About(_) | Event::Nothing => {}
                Event::Line { sequence, text } => printer.put_line(sequence, text),
                Event::Deleted { first, last } => printer.put_deleted(first, last),
            }
        }
    }
}

impl Printer {
    fn put_line(&mut self, sequence: u64, text: &[u8]) {
        self.last = Some(sequence);
        self.put(&format!("#{sequence} "));
        self.text.extend_from_slice(text);
        self.put("\n");
    }

    fn put_deleted(&mut self, first: u64, last: u64) {
        match first == last {
            true => self.put(&format!("#{first} deleted\n")),
            false => self.put(&format!("#{first}-{last} deleted\n")),
        }
    }

    fn put(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    fn flush(&mut self) -> Result<(), Error> {
        let written = self.out.write_all(&self.text);
        let flushed = written.and_then(|()| self.out.flush());
        self.text.clear();
        Ok(flushed.map_err(ClientError::Output)?)
    }
}
