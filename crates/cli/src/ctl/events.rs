//! `events list`: what happened, and with `--follow` what happens.
//!
//! Following is asking again: the ring of the process keeps the newest 10,000 events, so that a second between two
//! questions loses nothing below that rate; what is lost is told.

use std::io::{self, Write};
use std::time::Duration;

use api::client::RestClient;
use api::node::EventRecord;
use api::rest::MAX_LIMIT;

use super::rows::plain;
use super::table::printable;
use super::{Failure, Screen};

/// Between two questions.
pub(super) const PERIOD: Duration = Duration::from_secs(1);

/// Which events are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) kind: Option<&'a str>,
    pub(super) since: Option<u64>,
    pub(super) limit: usize,
}

/// Those that are there.
pub(super) fn list<W: Write>(
    client: &RestClient,
    asked: Asked<'_>,
    screen: &mut Screen<W>,
) -> Result<(), Failure> {
    let events = client.events(asked.since, asked.kind, asked.limit).map(|page| page.data);
    if screen.json {
        return screen.json_list([events]);
    }
    events?.iter().try_for_each(|event| Ok(line(&mut screen.out, event)?))
}

/// Those that are there and those to come, for as long as `pause` says so. Notes (a gap, a restart) go to `notes`.
pub(super) fn follow<W: Write>(
    client: &RestClient,
    asked: Asked<'_>,
    screen: &mut Screen<W>,
    notes: &mut impl Write,
    pause: &mut impl FnMut() -> bool,
) -> Result<(), Failure> {
    let mut since = asked.since;
    let mut limit = asked.limit;
    loop {
        let events = client.events(since, asked.kind, limit)?.data;
        // The first answer begins in the middle by its limit; after that a gap is a loss. A filter makes gaps too.
        if let (Some(last), Some(first), None) = (since, events.first(), asked.kind)
            && limit == MAX_LIMIT
        {
            let lost = first.seq.saturating_sub(last).saturating_sub(1);
            if lost > 0 {
                writeln!(notes, "tidegate ctl: {lost} events were overwritten before they could be read")?;
            }
        }
        for event in &events {
            show(screen, event)?;
        }
        screen.out.flush()?;
        match events.last() {
            Some(last) => since = Some(last.seq),
            // Nothing yet: from here on everything is new.
            None if since.is_none() => since = Some(0),
            None => {
                // Sequence numbers begin again with the process: without this, nothing would be seen until they have
                // caught up.
                if since.is_some_and(|since| since > 0) && since > Some(newest(client)?) {
                    writeln!(notes, "tidegate ctl: the process has restarted")?;
                    since = Some(0);
                    limit = MAX_LIMIT;
                    continue;
                }
            }
        }
        limit = MAX_LIMIT;
        if !pause() {
            return Ok(());
        }
    }
}

/// The newest sequence number; 0 where nothing has happened yet.
fn newest(client: &RestClient) -> Result<u64, Failure> {
    Ok(client.events(None, None, 1)?.data.last().map_or(0, |event| event.seq))
}

fn show<W: Write>(screen: &mut Screen<W>, event: &EventRecord) -> Result<(), Failure> {
    if !screen.json {
        return Ok(line(&mut screen.out, event)?);
    }
    serde_json::to_writer(&mut screen.out, event).map_err(io::Error::from)?;
    Ok(writeln!(screen.out)?)
}

/// Time, type, then the fields that say something.
fn line(out: &mut impl Write, event: &EventRecord) -> io::Result<()> {
    let kind = event.event.get("type").and_then(|kind| kind.as_str()).unwrap_or("?");
    write!(out, "{} {} {}", event.seq, printable(&event.at), printable(kind))?;
    for (name, value) in event.event.as_object().into_iter().flatten() {
        if name == "type" || value.is_null() || value.as_str() == Some("") && name == "detail" {
            continue;
        }
        let value = plain(value);
        let quote = if value.contains(' ') { "\"" } else { "" };
        write!(out, " {}={quote}{}{quote}", printable(name), printable(&value))?;
    }
    writeln!(out)
}
