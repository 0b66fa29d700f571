//! What a server has used: CPU time and memory, from /proc.

use std::fs;

/// A process that is watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched {
    pub(super) pid: u32,
}

impl Watched {
    /// CPU seconds of all its threads by the scheduler's own count, in nanoseconds precise. A thread that ended is not in
    /// it any more: servers keep theirs.
    pub(super) fn cpu_secs(self) -> Result<f64, String> {
        let folder = format!("/proc/{}/task", self.pid);
        let tasks = fs::read_dir(&folder).map_err(|error| format!("{folder}: {error}"))?;
        let run_time = |path: std::path::PathBuf| -> Option<u64> {
            let text = fs::read_to_string(path.join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        };
        let nanos: u64 = tasks.flatten().filter_map(|task| run_time(task.path())).sum();
        Ok(nanos as f64 / 1e9)
    }

    /// Resident memory in bytes.
    pub(super) fn memory(self) -> Result<u64, String> {
        self.status("VmRSS:")
    }

    /// The most that it was resident since [`Self::forget_peak`], in bytes.
    pub(super) fn peak(self) -> Result<u64, String> {
        self.status("VmHWM:")
    }

    pub(super) fn forget_peak(self) -> Result<(), String> {
        let path = format!("/proc/{}/clear_refs", self.pid);
        fs::write(&path, "5").map_err(|error| format!("{path}: {error}"))
    }

    fn status(self, key: &str) -> Result<u64, String> {
        let path = format!("/proc/{}/status", self.pid);
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        kibibytes(&text, key).map(|number| number << 10).ok_or_else(|| format!("{path} tells no {key}"))
    }
}

fn kibibytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_tells_its_memory_and_its_time() {
        assert_eq!(kibibytes("Name:\tx\nVmHWM:\t  12 kB\nVmRSS:\t 10 kB\n", "VmRSS:"), Some(10));
        let own = Watched { pid: std::process::id() };
        assert!(own.cpu_secs().unwrap() > 0.0);
        own.forget_peak().unwrap();
        assert!(own.peak().unwrap() > 0 && own.memory().unwrap() > 0);
    }
}
