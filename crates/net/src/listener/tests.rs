use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use super::*;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), work).await.expect("in time") })
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// How many connections each of the listeners accepts, of so many.
fn spread(group: &[TcpListener], connections: usize) -> Vec<usize> {
    let target = group[0].local_addr().unwrap();
    let clients: Vec<_> = (0..connections).map(|_| std::net::TcpStream::connect(target).unwrap()).collect();
    let mut counts = vec![0; group.len()];
    while counts.iter().sum::<usize>() < clients.len() {
        for (count, listener) in counts.iter_mut().zip(group) {
            match listener.accept() {
                Ok(_) => *count += 1,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }
    counts
}

#[test]
fn a_port_in_use_is_one_clear_sentence() {
    let _no_child_has_our_sockets = crate::SPAWN.read();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let expected = format!(
        "cannot listen on {taken}: the port is in use by another process; stop that process or choose another port"
    );
    assert_eq!(check_free(taken).unwrap_err().to_string(), expected);
    assert_eq!(bind_group(taken, 2).unwrap_err().to_string(), expected);
    drop(other);
    check_free(taken).unwrap();
}

#[test]
fn a_group_is_in_use_for_everyone_else_though_it_shares_its_port() {
    let _no_child_has_our_sockets = crate::SPAWN.read();
    let group = bind_group(addr("127.0.0.1:0"), 2).unwrap();
    let bound = group[0].local_addr().unwrap();
    assert_eq!(bind_group(bound, 2).unwrap_err().error.kind(), io::ErrorKind::AddrInUse);
    drop(group);
    assert_eq!(bind_group(bound, 2).unwrap().len(), 2);
}

#[test]
fn an_address_of_another_machine_is_said_so() {
    // TEST-NET-1, RFC 5737
    let error = check_free(addr("192.0.2.1:1883")).unwrap_err();
    assert_eq!(error.to_string(), "cannot listen on 192.0.2.1:1883: this machine has no such address");
}

#[test]
fn a_privileged_port_is_explained() {
    let error = ListenError { addr: addr("0.0.0.0:80"), error: io::ErrorKind::PermissionDenied.into() };
    assert_eq!(
        error.to_string(),
        "cannot listen on 0.0.0.0:80: ports below 1024 need root or the capability CAP_NET_BIND_SERVICE"
    );
    let error = ListenError { addr: addr("0.0.0.0:8080"), error: io::ErrorKind::PermissionDenied.into() };
    assert_eq!(error.to_string(), "cannot listen on 0.0.0.0:8080: permission denied");
}

#[test]
fn a_group_shares_one_port_and_the_kernel_spreads_connections() {
    let group = bind_group(addr("127.0.0.1:0"), 4).unwrap();
    let ports: Vec<_> = group.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    // A listener that gets none of 200 would have a chance of 0.75^200.
    let counts = spread(&group, 200);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn a_group_has_one_listener_at_least() {
    assert_eq!(bind_group(addr("127.0.0.1:0"), 0).unwrap().len(), 1);
}

#[test]
fn ipv6_works_and_leaves_ipv4_alone() {
    assert_eq!(spread(&bind_group(addr("[::1]:0"), 2).unwrap(), 20).iter().sum::<usize>(), 20);
    // Another test may have the port on an IPv4 address of its own: then another port will do.
    let beside = |_| {
        let v6 = bind_group(addr("[::]:0"), 2).unwrap();
        let port = v6[0].local_addr().unwrap().port();
        bind_group(SocketAddr::from(([0, 0, 0, 0], port)), 2).ok().map(|v4| (v6, v4))
    };
    let (v6, v4) = (0..20).find_map(beside).expect("IPv4 stands beside IPv6");
    assert_eq!(v4[0].local_addr().unwrap().port(), v6[0].local_addr().unwrap().port());
}

#[test]
fn a_restart_does_not_wait_for_old_connections() {
    let _no_child_has_our_sockets = crate::SPAWN.read();
    let group = bind_group(addr("127.0.0.1:0"), 1).unwrap();
    let bound = group[0].local_addr().unwrap();
    let mut client = std::net::TcpStream::connect(bound).unwrap();
    group[0].set_nonblocking(false).unwrap();
    let (server, _) = group[0].accept().unwrap();
    // Who closes first keeps the port in TIME_WAIT.
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop((client, group));
    bind_group(bound, 2).unwrap();
}

#[test]
fn connections_are_accepted_configured() {
    block_on(async {
        let listener = bind_group(addr("127.0.0.1:0"), 1).unwrap().remove(0);
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = accept(&listener, |_| panic!("no need to rest")).await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
    });
}

#[test]
fn errors_of_accept_are_judged() {
    let judge = |code| after_error(&io::Error::from_raw_os_error(code));
    for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
        assert_eq!(judge(code), AfterError::Pause);
    }
    for code in [libc::ECONNABORTED, libc::EINTR, libc::EPROTO, libc::EPERM, libc::ENETUNREACH] {
        assert_eq!(judge(code), AfterError::Next);
    }
    for code in [libc::EBADF, libc::EINVAL, libc::ENOTSOCK] {
        assert_eq!(judge(code), AfterError::GiveUp);
    }
    assert_eq!(after_error(&io::Error::other("no code")), AfterError::GiveUp);
}

/// Runs one test of this file again in a process of its own, through a shell that prepares it.
fn child(test: &str, shell: &str, stdin: Stdio) -> std::process::Output {
    let script = format!("{shell}; exec \"$0\" --exact listener::tests::{test} --nocapture");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(std::env::current_exe().unwrap()).stdin(stdin);
    command.env("TIDEGATE_TEST_LISTENER_CHILD", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
    let spawned = {
        let _alone = crate::SPAWN.write();
        command.spawn().unwrap()
    };
    spawned.wait_with_output().unwrap()
}

fn is_child() -> bool {
    std::env::var_os("TIDEGATE_TEST_LISTENER_CHILD").is_some()
}

/// In a process of its own, because the limit is the process's.
#[test]
fn without_descriptors_the_acceptor_rests_and_goes_on() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    if !is_child() {
        let output = child("without_descriptors_the_acceptor_rests_and_goes_on", ":", Stdio::null());
        assert!(output.status.success(), "{output:?}");
        return;
    }
    block_on(async {
        let listener = bind_group(addr("127.0.0.1:0"), 1).unwrap().remove(0);
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..before }).unwrap();
        let mut rests = 0;
        let on_pause = |error: &io::Error| {
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            rests += 1;
            if rests == 2 {
                setrlimit(Resource::Nofile, before).unwrap();
            }
        };
        accept(&listener, on_pause).await.unwrap();
        assert_eq!(rests, 2);
    });
}

/// The parent listens and hands the socket over as the service manager does: as descriptor 3, with the names of
/// the protocol in the environment. Descriptor 4 is no socket.
#[test]
fn a_passed_listener_serves_every_worker() {
    if is_child() {
        let passed = addr(&std::env::var("TIDEGATE_TEST_PASSED").unwrap());
        let group = bind_group(passed, 3).unwrap();
        assert_eq!(group.len(), 3);
        // All are the same queue: it has two, for whoever asks.
        for listener in &group[..2] {
            assert_eq!(listener.local_addr().unwrap(), passed);
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"served").unwrap();
        }
        assert_eq!(group[2].accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // Another address is bound as ever, and a listener that a reload dropped is still there for the next.
        bind_group(addr("127.0.0.1:0"), 1).unwrap();
        drop(group);
        bind_group(passed, 1).unwrap();
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bound = listener.local_addr().unwrap();
    let mut clients: Vec<_> = (0..2).map(|_| std::net::TcpStream::connect(bound).unwrap()).collect();
    let shell = format!(
        "export LISTEN_PID=$$ LISTEN_FDS=2 TIDEGATE_TEST_PASSED={bound}; exec 3<&0 4</dev/null </dev/null"
    );
    let output = child("a_passed_listener_serves_every_worker", &shell, Stdio::from(OwnedFd::from(listener)));
    assert!(output.status.success(), "{output:?}");
    for client in &mut clients {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "served");
    }
}

#[test]
fn descriptors_for_another_process_are_left_alone() {
    if is_child() {
        let passed = addr(&std::env::var("TIDEGATE_TEST_PASSED").unwrap());
        assert_eq!(bind_group(passed, 1).unwrap_err().error.kind(), io::ErrorKind::AddrInUse);
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bound = listener.local_addr().unwrap();
    let shell = format!("export LISTEN_PID=1 LISTEN_FDS=1 TIDEGATE_TEST_PASSED={bound}; exec 3<&0");
    let output =
        child("descriptors_for_another_process_are_left_alone", &shell, Stdio::from(OwnedFd::from(listener)));
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_promised_descriptor_that_is_not_there_is_an_error() {
    if is_child() {
        let error = bind_group(addr("127.0.0.1:0"), 1).unwrap_err().to_string();
        assert!(error.contains("sockets passed by the service manager"), "{error}");
        return;
    }
    let shell = "export LISTEN_PID=$$ LISTEN_FDS=1; exec 3<&-";
    let output = child("a_promised_descriptor_that_is_not_there_is_an_error", shell, Stdio::null());
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn where_the_owner_of_a_listener_turns_it_on_connections_come_without_keep_alive() {
    let listener = bind_group("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
    listener.set_nonblocking(false).unwrap();
    accept_without_keepalive(&listener).unwrap();
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let socket = SockRef::from(&stream);
    assert!(!socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
    // what it will be is inherited
    assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
}
