//! The keys of `[broker]` that say who may connect and what they may do. The files they name are read with them: a bad one is
//! a problem of the configuration, so a reload with one changes nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use access::{FileError, Limits, Rules, Users};
use runtime::config::Table;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessConfig {
    /// `password_file`: everybody who gives a user name must be in it. Default: none, user names are not looked at.
    pub users: Option<Arc<Users>>,
    /// `password_threads`, 1 to 64, default 2; `password_queue`, clients that may wait for them, default 10,000;
    /// `password_cache`, how long a user who was verified is not verified again, default 5 minutes, 0: always.
    pub verifier: Limits,
    /// `acl_file`: who may publish and subscribe to what. Default: none, everybody may everything.
    pub rules: Option<Arc<Rules>>,
    /// `deny_action`: what happens to a client that does what it may not. Default: nothing but the answer.
    pub deny_action: DenyAction,
}

/// What a client feels that publishes or subscribes to what it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenyAction {
    /// The packet is answered with Not authorized where the version can say so, and goes nowhere.
    Ignore,
    /// The connection ends with Not authorized (0x87).
    Disconnect,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            users: None,
            verifier: Limits { threads: 2, waiting: 10_000, remember: Duration::from_secs(300) },
            rules: None,
            deny_action: DenyAction::Ignore,
        }
    }
}

impl AccessConfig {
    /// Threads that compare passwords: none while there is nothing to compare with.
    pub(crate) fn limits(&self) -> Limits {
        Limits { threads: if self.users.is_some() { self.verifier.threads } else { 0 }, ..self.verifier }
    }

    /// What a reload changed, one sentence each.
    pub(crate) fn changes_since(&self, before: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        if self.users != before.users {
            changes.push(match &self.users {
                Some(users) => format!("the password file has {} users", users.len()),
                None => "there is no password file any more".to_owned(),
            });
        }
        if self.rules != before.rules {
            changes.push(match &self.rules {
                Some(rules) => format!("the rules file has {} rules", rules.len()),
                None => "there is no rules file any more".to_owned(),
            });
        }
        if self.verifier != before.verifier || self.deny_action != before.deny_action {
            changes.push("passwords and denials are handled in another way from now on".to_owned());
        }
        changes
    }
}

/// Reads the file that a key names. What is wrong in it is told with its own lines; where it cannot be read, the line that names
/// it is what is wrong.
fn read_file<T>(
    table: &mut Table<'_>,
    key: &str,
    load: impl FnOnce(&Path) -> Result<T, FileError>,
) -> Option<Arc<T>> {
    match load(&table.path(key)?) {
        Ok(read) => return Some(Arc::new(read)),
        Err(FileError::Unreadable(error)) => table.problem(key, format!("a readable file: {error}")),
        Err(FileError::Problems(problems)) => table.adopt(problems),
    }
    None
}

/// Reads the keys; every problem of them and of the files is recorded in `table`.
pub(super) fn read(table: &mut Table<'_>) -> AccessConfig {
    let d = AccessConfig::default();
    let users = read_file(table, "password_file", Users::load);
    let rules = read_file(table, "acl_file", Rules::load);
    let verifier = Limits {
        threads: super::integer(table, "password_threads", 1..=64).unwrap_or(d.verifier.threads),
        waiting: super::integer(table, "password_queue", 1..=1_000_000).unwrap_or(d.verifier.waiting),
        remember: table
            .duration("password_cache", Duration::ZERO..=Duration::from_secs(86_400))
            .unwrap_or(d.verifier.remember),
    };
    let deny_action = table
        .choice("deny_action", &[("ignore", DenyAction::Ignore), ("disconnect", DenyAction::Disconnect)])
        .unwrap_or(d.deny_action);
    AccessConfig { users, verifier, rules, deny_action }
}
