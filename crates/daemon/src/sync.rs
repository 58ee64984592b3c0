//! What [`eviction`](crate::eviction) is built on. `tests/model.rs` has a module of the same name that
//! puts loom's model-checked twins in its place.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
