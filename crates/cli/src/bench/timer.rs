//! Waiting to the microsecond: what epoll's time-outs, whole milliseconds, are too coarse for.

use std::io;
use std::time::Duration;

use mio::Registry;

#[cfg(target_os = "linux")]
use precise::Precise;

/// The shortest wait. Turns that are nearer together are taken at once, and so share their system calls.
const SHORTEST: Duration = Duration::from_micros(50);

/// A wait that is at least this long may be rounded down to milliseconds; what is left is waited for then.
const COARSE: Duration = Duration::from_millis(2);

/// Wakes a [`mio::Poll`] in time.
#[derive(Debug)]
pub(super) struct Timer {
    #[cfg(target_os = "linux")]
    precise: Precise,
}

impl Timer {
    /// A timer that wakes this poll with an event of [`super::generator::TIMER`].
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new(registry: &Registry) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        return Ok(Self { precise: Precise::new(registry)? });
        #[cfg(not(target_os = "linux"))]
        {
            let _ = registry;
            Ok(Self {})
        }
    }

    /// Prepares a wait: the time-out to poll with.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn wait(&mut self, time: Duration) -> io::Result<Option<Duration>> {
        if time >= COARSE {
            let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            return Ok(Some(Duration::from_millis(millis)));
        }
        let time = time.max(SHORTEST);
        #[cfg(target_os = "linux")]
        {
            self.precise.set(time)?;
            Ok(None)
        }
        #[cfg(not(target_os = "linux"))]
        Ok(Some(time))
    }
}

#[cfg(target_os = "linux")]
mod precise {
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::time::Duration;

    use mio::unix::SourceFd;
    use mio::{Interest, Registry};
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };

    use crate::bench::generator::TIMER;

    /// A timer of the kernel. It is never read: setting it anew arms the edge again.
    #[derive(Debug)]
    pub(super) struct Precise(OwnedFd);

    impl Precise {
        pub(super) fn new(registry: &Registry) -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            registry.register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
            Ok(Self(timer))
        }

        pub(super) fn set(&self, time: Duration) -> io::Result<()> {
            let value = Timespec {
                tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(time.subsec_nanos()),
            };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
            Ok(())
        }
    }
}
