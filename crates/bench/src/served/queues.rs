//! Queues under load: ours, Redis and beanstalkd.

use std::net::SocketAddrV4;
use std::sync::Arc;

use super::{After, NewTalk, Served, move_messages, start};
use crate::contestant::{Lab, require_descriptors};
use crate::conversation::{
    BeanstalkTalk, Conversation, Ledger, Messages, QueueTalk, RedisTalk, Work,
};
use crate::error::Error;
use crate::load::{self, Load};

/// Descriptors the bench and a server need besides idle connections.
const DESCRIPTORS_SPARE: usize = 400;

/// The arguments of our queue.
pub fn queue_args(is_durable: bool, connections: usize) -> Vec<String> {
    let mut args = vec!["PORT".to_owned(), "TCP".to_owned()];
    if is_durable {
        args.extend(["--data", "DIR/queue.db"].map(String::from));
    }
    // The default suits all rows but those with ten thousand connections.
    if connections > 1000 {
        args.extend([
            "--max-connections".to_owned(),
            (connections + 300).to_string(),
        ]);
    }
    args
}

/// Our queue, with messages queued and idle connections beforehand; `is_large` if messages may be as
/// long as messages can be.
///
/// # Errors
/// If it cannot be started, or descriptors are too few.
pub fn queue(
    lab: &Lab,
    load: Load,
    is_durable: bool,
    is_large: bool,
    queued: u64,
    idle: usize,
) -> Result<Served, Error> {
    if is_durable {
        lab.require_disk()?;
    }
    require_descriptors((load.connections + idle + DESCRIPTORS_SPARE) as u64)?;
    let dir = lab.dir()?;
    let args = queue_args(is_durable, idle);
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    if is_large {
        args.extend(["--max-message", "16000000"]);
    }
    let (process, addr) = start("queue-server", &args, dir.path())?;
    let ledger = Arc::new(Ledger::default());
    let talk = |work| queue_talk(&ledger, work);
    move_messages(addr, process.pid(), queued, &mut talk(Work::Fill))?;
    let mut exchange = talk(Work::SendAndReceive);
    let idle = match idle {
        0 => Vec::new(),
        // Each has sent and received a message, so that it had its buffers once.
        idle => load::burst(addr, idle, 2, &mut exchange)?.0,
    };
    let talk_of_load = talk(Work::SendAndReceive);
    let drain = talk(Work::Drain);
    Ok(Served {
        after: After::Messages { ledger, drain },
        idle,
        ..Served::new((process, addr), load, talk_of_load, dir)
    })
}

/// Makes conversations with our queue.
pub fn queue_talk(ledger: &Arc<Ledger>, work: Work) -> NewTalk {
    let ledger = Arc::clone(ledger);
    Box::new(move || Box::new(QueueTalk::new(Messages::new(&ledger), work)))
}

/// Fills a queue that runs already.
///
/// # Errors
/// If it is lost or answers wrongly.
pub fn fill_queue(addr: SocketAddrV4, pid: u32, messages: u64) -> Result<(), Error> {
    let ledger = Arc::new(Ledger::default());
    move_messages(addr, pid, messages, &mut queue_talk(&ledger, Work::Fill))
}

/// Redis.
///
/// # Errors
/// If it is not installed or cannot be started.
pub fn redis(lab: &Lab, load: Load, is_durable: bool) -> Result<Served, Error> {
    let mut args = vec!["--port", "PORT", "--bind", "127.0.0.1", "--dir", "DIR"];
    args.extend(["--save", ""]);
    match is_durable {
        true => args.extend(["--appendonly", "yes", "--appendfsync", "always"]),
        false => args.extend(["--appendonly", "no"]),
    }
    messages_peer(lab, load, is_durable, "redis-server", &args, |messages| {
        Box::new(RedisTalk::new(messages, Work::SendAndReceive))
    })
}

/// beanstalkd.
///
/// # Errors
/// If it is not installed or cannot be started.
pub fn beanstalkd(lab: &Lab, load: Load, is_durable: bool) -> Result<Served, Error> {
    let mut args = vec!["-l", "127.0.0.1", "-p", "PORT"];
    if is_durable {
        args.extend(["-b", "DIR", "-f0"]);
    }
    messages_peer(lab, load, is_durable, "beanstalkd", &args, |messages| {
        Box::new(BeanstalkTalk::new(messages))
    })
}

fn messages_peer(
    lab: &Lab,
    load: Load,
    is_durable: bool,
    program: &'static str,
    args: &[&str],
    talk: fn(Messages) -> Box<dyn Conversation>,
) -> Result<Served, Error> {
    if is_durable {
        lab.require_disk()?;
    }
    let dir = lab.dir()?;
    let server = start(program, args, dir.path())?;
    let ledger = Arc::new(Ledger::default());
    let new_talk = || -> NewTalk {
        let ledger = Arc::clone(&ledger);
        Box::new(move || talk(Messages::new(&ledger)))
    };
    let (talk_of_load, drain) = (new_talk(), new_talk());
    Ok(Served {
        after: After::Messages { ledger, drain },
        ..Served::new(server, load, talk_of_load, dir)
    })
}
