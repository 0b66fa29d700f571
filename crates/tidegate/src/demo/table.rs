//! What the terminal shows: a table that is redrawn in place, or plain lines where there is no terminal.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::fleet::Device;

/// Lines that the table leaves free on the screen, so that drawing it never scrolls.
const MARGIN: usize = 2;

/// Fallback where the terminal does not tell its size: columns, rows.
const SIZE: (usize, usize) = (80, 24);

/// Standard output.
pub(super) struct Screen {
    terminal: bool,
    /// Lines of the table as it stands there now.
    drawn: usize,
    /// Connections of each device as they were printed, where there is no terminal.
    printed: Vec<u64>,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), drawn: 0, printed: Vec::new() }
    }

    /// Prints lines above the table.
    ///
    /// # Errors
    /// Nobody reads standard output any more.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        self.drawn = 0;
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()
    }

    /// Draws the state of things.
    ///
    /// # Errors
    /// Nobody reads standard output any more.
    pub(super) fn draw(
        &mut self,
        devices: &[Device],
        elapsed: Duration,
        left: Option<Duration>,
    ) -> io::Result<()> {
        let mut text = String::new();
        if self.terminal {
            let (columns, rows) = size();
            let lines = table(devices, elapsed, left, rows.saturating_sub(MARGIN).max(4));
            if self.drawn > 0 {
                text.push_str(&format!("\x1b[{}A", self.drawn));
            }
            for line in &lines {
                let shown: String = line.chars().take(columns).collect();
                text.push_str(&format!("\x1b[2K{shown}\n"));
            }
            // What is left of a longer table.
            text.push_str("\x1b[J");
            self.drawn = lines.len();
        } else {
            text = self.news(devices);
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// One line for each connection that is new since the last call.
    fn news(&mut self, devices: &[Device]) -> String {
        self.printed.resize(devices.len(), 0);
        let mut text = String::new();
        for (device, printed) in devices.iter().zip(&mut self.printed) {
            if device.connections > std::mem::replace(printed, device.connections) {
                let address = device.address.map_or_else(|| "-".to_owned(), |address| address.to_string());
                text.push_str(&format!(
                    "{} is on {} from {address}, reconnects: {}, messages: {}, moved: {}\n",
                    device.name,
                    device.broker.as_deref().unwrap_or("-"),
                    device.reconnects(),
                    device.messages,
                    device.moved
                ));
            }
        }
        text
    }
}

fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            (usize::from(size.ws_col), usize::from(size.ws_row))
        }
        _ => SIZE,
    }
}

/// The table in at most `rows` lines; at least four.
fn table(devices: &[Device], elapsed: Duration, left: Option<Duration>, rows: usize) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<12} {:<8} {:<22} {:>10} {:>9} {:>6}",
        "DEVICE", "BROKER", "ADDRESS NOW", "RECONNECTS", "MESSAGES", "MOVED"
    )];
    // The heading, the totals and perhaps a line on those that do not fit.
    let room = rows.saturating_sub(2);
    let shown = if devices.len() > room { room.saturating_sub(1) } else { devices.len() };
    for device in devices.iter().take(shown) {
        let address = match (&device.address, &device.trouble) {
            (Some(address), _) => address.to_string(),
            (None, Some(trouble)) => trouble.clone(),
            (None, None) => "away".to_owned(),
        };
        lines.push(format!(
            "{:<12} {:<8} {address:<22.22} {:>10} {:>9} {:>6}",
            device.name,
            device.broker.as_deref().unwrap_or("-"),
            device.reconnects(),
            device.messages,
            device.moved
        ));
    }
    if shown < devices.len() {
        lines.push(format!("... and {} more, for which this terminal has no lines", devices.len() - shown));
    }
    let ends = left.map(|left| format!(", ends in {} s", left.as_secs())).unwrap_or_default();
    lines.push(format!("{} s{ends} · {}", elapsed.as_secs(), Summary::of(devices)));
    lines
}

/// The fleet in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    devices: usize,
    brokers: BTreeMap<String, usize>,
    connections: u64,
    reconnects: u64,
    addresses: usize,
    messages: u64,
    failures: u64,
    /// Devices whose broker changed.
    pub(super) moved: usize,
    /// Devices that did not come back at least once.
    pub(super) not_back: usize,
}

impl Summary {
    pub(super) fn of(devices: &[Device]) -> Self {
        let mut brokers = BTreeMap::new();
        for broker in devices.iter().filter_map(|device| device.broker.as_ref()) {
            *brokers.entry(broker.clone()).or_default() += 1;
        }
        Self {
            devices: devices.len(),
            brokers,
            connections: devices.iter().map(|device| device.connections).sum(),
            reconnects: devices.iter().map(Device::reconnects).sum(),
            addresses: devices.iter().map(|device| device.addresses.len()).sum(),
            messages: devices.iter().map(|device| device.messages).sum(),
            failures: devices.iter().map(|device| device.failures).sum(),
            moved: devices.iter().filter(|device| device.moved > 0).count(),
            not_back: devices.iter().filter(|device| device.reconnects() == 0).count(),
        }
    }

    /// Every device stayed on its broker and came back at least once.
    pub(super) fn kept_its_promise(&self) -> bool {
        self.moved == 0 && self.not_back == 0
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let brokers: Vec<String> =
            self.brokers.iter().map(|(name, count)| format!("{name} {count}")).collect();
        write!(
            f,
            "{} devices, moved: {} · {} · {} reconnects · {} messages · {} connections from {} addresses",
            self.devices,
            self.moved,
            if brokers.is_empty() { "none located yet".to_owned() } else { brokers.join(", ") },
            self.reconnects,
            self.messages,
            self.connections,
            self.addresses
        )?;
        if self.failures > 0 {
            write!(f, " · failed connections: {}", self.failures)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, broker: &str, connections: u64, moved: u64) -> Device {
        Device {
            name: name.to_owned(),
            broker: Some(broker.to_owned()),
            address: Some("127.0.9.9:40000".parse().unwrap()),
            connections,
            moved,
            messages: 7,
            addresses: [[127, 0, 9, 9].into()].into(),
            ..Device::default()
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_device() {
        let devices = [device("vehicle-001", "node1", 3, 0), device("vehicle-002", "node2", 2, 0)];
        let lines = table(&devices, Duration::from_secs(5), Some(Duration::from_secs(25)), 20);
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[1], "vehicle-001  node1    127.0.9.9:40000                 2         7      0");
        assert_eq!(
            lines[3],
            "5 s, ends in 25 s · 2 devices, moved: 0 · node1 1, node2 1 · 3 reconnects · 14 messages · 5 connections from 2 addresses"
        );
    }

    #[test]
    fn the_table_never_has_more_lines_than_the_screen() {
        let devices: Vec<Device> =
            (0..500).map(|index| device(&format!("vehicle-{index}"), "node1", 1, 0)).collect();
        for rows in 4..60 {
            assert!(table(&devices, Duration::ZERO, None, rows).len() <= rows, "{rows}");
        }
        assert!(table(&devices, Duration::ZERO, None, 24)[22].contains("... and 479 more"));
    }

    #[test]
    fn without_a_terminal_each_connection_is_one_line() {
        let mut screen = Screen { terminal: false, drawn: 0, printed: Vec::new() };
        let mut devices = [device("vehicle-001", "node1", 1, 0), device("vehicle-002", "node2", 0, 0)];
        assert_eq!(
            screen.news(&devices),
            "vehicle-001 is on node1 from 127.0.9.9:40000, reconnects: 0, messages: 7, moved: 0\n"
        );
        assert_eq!(screen.news(&devices), "");
        devices[1].connections = 1;
        assert!(screen.news(&devices).starts_with("vehicle-002 is on node2"));
    }

    #[test]
    fn the_promise_is_kept_only_if_all_came_back_to_their_broker() {
        let good = device("a", "node1", 2, 0);
        let fleet = |other: Device| Summary::of(&[good.clone(), other]).kept_its_promise();
        assert!(fleet(device("b", "node2", 5, 0)));
        assert!(!fleet(device("b", "node2", 1, 0)), "it did not come back");
        assert!(!fleet(device("b", "node2", 0, 0)), "it never came");
        assert!(!fleet(device("b", "node2", 5, 1)), "it moved");
    }
}
