//! The channel, the mutex and the threads that `group_commit` and `pending` are built on.
//! `tests/model.rs` has a module of the same name with loom's versions of them.

pub(crate) use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
pub(crate) use std::sync::{Arc, Mutex};
pub(crate) use std::thread::{Thread, current, park};
