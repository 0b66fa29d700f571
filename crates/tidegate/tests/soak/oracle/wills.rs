//! Which wills must have been published, and which must not.

use std::collections::BTreeMap;

/// A connection: number of the client, and the how manieth of it.
type Connection = (usize, u32);

/// What is known of the will of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The connection was accepted and is there: no will.
    Alive,
    /// It is there as far as its client knows, but an earlier CONNECT of the client, given up before CONNACK, may still reach the
    /// broker and take its place [MQTT-3.1.4-3]: then the will is due before the client sees its end, and instead of what its
    /// good-bye says. Any other connection is closed by its client, which knows that before the broker does.
    Contested,
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
}

impl Wills {
    /// What became of a connection that has a will.
    pub(crate) fn set(&mut self, connection: Connection, fate: Fate) {
        let (known, _) = self.fates.entry(connection).or_insert((fate, 0));
        let late = *known == Fate::Contested && fate == Fate::Discarded;
        *known = if late { Fate::Unknown } else { fate };
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
            Fate::Alive => Err(format!("the will of {connection:?}, which is connected [MQTT-3.1.2-8]")),
            Fate::Contested | Fate::Due | Fate::Unknown if *count > 1 => {
                Err(format!("the will of {connection:?} came twice"))
            }
            Fate::Contested | Fate::Due | Fate::Unknown => Ok(()),
        }
    }

    /// The first will that is still to come, or the first connection whose will came and whose end is still to come.
    pub(crate) fn missing(&self) -> Option<String> {
        let early = self.fates.iter().find(|(_, (fate, count))| *fate == Fate::Contested && *count > 0);
        if let Some((connection, _)) = early {
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
