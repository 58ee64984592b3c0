//! Logging in over HTTP: Basic authentication (RFC 7617), anew with each request.

use proto::http::{Refusal, RequestHead, basic};

use super::{HttpHandler, Response};
use crate::access::{Denied, whole_secs};
use crate::caller::{Caller, Role};
use crate::connection::Connection;

/// How a client logs in.
const CHALLENGE: &str = "Basic realm=\"quartet\", charset=\"UTF-8\"";

/// Who makes a request that needs this role, if it may; `None` needs no login.
///
/// # Errors
/// Why it may not, and who makes it then.
pub(super) fn caller(
    needs: Option<Role>,
    request: &RequestHead,
    connection: &mut Connection,
) -> Result<Caller, (Caller, Denied)> {
    let (access, peer) = (connection.access(), connection.peer());
    let newcomer = || access.newcomer(peer);
    let Some(accounts) = &access.accounts else {
        return Ok(newcomer());
    };
    let login = basic::credentials(request);
    let Some(needs) = needs else {
        // Nobody looks at a password that is not needed. If it is known already, the log has the user.
        let proven = login.and_then(|(user, password)| accounts.proven(&user, &password));
        let caller = proven.and_then(|account| connection.act_for(accounts, &account).ok());
        return Ok(caller.unwrap_or_else(newcomer));
    };
    let Some((user, password)) = login else {
        return Err((newcomer(), Denied::NoLogin));
    };
    let caller = connection.log_in(accounts, &user, &password);
    let caller = caller.map_err(|error| (newcomer(), error.into()))?;
    match access.check(&caller, needs) {
        Ok(()) => Ok(caller),
        Err(denied) => Err((caller, denied)),
    }
}

/// The reply to a request that is not let in.
pub(super) fn refuse(
    handler: &dyn HttpHandler,
    request: &RequestHead,
    denied: &Denied,
) -> Response {
    let refusal = Refusal::new(denied.status(), denied.sentence());
    log::debug!("Refused: {refusal}");
    let response = handler.refuse_request(request, &refusal);
    match denied {
        Denied::NoLogin | Denied::WrongLogin => response.with_field("WWW-Authenticate", CHALLENGE),
        Denied::Wait(wait) => response.with_field("Retry-After", whole_secs(*wait).to_string()),
        Denied::Busy => response.with_field("Retry-After", "1"),
        Denied::Role { .. } => response,
    }
}
