//! A request over HTTP becomes the [`Request`] that a frame would be.

use std::ffi::OsStr;
use std::io::Read as _;
use std::ops::RangeInclusive;
use std::time::Duration;

use cli::args::duration;
use cli::escape::Escaped;
use daemon::http::{Parameters, RequestBody, body_refusal};
use proto::digits;
use proto::http::{BodyLength, Refusal, RequestHead, Status};
use proto::queue::{
    DURATION_MAX, Delivery, Key, MessageId, MessageState, Priority, Properties, QUEUES_ASKED_MAX,
    QueueName, QueueNames, REASON_BYTES_MAX, Reason, Request, Retry, Token,
};

use super::Denied;
use super::page::home;
use super::route::{PROPERTIES, Route, Verb};
use crate::error::QueueError;
use crate::memory::Room;
use crate::queues::Queues;

/// How long a lease is unless that is said.
const LEASE: &str = "30";

/// How much of a body is told in JSON unless told otherwise, in bytes...
const START_BYTES_USUAL: usize = 1024;

/// ...and at most. What is longer is had as bytes.
const START_BYTES_MAX: usize = 4096;

/// How much of a body is read at first, in bytes, if its length is not announced; then twice as much.
const PIECE_BYTES: usize = 16 * 1024;

/// A request, with all that the [`Request`] which it stands for borrows.
pub(super) struct Asked {
    pub(super) verb: Verb,
    /// The queue; of a lease, all of them, separated by commas.
    queue: String,
    id: String,
    token: String,
    pub(super) parameters: Parameters,
    /// How much of a body is told in JSON, in bytes.
    pub(super) start_bytes: usize,
    /// The properties, from the query or from fields.
    properties: [String; PROPERTIES.len()],
    /// A message, or a reason.
    body: Vec<u8>,
    /// Where the page is, as seen from the path.
    pub(super) home: String,
}

impl Asked {
    /// What the head of a request asks. Its body is read later.
    ///
    /// # Errors
    /// If there is a parameter that has no meaning here, or a property twice.
    pub(super) fn of(request: &RequestHead, route: &Route, verb: Verb) -> Result<Self, Refusal> {
        let parameters = Parameters::of_query(request, route.row.query)?;
        let mut properties: [String; PROPERTIES.len()] = Default::default();
        if verb == Verb::Send {
            for (property, (name, field)) in properties.iter_mut().zip(PROPERTIES) {
                *property = property_of(request, &parameters, name, field)?;
            }
        }
        let queue = if verb == Verb::Lease {
            "queues"
        } else {
            "queue"
        };
        Ok(Self {
            verb,
            queue: route.segment(queue).to_owned(),
            id: route.segment("id").to_owned(),
            token: route.segment("token").to_owned(),
            start_bytes: count(&parameters, "bytes", START_BYTES_USUAL, 0..=START_BYTES_MAX)?,
            parameters,
            properties,
            body: Vec::new(),
            home: home(request.path),
        })
    }

    /// Reads the body.
    ///
    /// # Errors
    /// If there is one where there must be none; if it is too long, or there is no room for it; those of the
    /// stream.
    pub(super) fn read_body(
        &mut self,
        request: &RequestHead,
        body: &mut dyn RequestBody,
        queues: &Queues,
        room: &mut Room,
    ) -> Result<(), Denied> {
        let bytes_max = if self.verb == Verb::Send {
            queues.body_bytes_max()
        } else if self.verb == Verb::Release {
            REASON_BYTES_MAX
        } else {
            0
        };
        let mut goal = match request.body {
            BodyLength::None => return Ok(()),
            BodyLength::Bytes(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
            BodyLength::Chunked | BodyLength::UntilClose => PIECE_BYTES.min(bytes_max + 1),
        };
        loop {
            if goal > bytes_max + 1 {
                return Err(self.too_long(goal, bytes_max));
            }
            if !room.grow_to(goal) {
                return Err(queues.memory().full().into());
            }
            self.body.reserve_exact(goal - self.body.len());
            let more = (goal - self.body.len()) as u64;
            let read = (&mut *body).take(more).read_to_end(&mut self.body);
            read.map_err(|error| body_refusal(&error))?;
            if self.body.len() > bytes_max {
                return Err(self.too_long(self.body.len(), bytes_max));
            }
            if self.body.len() < goal || matches!(request.body, BodyLength::Bytes(_)) {
                return Ok(());
            }
            goal = (2 * goal).min(bytes_max + 1);
        }
    }

    fn too_long(&self, body_bytes: usize, bytes_max: usize) -> Denied {
        if self.verb == Verb::Send {
            let body_bytes_max = bytes_max;
            return Denied::Queue(QueueError::TooLarge {
                body_bytes,
                body_bytes_max,
            });
        }
        if bytes_max == 0 {
            return bad("this request has no body").into();
        }
        let sentence = format!("a reason exceeds {bytes_max} bytes");
        Refusal::new(Status::ContentTooLarge, sentence).into()
    }

    /// The request of the queues.
    ///
    /// # Errors
    /// If a part of it can be no such part.
    pub(super) fn request(&self) -> Result<Request<'_>, Refusal> {
        Ok(match self.verb {
            Verb::Send => Request::Send {
                queue: self.queue()?,
                properties: self.properties()?,
                body: &self.body,
            },
            Verb::Lease => Request::Receive {
                queues: self.queues()?,
                wait_millis: self.millis("wait", "0")?,
                delivery: Delivery::Lease {
                    lease_millis: self.millis("seconds", LEASE)?,
                },
            },
            Verb::Ack => Request::Ack {
                claim: self.token()?.into(),
            },
            Verb::Release => Request::Release {
                claim: self.token()?.into(),
                retry: self.retry()?,
                reason: self.reason()?,
            },
            Verb::Extend => Request::Extend {
                token: self.token()?,
                lease_millis: self.millis("seconds", "")?,
            },
            Verb::Stats => Request::Stats,
            Verb::Peek => Request::Peek {
                queue: self.queue()?,
                state: self.state()?,
                after: self.parameters.number("after")?.unwrap_or(0),
            },
            Verb::PeekOne | Verb::Body => Request::PeekOne {
                queue: self.queue()?,
                id: self.id()?,
            },
            Verb::Delete => Request::Delete {
                queue: self.queue()?,
                id: self.id()?,
            },
            Verb::KickOne => Request::KickOne {
                queue: self.queue()?,
                id: self.id()?,
            },
            Verb::Move => Request::Move {
                queue: self.queue()?,
                id: self.id()?,
                to: name(self.parameters.get("to"))?,
            },
            Verb::ReleaseOne => Request::ReleaseOne {
                queue: self.queue()?,
                id: self.id()?,
            },
            Verb::Purge => Request::Purge {
                queue: self.queue()?,
            },
            Verb::Pause => Request::Pause {
                queue: self.queue()?,
            },
            Verb::Resume => Request::Resume {
                queue: self.queue()?,
            },
            Verb::Kick => Request::Kick {
                queue: self.queue()?,
            },
            Verb::Drain(on) => Request::Drain { on },
        })
    }

    /// The queue of the path.
    pub(super) fn queue(&self) -> Result<QueueName<'_>, Refusal> {
        name(&self.queue)
    }

    fn queues(&self) -> Result<QueueNames<'_>, Refusal> {
        let names = self.queue.split(',').map(name);
        let names: Vec<_> = names.collect::<Result<_, _>>()?;
        let too_many = || bad(format!("at most {QUEUES_ASKED_MAX} queues may be named"));
        QueueNames::new(names).ok_or_else(too_many)
    }

    /// The name of the queue that a reply counts so among those that were asked.
    pub(super) fn name_of(&self, queue_index: u8) -> &str {
        let mut names = self.queue.split(',');
        names.nth(queue_index.into()).unwrap_or_default()
    }

    /// How many messages a list has at most.
    ///
    /// # Errors
    /// If the parameter is no such number.
    pub(super) fn limit(&self, usual: usize, most: usize) -> Result<usize, Refusal> {
        count(&self.parameters, "limit", usual, 1..=most)
    }

    fn id(&self) -> Result<MessageId, Refusal> {
        let wrong = || {
            bad(format!(
                "a message's id is a number, not '{}'",
                Escaped(&self.id)
            ))
        };
        digits::parse(self.id.as_bytes()).map_err(|_| wrong())
    }

    fn token(&self) -> Result<Token, Refusal> {
        // It is a secret, so it is not repeated.
        let wrong = || bad("a token is a UUID, as Queue-Token has said it");
        self.token.parse().map_err(|_| wrong())
    }

    fn state(&self) -> Result<MessageState, Refusal> {
        state(self.parameters.get("state"))
    }

    fn properties(&self) -> Result<Properties<'_>, Refusal> {
        let [delay, priority, key, expires, attempts_max] = &self.properties;
        let refused = |what: &str, want: &str, word: &str| {
            bad(format!("{what} must be {want}, not '{}'", Escaped(word)))
        };
        let priority = match priority.as_str() {
            "" => Priority::NORMAL,
            word => number(word)
                .and_then(|number| u8::try_from(number).ok())
                .and_then(Priority::new)
                .ok_or_else(|| refused("priority", "a number from 0 to 9", word))?,
        };
        let key = match key.as_str() {
            "" => None,
            word => Some(Key::new(word).ok_or_else(|| {
                let want = "1 to 255 bytes of UTF-8 without control characters";
                refused("key", want, word)
            })?),
        };
        let attempts_max = match attempts_max.as_str() {
            "" => 0,
            word => number(word)
                .and_then(|number| u32::try_from(number).ok())
                .filter(|count| *count > 0)
                .ok_or_else(|| refused("max-attempts", "a number from 1 to 4294967295", word))?,
        };
        Ok(Properties {
            delay_millis: match delay.as_str() {
                "" => 0,
                word => millis("delay", word, 0)?,
            },
            priority,
            key,
            expiry_millis: match expires.as_str() {
                "" => 0,
                word => millis("expires", word, 1)?,
            },
            attempts_max,
        })
    }

    fn retry(&self) -> Result<Retry, Refusal> {
        let delay_millis = self.millis("delay", "0")?;
        match self.parameters.get("retry") {
            "" if !self.parameters.has("retry") => Ok(Retry::Counted { delay_millis }),
            "counted" => Ok(Retry::Counted { delay_millis }),
            "uncounted" => Ok(Retry::Uncounted { delay_millis }),
            "never" if delay_millis > 0 => Err(bad("what is never tried again has no delay")),
            "never" => Ok(Retry::Never),
            other => {
                let other = Escaped(other);
                Err(bad(format!(
                    "retry must be counted, uncounted or never, not '{other}'"
                )))
            }
        }
    }

    fn reason(&self) -> Result<Reason<'_>, Refusal> {
        let text = str::from_utf8(&self.body).map_err(|_| bad("a reason is text in UTF-8"))?;
        Ok(Reason::new(text))
    }

    fn millis(&self, parameter: &'static str, usual: &str) -> Result<u32, Refusal> {
        let is_said = self.parameters.has(parameter);
        let word = self.parameters.get(parameter);
        millis(parameter, if is_said { word } else { usual }, 0)
    }
}

fn count(
    parameters: &Parameters,
    name: &str,
    usual: usize,
    range: RangeInclusive<usize>,
) -> Result<usize, Refusal> {
    let count = parameters.number(name)?.unwrap_or(usual);
    let (least, most) = (range.start(), range.end());
    if !range.contains(&count) {
        let sentence = format!("{name} must be from {least} to {most}, not {count}");
        return Err(bad(sentence));
    }
    Ok(count)
}

/// A property, from the query or from a field.
fn property_of(
    request: &RequestHead,
    parameters: &Parameters,
    name: &str,
    field: &str,
) -> Result<String, Refusal> {
    let mut property = parameters.get(name);
    let mut is_said = parameters.has(name);
    for value in request.fields(field) {
        is_said = true;
        let value = str::from_utf8(value).map_err(|_| bad(format!("{field} is text in UTF-8")))?;
        if !property.is_empty() && property != value {
            return Err(bad(format!("the message has more than one {name}")));
        }
        property = value;
    }
    // A script whose variable is not set must not send what has no key.
    if is_said && property.is_empty() {
        return Err(bad(format!("the {name} is empty; leave it out for none")));
    }
    Ok(property.to_owned())
}

pub(super) fn name(name: &str) -> Result<QueueName<'_>, Refusal> {
    let wrong = |error| bad(format!("{error}, not '{}'", Escaped(name)));
    QueueName::new(name).map_err(wrong)
}

fn number(word: &str) -> Option<u64> {
    digits::parse(word.as_bytes()).ok()
}

/// The state that a parameter names.
pub(super) fn state(word: &str) -> Result<MessageState, Refusal> {
    match word {
        "" | "ready" => Ok(MessageState::Ready),
        "reserved" => Ok(MessageState::Reserved),
        "delayed" => Ok(MessageState::Delayed),
        other => {
            let other = Escaped(other);
            Err(bad(format!(
                "state must be ready, reserved or delayed, not '{other}'"
            )))
        }
    }
}

fn millis(what: &'static str, word: &str, least_millis: u64) -> Result<u32, Refusal> {
    let range: RangeInclusive<_> = Duration::from_millis(least_millis)..=DURATION_MAX;
    match duration(what, OsStr::new(word), range) {
        Ok(time) => Ok(u32::try_from(time.as_millis()).unwrap_or(u32::MAX)),
        Err(error) => Err(bad(error.to_string())),
    }
}

pub(super) fn bad(sentence: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Status::BadRequest, sentence)
}
