//! The kinds of the framed requests of all services, by name: for what counts them.

use crate::history::Operation;
use crate::login::Login;
use crate::message::Tagged as _;
use crate::queue::Request;
use crate::register::Register;

/// The kinds of requests are below this. No two services have the same kind for different requests.
pub const KINDS: u8 = 0x40;

/// What a request of this kind is called, as the documentation has it; `None` if there is none.
pub fn kind_name(kind: u8) -> Option<&'static str> {
    let alone = match kind {
        Login::KIND => Some("Login"),
        Register::KIND => Some("Register"),
        _ => None,
    };
    Request::name(kind).or(Operation::name(kind)).or(alone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_names_of_their_requests() {
        assert_eq!(kind_name(0x01), Some("Send"));
        assert_eq!(kind_name(0x0e), Some("UnreserveAll"));
        assert_eq!(kind_name(0x22), Some("Get"));
        assert_eq!(kind_name(0x26), Some("Register"));
        assert_eq!(kind_name(0x30), Some("Login"));
        assert_eq!(kind_name(0x3f), None);
        assert!((KINDS..=u8::MAX).all(|kind| kind_name(kind).is_none()));
    }

    #[test]
    fn no_two_services_share_a_kind() {
        for kind in 0..KINDS {
            let services = [Request::name(kind), Operation::name(kind)];
            let alone = [Login::KIND, Register::KIND].into_iter();
            let alone = alone.filter(|of| *of == kind).count();
            assert!(services.iter().flatten().count() + alone <= 1, "{kind:#x}");
        }
    }
}
