//! `note`: an input is one note, or each of its lines is one.

use std::io::{BufReader, Read};

use cli::ClientError;
use cli::stream::{input, read_piece};
use proto::history::{NOTE_BYTES_MAX, Operation, Request};

use crate::text::{check_note, note_of};
use crate::{Client, Config, Error};

/// The buffer for an input with many lines, in bytes.
const INPUT_BYTES: usize = 64 * 1024;

/// What to note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Who notes it.
    pub user: String,
    /// What.
    pub source: Source,
}

/// Where notes are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Text(String),
    /// Standard input, all of which is one note.
    Stdin,
    /// Standard input, where each line is one.
    Lines,
}

impl Note {
    pub(crate) fn run(&self, config: &Config) -> Result<(), Error> {
        match &self.source {
            Source::Text(text) => self.send(config, check_note(text)?),
            Source::Stdin => self.send(config, note_of(&read_note(input()?)?)?),
            Source::Lines => {
                let input = BufReader::with_capacity(INPUT_BYTES, input()?);
                self.send_lines(config, input)
            }
        }
    }

    fn send(&self, config: &Config, text: &str) -> Result<(), Error> {
        let (user, operation) = (self.user.as_str(), Operation::Note(text));
        let request = Request { user, operation };
        let sentence = config.ask(|client, on_part| client.ask(&request, on_part), |_| Ok(()))?;
        config.tell(&format!("{sentence}\n"));
        Ok(())
    }

    /// Sends each line of the input as a note. An empty line is none.
    fn send_lines(&self, config: &Config, mut input: BufReader<impl Read>) -> Result<(), Error> {
        let mut client = Client::connect(&config.endpoint)?;
        let mut batch = client.batch(&self.user)?;
        let mut line = Vec::new();
        for number in 1.. {
            if !input.buffer().contains(&b'\n') {
                // The next line may take a while; those before it must not wait for it.
                batch.flush()?;
            }
            match read_piece(&mut input, b'\n', NOTE_BYTES_MAX, &mut line) {
                Ok(true) if line.is_empty() => {}
                Ok(true) => match note_of(&line) {
                    Ok(text) => batch.send(number, text)?,
                    Err(cause) => return Err(batch.refuse(number, cause)),
                },
                Ok(false) => break,
                Err(cause) => {
                    let noted = batch.finish()?;
                    log::warn!("Lines noted before the input failed: {noted}");
                    return Err(ClientError::Input(cause).into());
                }
            }
        }
        let noted = batch.finish()?;
        config.tell(&format!("Noted: {noted} lines.\n"));
        Ok(())
    }
}

/// Reads all of an input but the line feed at its end, and never more than a note and two bytes.
fn read_note(input: impl Read) -> Result<Vec<u8>, Error> {
    let mut note = Vec::new();
    let mut input = input.take(NOTE_BYTES_MAX as u64 + 2);
    input.read_to_end(&mut note).map_err(ClientError::Input)?;
    note.pop_if(|byte| *byte == b'\n');
    Ok(note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_a_note_without_its_last_line_feed() {
        let longest = "x".repeat(NOTE_BYTES_MAX);
        let with_end = format!("{longest}\n");
        let check = |input: &str, want: &str| {
            let note = read_note(input.as_bytes()).unwrap();
            assert_eq!(note_of(&note).ok(), Some(want), "{input}");
        };
        check("a", "a");
        check("a\n", "a");
        check("a\nb\n\n", "a\nb\n");
        check(&longest, &longest);
        check(&with_end, &longest);
        let note = read_note(format!("{longest}\nx").as_bytes()).unwrap();
        assert!(note_of(&note).is_err());
        let note = read_note(format!("{longest}\n\n").as_bytes()).unwrap();
        assert!(note_of(&note).is_err());
    }
}
