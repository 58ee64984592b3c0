//! The atomics that threads agree by about an eviction. `tests/model.rs` has a module of the same name
//! that puts loom's model-checked twins in their place.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
