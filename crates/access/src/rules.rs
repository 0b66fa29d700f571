//! The rules file: who may publish and subscribe to what. The first rule that fits decides.
//!
//! ```
//! # use access::{Client, Permission, Rules};
//! # use mqtt::QoS;
//! let text = r#"
//!     no_match = "deny"
//!     [[rules]]
//!     permission = "allow"
//!     action = "publish"
//!     topics = ["vehicles/${clientid}/#"]
//! "#;
//! let rules = Rules::parse("acl.toml".as_ref(), text).map(std::sync::Arc::new).unwrap();
//! let car = Client { clientid: "car1", username: None, ip: [10, 0, 0, 1].into(), listener: "tcp://0.0.0.0:1883" };
//! let mut policy = rules.policy(&car);
//! assert_eq!(policy.publish("vehicles/car1/speed", QoS::AtMostOnce, false), Permission::Allow);
//! assert_eq!(policy.publish("vehicles/car2/speed", QoS::AtMostOnce, false), Permission::Deny);
//! ```
//!
//! Must not know: connections, sessions, users' passwords.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use mqtt::QoS;
use regex_automata::nfa::thompson;
use regex_automata::nfa::thompson::pikevm::PikeVM;
use runtime::config::{Document, IpNet, Problems, Table};

use crate::FileError;
use crate::pattern::{Pattern, Resolved};
use crate::policy::{Client, Permission, Policy};

/// Bytes of a rules file.
const MAX_FILE: u64 = 16 << 20;
/// Bytes that one expression may grow to; it is walked at each CONNECT.
const MAX_EXPRESSION: usize = 256 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Rules {
    no_match: Permission,
    rules: Box<[Rule]>,
    /// Rules that name users one by one, and those that name client ids: a file may have one for each device.
    of_username: HashMap<Box<str>, Vec<usize>>,
    of_clientid: HashMap<Box<str>, Vec<usize>>,
    /// All others.
    of_anybody: Vec<usize>,
    /// What the file says, to tell whether it has changed.
    text: Box<str>,
}

/// Files that say the same.
impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) permission: Permission,
    pub(crate) who: Who,
    pub(crate) actions: Actions,
    pub(crate) qos: Levels,
    pub(crate) retain: Option<bool>,
    /// Patterns that are the same for every client.
    pub(crate) fixed: Box<[Resolved]>,
    /// Those that are not.
    pub(crate) patterns: Box<[Pattern]>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Actions {
    pub(crate) publish: bool,
    pub(crate) subscribe: bool,
}

/// Which QoS a rule is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Levels([bool; 3]);

impl Levels {
    pub(crate) fn contains(self, qos: QoS) -> bool {
        self.0.get(qos as usize).copied().unwrap_or(false)
    }
}

/// Whom a rule is about; what it does not name it does not ask for.
#[derive(Debug, Default)]
pub(crate) struct Who {
    username: Option<Names>,
    clientid: Option<Names>,
    networks: Option<Vec<IpNet>>,
    listeners: Option<Vec<String>>,
}

#[derive(Debug)]
enum Names {
    List(Vec<String>),
    Expression(Box<PikeVM>),
}

impl Names {
    fn fit(&self, name: &str) -> bool {
        match self {
            Self::List(names) => names.iter().any(|n| n == name),
            // once for each CONNECT: the memory for it is made and given back
            Self::Expression(expression) => expression.is_match(&mut expression.create_cache(), name),
        }
    }
}

impl Who {
    pub(crate) fn fits(&self, client: &Client<'_>) -> bool {
        // `tcp://127.0.0.1:1883` or without the transport, as it is bound
        let listener = client.listener.rsplit_once("://").map_or(client.listener, |(_, address)| address);
        self.username.as_ref().is_none_or(|names| client.username.is_some_and(|name| names.fit(name)))
            && self.clientid.as_ref().is_none_or(|names| names.fit(client.clientid))
            && self.networks.as_ref().is_none_or(|nets| nets.iter().any(|net| net.contains(client.ip)))
            && self
                .listeners
                .as_ref()
                .is_none_or(|all| all.iter().any(|l| l == listener || l == client.listener))
    }
}

impl Rules {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong: all of it is told.
    pub fn load(file: &Path) -> Result<Self, FileError> {
        Ok(Self::parse(file, &read_bounded(file)?)?)
    }

    /// Reads its text.
    ///
    /// # Errors
    /// Something in it is wrong: all of it is told.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Problems> {
        let document = Document::parse(file, text)?;
        let (no_match, rules) = document.read(|root| {
            let no_match = permission(root, "no_match");
            let rules = root.tables("rules", |table, _| read_rule(table));
            (no_match.unwrap_or(Permission::Deny), rules)
        })?;
        let rules: Box<[Rule]> = rules.into_iter().flatten().collect();
        let (mut of_username, mut of_clientid) = (HashMap::new(), HashMap::new());
        let mut of_anybody = Vec::new();
        for (at, rule) in rules.iter().enumerate() {
            let (index, names): (&mut HashMap<Box<str>, Vec<usize>>, _) =
                match (&rule.who.username, &rule.who.clientid) {
                    (Some(Names::List(names)), _) => (&mut of_username, names),
                    (_, Some(Names::List(names))) => (&mut of_clientid, names),
                    _ => {
                        of_anybody.push(at);
                        continue;
                    }
                };
            for name in names {
                index.entry(name.as_str().into()).or_default().push(at);
            }
        }
        Ok(Self { no_match, rules, of_username, of_clientid, of_anybody, text: text.into() })
    }

    /// What a client may do by these rules.
    pub fn policy(self: &Arc<Self>, client: &Client<'_>) -> Policy {
        Policy::new(Arc::clone(self), client)
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is none: `no_match` decides everything.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(crate) fn no_match(&self) -> Permission {
        self.no_match
    }

    pub(crate) fn rule(&self, at: usize) -> Option<&Rule> {
        self.rules.get(at)
    }

    /// The places of rules that may be about a client, in their order, each once.
    pub(crate) fn candidates(&self, client: &Client<'_>) -> Vec<usize> {
        let by_username = client.username.and_then(|name| self.of_username.get(name));
        let by_clientid = self.of_clientid.get(client.clientid);
        let named = by_username.into_iter().chain(by_clientid).flatten();
        let mut places: Vec<usize> = named.chain(&self.of_anybody).copied().collect();
        places.sort_unstable();
        places.dedup();
        places
    }
}

fn permission(table: &mut Table<'_>, key: &str) -> Option<Permission> {
    table.choice(key, &[("allow", Permission::Allow), ("deny", Permission::Deny)])
}

fn read_rule(table: &mut Table<'_>) -> Option<Rule> {
    let permission = permission(table, "permission");
    table.require("permission", "\"allow\" or \"deny\"");
    let who = Who {
        username: read_names(table, "username"),
        clientid: read_names(table, "clientid"),
        networks: read_networks(table),
        listeners: table.string_or_strings("listener"),
    };
    let actions = table.choice(
        "action",
        &[("publish", Actions::PUBLISH), ("subscribe", Actions::SUBSCRIBE), ("all", Actions::ALL)],
    );
    let qos = match table.integer_or_integers("qos", 0..=2) {
        Some(levels) => Levels([0, 1, 2].map(|level| levels.contains(&level))),
        None => Levels([true; 3]),
    };
    let retain = table.bool("retain");
    if retain.is_some() && actions.is_some_and(|a| a.subscribe) {
        table.problem("retain", "only with action = \"publish\": a subscription has no retain flag");
    }
    let topics = table.string_or_strings("topics");
    if topics.as_ref().is_none_or(Vec::is_empty) && (topics.is_some() || !table.has("topics")) {
        table.problem("topics", "topic filters such as [\"vehicles/${clientid}/#\"]; \"#\" for all");
    }
    let (mut fixed, mut patterns) = (Vec::new(), Vec::new());
    for (index, text) in topics.iter().flatten().enumerate() {
        match Pattern::parse(text) {
            // without a placeholder it is the same for everybody
            Ok(pattern) if pattern.is_fixed() => fixed.extend(pattern.resolve("", None, false)),
            Ok(pattern) => patterns.push(pattern),
            Err(error) => table.element_problem("topics", index, error.to_string()),
        }
    }
    Some(Rule {
        permission: permission?,
        who,
        actions: actions.unwrap_or(Actions::ALL),
        qos,
        retain,
        fixed: fixed.into(),
        patterns: patterns.into(),
    })
}

/// A name, names, or `{ regex = "..." }`.
fn read_names(table: &mut Table<'_>, key: &str) -> Option<Names> {
    if !table.is_table(key) {
        return table.string_or_strings(key).map(Names::List);
    }
    table.table(key, |inner| {
        inner.require("regex", "an expression such as \"^vehicle-[0-9]+$\"");
        let written = inner.string("regex")?;
        match expression(&written) {
            Ok(expression) => Some(Names::Expression(Box::new(expression))),
            Err(error) => {
                inner.problem("regex", format!("an expression that can be compiled: {error}"));
                None
            }
        }
    })?
}

/// Compiles an expression. Matching takes time linear in the name, whatever the expression is.
fn expression(written: &str) -> Result<PikeVM, String> {
    let nfa = thompson::Config::new().nfa_size_limit(Some(MAX_EXPRESSION));
    PikeVM::builder().thompson(nfa).build(written).map_err(|error| {
        // its own text is several lines with the expression in between
        let mut text = String::from("it has an error");
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = cause {
            if let Some(last) = error.to_string().lines().last() {
                last.trim().clone_into(&mut text);
            }
            cause = error.source();
        }
        text
    })
}

fn read_networks(table: &mut Table<'_>) -> Option<Vec<IpNet>> {
    let written = table.string_or_strings("ip")?;
    let mut networks = Vec::with_capacity(written.len());
    for (index, text) in written.iter().enumerate() {
        match text.parse() {
            Ok(network) => networks.push(network),
            Err(_) => table.element_problem(
                "ip",
                index,
                "a network such as \"10.0.0.0/8\" or \"fd00::/8\", or one address",
            ),
        }
    }
    Some(networks)
}

fn read_bounded(file: &Path) -> std::io::Result<String> {
    use std::io::{Error, ErrorKind, Read};
    let mut text = String::new();
    std::fs::File::open(file)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(Error::new(ErrorKind::FileTooLarge, "longer than 16 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
