//! Several servers of the same messages, of which one is active. Each is asked in turn, and the first that
//! does not say otherwise is the one.

use std::iter;
use std::time::{Duration, Instant};

use cli::exit::with_causes;
use cli::{ClientError, Endpoint, pause};
use proto::frame::Message;
use proto::queue::{MessageState, QueueName, Request};

use crate::Error;
use crate::tcp::Connection;

/// How long each of them may take to be reached and to reply, unless `--timeout` is shorter: a machine that is
/// gone must not keep the client from the next one for long.
const ASK_MAX: Duration = Duration::from_secs(3);

/// Connects to the server, or to the first of several that is active. A single one is not asked.
///
/// # Errors
/// [`Error::NoneActive`]; that of a single server; and that of one which is there but cannot be used, because
/// it is not to be trusted or refuses the account.
pub(crate) fn connect(server: &Endpoint) -> Result<Connection, Error> {
    if server.others.is_empty() {
        return Connection::new(server);
    }
    server.retry(Error::is_server_away, pause, first_active)
}

fn first_active(server: &Endpoint) -> Result<Connection, Error> {
    let mut passed_over = Vec::new();
    for address in iter::once(&server.address).chain(&server.others) {
        match ask(&server.at(address.clone())) {
            Err(error) if error.is_server_away() => {
                passed_over.push(format!("{address} ({})", why(&error)));
            }
            asked => return asked,
        }
    }
    Err(Error::NoneActive(passed_over))
}

/// Connects to one of them, and asks it for something that changes nothing.
fn ask(server: &Endpoint) -> Result<Connection, Error> {
    let start = Instant::now();
    let timeout = server.timeout.min(ASK_MAX);
    let mut connection = Connection::new(&Endpoint {
        timeout,
        ..server.clone()
    })?;
    connection.set_timeout(timeout.saturating_sub(start.elapsed()));
    let request = Request::Peek {
        queue: QueueName::DEFAULT,
        state: MessageState::Ready,
        after: u64::MAX,
    };
    let mut frame = Vec::new();
    request.encode(&mut frame);
    let mut payload = Vec::new();
    let kind = connection.exchange(&frame, |connection| {
        connection.read(Duration::ZERO, &mut payload)
    })?;
    connection.set_timeout(server.timeout);
    Error::away(kind, &payload).map_or(Ok(connection), Err)
}

/// Why a server is passed over. Its address stands in front.
fn why(error: &Error) -> String {
    match error {
        Error::Client(ClientError::Connect { cause, .. }) => with_causes(cause),
        Error::Refused { sentence, .. } => sentence.clone(),
        other => with_causes(other),
    }
}
