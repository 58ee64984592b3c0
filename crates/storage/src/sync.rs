//! What the hand-over is built on. `tests/model.rs` has a module of the same name that puts loom's
//! model-checked twins in its place.

pub(crate) use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
pub(crate) use std::sync::{Arc, Mutex};
pub(crate) use std::thread::{Thread, current, park};
