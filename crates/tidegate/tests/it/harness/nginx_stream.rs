//! nginx as the balancer whose work the gateway takes over.

use std::process::Command;

use tempfile::TempDir;

use super::process::Process;

/// Where Debian keeps nginx's part for TCP.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A running nginx.
pub(crate) struct NginxStream {
    _process: Process,
    _folder: TempDir,
}

impl NginxStream {
    /// Starts one with this `stream { ... }`, in one process, and waits until it listens.
    #[track_caller]
    pub(crate) fn start(stream: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (at, file) = (folder.path().display(), folder.path().join("nginx.conf"));
        let text = format!(
            "load_module {MODULE};\ndaemon off;\nmaster_process off;\npid {at}/pid;\nerror_log stderr;\n\
             events {{ worker_connections 512; }}\n{stream}"
        );
        std::fs::write(&file, text).expect("the file is written");
        let mut command = Command::new("nginx");
        command.args(["-e", "stderr", "-p"]).arg(folder.path()).arg("-c").arg(&file);
        let process = Process::start("nginx", &mut command);
        // it is written after the listeners are bound, and asking them would be a connection that counts
        super::eventually("nginx", || folder.path().join("pid").exists().then_some(()));
        Self { _process: process, _folder: folder }
    }
}
