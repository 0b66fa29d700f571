use std::time::Duration;

use super::*;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), work).await.expect("in time") })
}

#[test]
fn the_first_reason_stays() {
    let shutdown = Shutdown::new();
    assert!(!shutdown.requested());
    assert_eq!(shutdown.reason(), None);
    shutdown.begin("SIGTERM");
    let other = shutdown.clone();
    other.begin("api");
    assert!(shutdown.requested());
    assert_eq!(shutdown.reason().as_deref(), Some("SIGTERM"));
}

#[test]
fn everyone_who_waits_is_told_in_every_runtime() {
    let shutdown = Shutdown::new();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let shutdown = shutdown.clone();
            std::thread::spawn(move || block_on(shutdown.wait()))
        })
        .collect();
    shutdown.begin("test");
    for thread in threads {
        thread.join().unwrap();
    }
    block_on(shutdown.wait()); // afterwards too
}

#[test]
fn ready_means_that_every_condition_holds() {
    let readiness = Readiness::new();
    assert_eq!(readiness.ready(), Ok(()));
    readiness.declare("listener b");
    readiness.declare("listener a");
    assert_eq!(readiness.ready(), Err(vec!["listener a".to_owned(), "listener b".to_owned()]));
    readiness.set("listener a", true);
    readiness.declare("listener a"); // declared again, it keeps its state
    assert_eq!(readiness.ready(), Err(vec!["listener b".to_owned()]));
    let other = readiness.clone();
    other.remove("listener b");
    assert_eq!(readiness.ready(), Ok(()));
    readiness.set("engine", false);
    assert_eq!(readiness.ready(), Err(vec!["engine".to_owned()]));
}

/// In a process of its own, because the socket's name is in the environment.
#[test]
fn the_service_manager_hears_of_every_state() {
    const CHILD: &str = "TIDEGATE_TEST_SD_NOTIFY_CHILD";
    if std::env::var_os(CHILD).is_some() {
        sd_notify::ready();
        sd_notify::reloading();
        sd_notify::main_pid(4711);
        sd_notify::status("all is well");
        sd_notify::stopping();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifecycle::tests::the_service_manager_hears_of_every_state"])
        .env(CHILD, "1")
        .env("NOTIFY_SOCKET", &path)
        .output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");
    let receive = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    assert_eq!(receive(), "READY=1\n");
    let reloading = receive();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(receive(), "MAINPID=4711\n");
    assert_eq!(receive(), "STATUS=all is well\n");
    assert_eq!(receive(), "STOPPING=1\n");
}
