//! Which wills must have been published, and which must not.

use std::collections::BTreeMap;

/// A connection: number of the client, and the how manieth of it.
type Connection = (usize, u32);

/// What is known of the will of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The connection was accepted and is there: no will.
    Alive,
    /// It ended without good-bye [MQTT-3.1.2-8].
    Due,
    /// It said good-bye [MQTT-3.1.2-10].
    Discarded,
    /// It ended before CONNACK: nobody knows whether the broker had it.
    Unknown,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Wills {
    fates: BTreeMap<Connection, (Fate, u32)>,
    /// Its will came, and then it said good-bye.
    wrong: Option<Connection>,
}

impl Wills {
    /// What became of a connection that has a will.
    pub(crate) fn set(&mut self, connection: Connection, fate: Fate) {
        let (known, count) = self.fates.entry(connection).or_insert((fate, 0));
        *known = fate;
        if fate == Fate::Discarded && *count > 0 {
            self.wrong.get_or_insert(connection);
        }
    }

    /// The will of a connection arrived; an error: it must not.
    pub(crate) fn received(&mut self, connection: Connection) -> Result<(), String> {
        let Some((fate, count)) = self.fates.get_mut(&connection) else {
            return Err(format!("a will of {connection:?}, which has none"));
        };
        *count += 1;
        match fate {
            Fate::Discarded => {
                Err(format!("the will of {connection:?}, which said good-bye [MQTT-3.1.2-10]"))
            }
            Fate::Alive | Fate::Due | Fate::Unknown if *count > 1 => {
                Err(format!("the will of {connection:?} came twice"))
            }
            // alive: its end may be known to the watcher before it is to the client, and is waited for
            Fate::Alive | Fate::Due | Fate::Unknown => Ok(()),
        }
    }

    /// The first will that is still to come, or the first connection whose will came and that is still there.
    pub(crate) fn missing(&self) -> Option<String> {
        let early = self.fates.iter().find(|(_, (fate, count))| *fate == Fate::Alive && *count > 0);
        let early = early.map(|(connection, _)| connection);
        if let Some(connection) = self.wrong.as_ref().or(early) {
            return Some(format!("the will of {connection:?} came while it was connected [MQTT-3.1.2-8]"));
        }
        let due = |(_, (fate, count)): &(_, &(Fate, u32))| *fate == Fate::Due && *count == 0;
        let (connection, _) = self.fates.iter().find(due)?;
        Some(format!("the will of {connection:?} was not published [MQTT-3.1.2-8]"))
    }

    /// Wills that came.
    pub(crate) fn published(&self) -> u64 {
        self.fates.values().map(|(_, count)| u64::from(*count)).sum()
    }
}
