//! What a simulation is told as: a table for people, a document with stable names for programs. Pure.

use serde::Serialize;

use super::scenario::Group;
use super::tally::Tally;
use crate::bench::latency::Percentiles;
use crate::bench::outcome::Reasons;
use crate::bench::report::{grouped, percentiles, reasons, rounded, row};

/// A simulation.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// The file, as the user named it.
    pub(super) simulate: String,
    pub(super) tidegate: &'static str,
    pub(super) server: String,
    /// The same seed gives the same routes, losses and addresses.
    pub(super) seed: u64,
    pub(super) seconds: f64,
    pub(super) groups: Vec<GroupReport>,
    pub(super) passed: bool,
    pub(super) notes: Vec<String>,
}

/// A group.
#[derive(Clone, Debug, Serialize)]
pub(super) struct GroupReport {
    name: String,
    vehicles: u32,
    /// With a connection in the end.
    connected: u64,
    connections: u64,
    failures: Reasons,
    /// Connections that the scenario ended, by kind.
    losses: Reasons,
    /// Connections that ended otherwise.
    ended: Reasons,
    sessions: Sessions,
    telemetry: TelemetryReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    commands: Option<CommandReport>,
    /// From the end of an outage to CONNACK.
    reconnect_ms: Option<Percentiles>,
}

/// Vehicles that came back to a session.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sessions {
    asked: u64,
    present: u64,
    share: Option<f64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct TelemetryReport {
    sent: u64,
    acknowledged: u64,
    refused: u64,
    skipped: u64,
}

/// Commands of a group.
#[derive(Clone, Copy, Debug, Serialize)]
struct CommandReport {
    sent: u64,
    acknowledged: u64,
    /// Different ones, at their vehicles.
    received: u64,
    /// Not there when nothing more came.
    lost: u64,
    /// Not there yet when the run was interrupted: nobody knows whether they would have come.
    under_way: u64,
    /// Lost ones that a QoS above 0 and a kept session promise.
    owed: u64,
    duplicates: u64,
    out_of_order: u64,
    answered: u64,
    /// From the command to its answer, outages included.
    round_trip_ms: Option<Percentiles>,
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// What was under way had its time to arrive.
    Gathered,
    /// Somebody did not want to wait.
    Interrupted,
}

impl GroupReport {
    pub(super) fn new(group: &Group, tally: &Tally, end: End) -> Self {
        let commands = group.commands.as_ref().map(|commands| {
            let missing = tally.commands_sent.saturating_sub(tally.commands_received);
            let (lost, under_way) = match end {
                End::Gathered => (missing, 0),
                End::Interrupted => (0, missing),
            };
            let unacknowledged = tally.commands_sent.saturating_sub(tally.commands_acknowledged);
            let promised = commands.qos as u8 > 0 && group.is_persistent();
            CommandReport {
                sent: tally.commands_sent,
                acknowledged: tally.commands_acknowledged,
                received: tally.commands_received,
                lost,
                under_way,
                owed: if promised { lost.saturating_sub(unacknowledged) } else { 0 },
                duplicates: tally.commands_duplicate,
                out_of_order: tally.commands_late,
                answered: tally.answers,
                round_trip_ms: tally.round_trip.percentiles(),
            }
        });
        let (asked, present) = (tally.sessions_asked, tally.sessions_present);
        Self {
            name: group.name.clone(),
            vehicles: group.count,
            connected: tally.connected,
            connections: tally.connections,
            failures: tally.failures.clone(),
            losses: tally.losses.clone(),
            ended: tally.ended.clone(),
            sessions: Sessions {
                asked,
                present,
                share: (asked > 0).then(|| rounded(present as f64 / asked as f64)),
            },
            telemetry: TelemetryReport {
                sent: tally.telemetry_sent,
                acknowledged: tally.telemetry_acknowledged,
                refused: tally.telemetry_refused,
                skipped: tally.telemetry_skipped,
            },
            commands,
            reconnect_ms: tally.reconnect.percentiles(),
        }
    }

    /// What this group says against the run.
    fn notes(&self, group: &Group, notes: &mut Vec<String>) -> bool {
        let mut passed = true;
        let name = &self.name;
        if self.connections == 0 {
            notes.push(format!("{name}: nothing connected"));
            passed = false;
        }
        if let Some(commands) = self.commands {
            if commands.owed > 0 {
                notes.push(format!(
                    "{name}: {} commands were lost that the session should have kept",
                    commands.owed
                ));
                passed = false;
            }
            let exactly_once = group.commands.as_ref().is_some_and(|commands| commands.qos as u8 == 2);
            if exactly_once && group.is_persistent() && commands.duplicates > 0 {
                notes.push(format!(
                    "{name}: {} commands came twice, which QoS 2 forbids",
                    commands.duplicates
                ));
                passed = false;
            }
        }
        if self.sessions.share.is_some_and(|share| share < 1.0) {
            let missing = self.sessions.asked - self.sessions.present;
            notes.push(format!("{name}: {missing} vehicles came back and found no session"));
        }
        passed
    }

    fn rows(&self, out: &mut String) {
        out.push('\n');
        let (connected, all) = (grouped(self.connected), grouped(self.vehicles.into()));
        let connections = grouped(self.connections);
        row(out, &self.name, &format!("{connected} of {all} vehicles connected, {connections} connections"));
        reasons(out, "failed", &self.failures);
        reasons(out, "taken", &self.losses);
        reasons(out, "ended", &self.ended);
        if let Some(share) = self.sessions.share {
            let (present, asked) = (grouped(self.sessions.present), grouped(self.sessions.asked));
            row(out, "sessions", &format!("{share:.3}: {present} of {asked} found theirs"));
        }
        let telemetry = &self.telemetry;
        row(
            out,
            "telemetry",
            &format!(
                "{} sent, {} acknowledged, {} refused, {} skipped while away",
                grouped(telemetry.sent),
                grouped(telemetry.acknowledged),
                grouped(telemetry.refused),
                grouped(telemetry.skipped)
            ),
        );
        if let Some(commands) = &self.commands {
            let under_way = match commands.under_way {
                0 => String::new(),
                some => format!("{} under way, ", grouped(some)),
            };
            row(
                out,
                "commands",
                &format!(
                    "{} sent, {} lost, {under_way}{} duplicates, {} out of order, {} answered",
                    grouped(commands.sent),
                    grouped(commands.lost),
                    grouped(commands.duplicates),
                    grouped(commands.out_of_order),
                    grouped(commands.answered)
                ),
            );
        }
        let round_trip = self.commands.as_ref().and_then(|commands| commands.round_trip_ms);
        percentiles(out, &[("reconnect", self.reconnect_ms), ("round trip", round_trip)]);
    }
}

impl Report {
    /// Judges: the notes, and whether the run passed.
    pub(super) fn judge(&mut self, groups: &[&Group]) {
        self.passed = true;
        for (report, group) in self.groups.iter().zip(groups) {
            self.passed &= report.notes(group, &mut self.notes);
        }
    }

    /// The table.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let out = &mut text;
        row(out, "fleet", &format!("{}, server {}, seed {}", self.simulate, self.server, self.seed));
        for group in &self.groups {
            group.rows(out);
        }
        for note in &self.notes {
            row(out, "!", note);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::simulate::scenario;

    fn judged(more: &str, tally: &Tally) -> Report {
        judged_at(End::Gathered, more, tally)
    }

    fn judged_at(end: End, more: &str, tally: &Tally) -> Report {
        let text = format!(
            "[[groups]]\n{more}\n[groups.commands]\ntopic = \"c/${{n}}\"\nanswer = \"a/${{n}}\"\nqos = 2\n"
        );
        let scenario = scenario::parse(Path::new("t.toml"), &text).unwrap();
        let group = &scenario.groups[0];
        let mut report = Report {
            simulate: "t.toml".to_owned(),
            tidegate: "0",
            server: "h:1".to_owned(),
            seed: 1,
            seconds: 1.0,
            groups: vec![GroupReport::new(group, tally, end)],
            passed: false,
            notes: Vec::new(),
        };
        report.judge(&[group]);
        report
    }

    #[test]
    fn a_kept_session_owes_every_acknowledged_command() {
        let tally = Tally {
            connections: 1,
            commands_sent: 10,
            commands_acknowledged: 9,
            commands_received: 9,
            ..Tally::default()
        };
        assert!(judged("", &tally).passed, "the lost one was never acknowledged");
        let lost = Tally { commands_received: 8, ..tally.clone() };
        assert!(!judged("", &lost).passed);
        assert!(judged("clean_start = true", &lost).passed, "without a session nothing is owed");
        let twice = Tally { commands_duplicate: 1, ..tally };
        assert!(!judged("", &twice).passed);
    }

    #[test]
    fn what_is_under_way_when_a_run_is_interrupted_is_not_lost() {
        let tally = Tally {
            connections: 1,
            commands_sent: 10,
            commands_acknowledged: 10,
            commands_received: 7,
            ..Tally::default()
        };
        let report = judged_at(End::Interrupted, "", &tally);
        let table = report.table();
        assert!(report.passed && table.contains("10 sent, 0 lost, 3 under way, 0 duplicates"), "{table}");
        let commands = report.groups[0].commands.unwrap();
        assert_eq!((commands.lost, commands.under_way, commands.owed), (0, 3, 0));
        let gathered = judged("", &tally);
        assert!(!gathered.passed && gathered.table().contains("10 sent, 3 lost, 0 duplicates"));
    }

    #[test]
    fn who_never_connected_did_not_pass() {
        let report = judged("", &Tally::default());
        assert!(!report.passed && report.table().contains("nothing connected"), "{}", report.table());
    }
}
