//! Who asks twice does not want to wait.

use std::time::Duration;

use mqtt::Version;
use rustix::process::Signal;

use crate::harness::fleet::mosquittos;
use crate::harness::wait::now;
use crate::harness::{Device, device, fleet};

/// A gateway waits ten seconds for its devices to go by themselves.
#[test]
fn a_second_signal_ends_a_stop_that_waits_for_devices() {
    let mosquittos = mosquittos(1);
    let mut gateway = fleet::gateway(&mosquittos, "", "");
    let device = Device::connect(gateway.gate(), &device::connect(Version::V5, "stays"));
    let begun = now();
    gateway.process.signal(Signal::INT);
    gateway.process.err.line_with(&["stopping", "SIGINT"]);
    gateway.process.signal(Signal::INT);
    assert!(gateway.process.end().success());
    assert!(now() - begun < Duration::from_secs(5), "it did not wait");
    device.expect_end();
}
