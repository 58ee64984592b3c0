//! A place in the system: what a service manager is told.

mod notifications;
