//! Who a client is, asked between a CONNECT that is legal and the claim on its client id.
//!
//! A password is compared by the threads of [`access::Verifier`]; until the answer comes as [`Mail::Verified`] the connection
//! waits in [`Phase::Authenticating`] and is not read. It waits as long as it may take to send a CONNECT, then it is told to come
//! back. Nothing of the session has been touched before a client has shown who it is: nobody can end another's connection by
//! its client id alone where passwords are asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use access::Request;
use mqtt::ReasonCode;
use mqtt::packet::Connect;

use crate::caller::Caller;
use crate::connection::{ConnId, Phase};
use crate::metrics::Login;
use crate::registry::Owner;
use crate::shared::Mail;
use crate::worker::Worker;

/// A CONNECT whose password is being compared.
pub(crate) struct Authenticating {
    pub(crate) connect: Connect<'static>,
    pub(crate) since: Instant,
    /// When it goes, nobody waits for the answer any more.
    _cancel: Cancel,
}

/// Tells the threads of the verifier, whatever ended the connection.
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Authenticating {
    /// Who waits.
    pub(crate) fn caller(&self) -> Caller {
        Caller::of(&self.connect)
    }
}

/// What a CONNECT says of its sender, before anything is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// It may come in.
    Open,
    /// It may not.
    Refused(ReasonCode, &'static str),
    /// It may if its password is right.
    Compare,
}

/// `known`: there is a password file.
fn claim(known: bool, allow_anonymous: bool, username: bool, password: bool) -> Claim {
    match (username, known) {
        (false, _) if allow_anonymous => Claim::Open,
        (false, _) => {
            Claim::Refused(ReasonCode::NotAuthorized, "this listener does not allow anonymous clients")
        }
        (true, true) if password => Claim::Compare,
        // as a wrong one: which names exist is nobody's business
        (true, true) => Claim::Refused(ReasonCode::BadUserNameOrPassword, WRONG),
        // nobody could tell whether the name is its own
        (true, false) if allow_anonymous => Claim::Open,
        (true, false) => Claim::Refused(
            ReasonCode::NotAuthorized,
            "there is no password file, and anonymous clients are not allowed",
        ),
    }
}

const WRONG: &str = "the user name or the password is wrong";

impl Worker {
    /// Finds out who sent a CONNECT, then goes on with it or refuses it.
    pub(crate) fn authenticate(&mut self, id: ConnId, connect: Connect<'_>) {
        // a reload counts from the next CONNECT on, not from the next tick
        self.config = self.shared.config.load_full();
        let Some(conn) = self.conn(id) else { return };
        let users = self.config.access.users.clone();
        let (username, password) = (connect.username.is_some(), connect.password.is_some());
        match (claim(users.is_some(), conn.origin.door.allow_anonymous, username, password), users) {
            (Claim::Compare, Some(users)) => self.compare(id, connect, users),
            (Claim::Refused(reason, why), _) => {
                self.metrics.login(Login::Refused);
                self.refuse(id, Caller::of(&connect), reason, why);
            }
            _ => self.admit(id, connect),
        }
    }

    fn compare(&mut self, id: ConnId, connect: Connect<'_>, users: Arc<access::Users>) {
        let name = connect.username.as_deref().unwrap_or_default();
        let password = connect.password.as_deref().unwrap_or_default();
        if self.shared.verifier.remembers(&users, name, password) {
            self.metrics.login(Login::Accepted);
            self.admit(id, connect);
            return;
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        let to = self.owner(id);
        let mailbox = self.shared.mailboxes[usize::from(self.id)].clone();
        let request = Request {
            users,
            name: name.into(),
            password: password.into(),
            cancelled: Arc::clone(&cancelled),
            // bounded by the requests that may wait
            answer: Box::new(move |right| {
                let _ = mailbox.force(Mail::Verified { to, right });
            }),
        };
        let waiting = Authenticating {
            connect: connect.into_owned(),
            since: self.now.instant,
            _cancel: Cancel(cancelled),
        };
        let caller = waiting.caller();
        let Some(conn) = self.conn_mut(id) else { return };
        conn.phase = Phase::Authenticating(Box::new(waiting));
        if self.shared.verifier.submit(request).is_err() {
            self.metrics.login(Login::Busy);
            self.refuse(
                id,
                caller,
                ReasonCode::ServerBusy,
                "too many clients wait for their passwords to be compared",
            );
        }
    }

    /// A password was compared.
    pub(crate) fn verified(&mut self, to: Owner, right: bool) {
        let id = ConnId { slot: to.slot, generation: to.generation };
        let Some(conn) = self.conn_mut(id) else { return };
        let Phase::Authenticating(waiting) = &mut conn.phase else { return };
        if !right {
            let caller = waiting.caller();
            self.metrics.login(Login::Refused);
            self.refuse(id, caller, ReasonCode::BadUserNameOrPassword, WRONG);
            return;
        }
        // it goes on as a CONNECT that was just read
        let Phase::Authenticating(waiting) = std::mem::replace(&mut conn.phase, Phase::Connect) else {
            return;
        };
        self.metrics.login(Login::Accepted);
        self.admit(id, waiting.connect);
    }

    /// The time for a CONNECT is over once more: its password was not compared.
    pub(crate) fn not_verified_in_time(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        let Phase::Authenticating(waiting) = &conn.phase else { return };
        let due = waiting.since + self.config.connect_timeout;
        if self.now.instant < due {
            self.arm(id, due);
            return;
        }
        let caller = waiting.caller();
        self.metrics.login(Login::Busy);
        self.refuse(id, caller, ReasonCode::ServerBusy, "the password could not be compared in time");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Mosquitto and EMQX have it where no password file, or no authenticator, is configured.
    #[test]
    fn a_user_name_is_as_good_as_none_where_nobody_can_check_it() {
        for password in [false, true] {
            assert_eq!(claim(false, true, true, password), Claim::Open);
            assert!(matches!(
                claim(false, false, true, password),
                Claim::Refused(ReasonCode::NotAuthorized, _)
            ));
        }
    }

    #[test]
    fn who_gives_no_name_comes_in_where_anonymous_clients_may() {
        for known in [false, true] {
            assert_eq!(claim(known, true, false, false), Claim::Open);
            assert!(matches!(
                claim(known, false, false, false),
                Claim::Refused(ReasonCode::NotAuthorized, _)
            ));
        }
    }

    #[test]
    fn who_gives_a_name_must_show_its_password_also_where_anonymous_clients_may() {
        for allow_anonymous in [false, true] {
            assert_eq!(claim(true, allow_anonymous, true, true), Claim::Compare);
            assert!(matches!(
                claim(true, allow_anonymous, true, false),
                Claim::Refused(ReasonCode::BadUserNameOrPassword, _)
            ));
        }
    }
}
