//! The process as the admin interface sees it: reload, events, readiness, metrics.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use api::Answer;
use api::node::{EventRecord, ProcessAdmin, Reloaded};
use broker::Broker;
use gateway::Gateway;
use runtime::clock::rfc3339;
use runtime::events::{Event, Events, Record, Text};
use runtime::lifecycle::{Readiness, sd_notify};
use runtime::metrics::{Collect, Desc, Exposition, Kind, Registry};
use runtime::telemetry::{Telemetry, TelemetryConfig};

use crate::config::{self, Config};

/// See the module.
#[derive(Clone)]
pub(crate) struct Process(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) file: Option<PathBuf>,
    /// What is in force.
    pub(crate) config: Mutex<Config>,
    pub(crate) broker: Option<Broker>,
    pub(crate) gateway: Option<Gateway>,
    pub(crate) events: Events,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: Registry,
    pub(crate) telemetry: Option<Telemetry>,
    /// One reload at a time.
    pub(crate) reloading: Mutex<()>,
}

impl Process {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Reads the file again; everything is validated and bound before anything changes.
    pub(crate) fn reload_from(&self, source: &str) -> Result<Reloaded, Vec<String>> {
        let _one = self.0.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        sd_notify::reloading();
        let result = self.change();
        match &result {
            Ok(reloaded) => {
                let texts = |lines: &[String]| lines.iter().map(|line| Text::from(line.as_str())).collect();
                self.0.events.emit(Event::ConfigReloaded {
                    source: Text::from(source),
                    changes: texts(&reloaded.changes),
                    restart_needed: texts(&reloaded.restart_needed),
                });
            }
            Err(problems) => {
                self.0.events.emit(Event::ConfigRejected {
                    problems: problems.iter().map(|p| Text::from(p.as_str())).collect(),
                });
            }
        }
        sd_notify::ready();
        result
    }

    fn change(&self) -> Result<Reloaded, Vec<String>> {
        let Some(file) = &self.0.file else {
            return Err(vec!["this process was started without a configuration file".to_owned()]);
        };
        let new = config::load(Some(file)).map_err(|error| error.lines())?;
        let old = self.0.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let restart_needed = restart_needed(&old, &new);
        let mut changes = Vec::new();
        let refused = |error: &dyn std::fmt::Display| vec![format!("{}: {error}", file.display())];
        if let (Some(gateway), Some(config)) = (&self.0.gateway, &new.gateway) {
            changes.extend(gateway.apply(config.clone()).map_err(|e| refused(&e))?);
        }
        if let (Some(broker), Some(config)) = (&self.0.broker, &new.broker)
            && let Err(error) = broker.apply(config).map(|c| changes.extend(c))
        {
            // both or none: the gateway goes back to what it was
            if let (Some(gateway), Some(config)) = (&self.0.gateway, &old.gateway)
                && let Err(back) = gateway.apply(config.clone())
            {
                tracing::error!(error = %back, "the gateway could not go back to its configuration");
            }
            return Err(refused(&error));
        }
        if new.log.filter != old.log.filter
            && let Some(telemetry) = &self.0.telemetry
            && telemetry.set_filter(&new.log.filter).is_ok()
        {
            changes.push(format!("the log level is {}", new.log.filter));
        }
        *self.0.config.lock().unwrap_or_else(PoisonError::into_inner) = in_force(old, new);
        Ok(Reloaded { changes, restart_needed })
    }
}

/// What a reload can't change, one sentence each.
fn restart_needed(old: &Config, new: &Config) -> Vec<String> {
    let bind = |config: &Config| config.admin.as_ref().map(|admin| admin.bind);
    let parts = [
        (new.node.name != old.node.name, "node.name"),
        (new.node.data_dir != old.node.data_dir, "node.data_dir"),
        (new.node.workers != old.node.workers, "node.workers"),
        (new.engine.shards != old.engine.shards, "engine.shards"),
        (new.engine.max_log_bytes != old.engine.max_log_bytes, "engine.max_log_bytes"),
        (new.engine.max_log_ids != old.engine.max_log_ids, "engine.max_log_ids"),
        (new.engine.max_register_bytes != old.engine.max_register_bytes, "engine.max_register_bytes"),
        (new.admin.is_some() != old.admin.is_some(), "whether there is an [admin]"),
        (new.admin.is_some() && old.admin.is_some() && bind(new) != bind(old), "admin.bind"),
        (new.broker.is_some() != old.broker.is_some(), "whether there is a [broker]"),
        (new.gateway.is_some() != old.gateway.is_some(), "whether there is a [gateway]"),
        (new.log.format != old.log.format, "log.format"),
    ];
    let differing = parts.into_iter().filter(|(differs, _)| *differs);
    differing.map(|(_, what)| format!("{what} changes with the next start")).collect()
}

/// What is in force after a reload: the new file, and of the old one what only a start can change. The next reload is
/// compared with it, so it must not say what the process does not do.
fn in_force(old: Config, new: Config) -> Config {
    fn role<T>(old: Option<T>, new: Option<T>) -> Option<T> {
        if old.is_some() == new.is_some() { new } else { old }
    }
    Config {
        node: old.node,
        engine: old.engine,
        admin: old.admin,
        broker: role(old.broker, new.broker),
        gateway: role(old.gateway, new.gateway),
        log: TelemetryConfig { format: old.log.format, ..new.log },
    }
}

impl ProcessAdmin for Process {
    fn reload(&self) -> Answer<'_, Result<Reloaded, Vec<String>>> {
        let process = self.clone();
        Box::pin(async move {
            // binds sockets and reads files: not on a thread that serves requests
            tokio::task::spawn_blocking(move || process.reload_from("api"))
                .await
                .unwrap_or_else(|_| Err(vec!["the reload ended unexpectedly".to_owned()]))
        })
    }

    fn events(&self, since: Option<u64>, kind: Option<String>, limit: usize) -> Vec<EventRecord> {
        let wanted = |r: &Record| {
            since.is_none_or(|s| r.seq > s)
                && kind.as_deref().is_none_or(|k| r.event.event_type().name() == k)
        };
        let mut records = self.0.events.recent(wanted, limit);
        records.reverse();
        records
            .into_iter()
            .map(|r| EventRecord {
                seq: r.seq,
                at: rfc3339(r.at_unix_ms),
                event: serde_json::to_value(&r.event).unwrap_or_default(),
            })
            .collect()
    }

    fn not_ready(&self) -> Vec<String> {
        self.0.readiness.ready().err().unwrap_or_default()
    }

    fn metrics(&self) -> String {
        self.0.metrics.render()
    }
}

/// The catalogue's counters: how often each kind of event happened.
pub(crate) struct EventMetrics(pub(crate) Events);

static EVENTS: Desc = Desc {
    name: "tidegate_events_total",
    help: "Events of the catalogue, by type.",
    kind: Kind::Counter,
    labels: &["type"],
};

impl Collect for EventMetrics {
    fn collect(&self, out: &mut Exposition) {
        for (kind, count) in self.0.counts() {
            out.sample(&EVENTS, &[kind], count as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        config::parse(Path::new("t.toml"), text).unwrap()
    }

    #[test]
    fn what_needs_a_restart_is_told_at_every_reload_until_there_is_one() {
        let gateway = "[[gateway.listeners]]\nbind = \"127.0.0.1:1880\"\nupstream = \"b\"\n\
                       [[gateway.upstreams]]\nname = \"b\"\nservers = [{ address = \"127.0.0.1:1883\" }]\n";
        let old = config(&format!("[broker]\n{gateway}"));
        let new = config(
            "[node]\nname = \"other\"\n[broker]\nmax_inflight = 7\n[log]\nlevel = \"debug\"\nformat = \"json\"\n",
        );
        let told = restart_needed(&old, &new);
        assert_eq!(
            told,
            [
                "node.name changes with the next start",
                "whether there is a [gateway] changes with the next start",
                "log.format changes with the next start",
            ]
        );
        let now = in_force(old.clone(), new.clone());
        assert_eq!((&now.node, &now.gateway), (&old.node, &old.gateway), "they run on");
        assert_eq!((&now.broker, &*now.log.filter), (&new.broker, "debug"), "these have changed");
        assert_eq!(restart_needed(&now, &new), told);
        assert!(restart_needed(&now, &old).is_empty(), "back to what it was");
    }
}
