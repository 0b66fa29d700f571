//! The kernel: signals, a core, sockets of IPv4 and epoll. All that is `unsafe` stands here.

use std::io;
use std::net::TcpStream;
use std::os::fd::{FromRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by SIGTERM and SIGINT: every loop looks at it.
pub static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn on_sig(_: libc::c_int) {
    STOP.store(true, Ordering::SeqCst);
}

/// SIGTERM and SIGINT set [`STOP`], a closed socket is an error and no signal, and as many descriptors as allowed.
pub fn install_signals() {
    // SAFETY: the structures are plain data, zeroed or filled here and alive for the calls; the handler only stores a flag.
    unsafe {
        let mut sa: libc::sigaction = std::mem::zeroed();
        sa.sa_sigaction = on_sig as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGTERM, &sa, std::ptr::null_mut());
        libc::sigaction(libc::SIGINT, &sa, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        let mut rl = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut rl);
        rl.rlim_cur = rl.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &rl);
    }
}

/// Keeps this process on one core.
pub fn pin(cpu: usize) {
    // SAFETY: the set is plain data that lives for the call, with its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

fn sa(ip: [u8; 4], port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip) },
        sin_zero: [0; 8],
    }
}

fn opt(fd: RawFd, level: i32, name: i32, v: i32) {
    // SAFETY: the kernel reads four bytes of an integer that lives for the call.
    unsafe {
        libc::setsockopt(fd, level, name, &v as *const _ as *const libc::c_void, 4);
    }
}

pub fn listen(port: u16) -> io::Result<RawFd> {
    // SAFETY: the address is plain data that lives for the calls; 16 is its size.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0);
        opt(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
        let a = sa([127, 0, 0, 1], port);
        if libc::bind(fd, &a as *const _ as *const libc::sockaddr, 16) != 0 || libc::listen(fd, 4096) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(fd)
    }
}

/// Accept one connection; `Ok(None)` when the queue is empty.
pub fn accept(l: RawFd) -> io::Result<Option<RawFd>> {
    // SAFETY: no address is asked for.
    let fd = unsafe {
        libc::accept4(l, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)
    };
    if fd >= 0 {
        opt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
        return Ok(Some(fd));
    }
    let e = io::Error::last_os_error();
    match e.raw_os_error() {
        Some(libc::EAGAIN) | Some(libc::EINTR) | Some(libc::ECONNABORTED) => Ok(None),
        _ => Err(e),
    }
}

/// Non-blocking connect to a loopback port from `src` (an address in 127/8, chosen per call).
pub fn connect(src: Option<[u8; 4]>, dst: ([u8; 4], u16)) -> io::Result<RawFd> {
    // SAFETY: the addresses are plain data that live for the calls; 16 is their size. Closed is only what was opened here.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        opt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
        if let Some(ip) = src {
            opt(fd, libc::IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, 1);
            let a = sa(ip, 0);
            if libc::bind(fd, &a as *const _ as *const libc::sockaddr, 16) != 0 {
                let e = io::Error::last_os_error();
                libc::close(fd);
                return Err(e);
            }
        }
        let a = sa(dst.0, dst.1);
        if libc::connect(fd, &a as *const _ as *const libc::sockaddr, 16) != 0 {
            let e = io::Error::last_os_error();
            if e.raw_os_error() != Some(libc::EINPROGRESS) {
                libc::close(fd);
                return Err(e);
            }
        }
        Ok(fd)
    }
}

pub fn so_error(fd: RawFd) -> i32 {
    let mut e: i32 = 0;
    let mut l: libc::socklen_t = 4;
    // SAFETY: the kernel writes at most the four bytes that `l` says.
    unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, &mut e as *mut _ as *mut libc::c_void, &mut l)
    };
    e
}

pub fn close(fd: RawFd) {
    // SAFETY: callers give each descriptor away once.
    unsafe {
        libc::close(fd);
    }
}

/// A blocking stream of the standard library around a descriptor, which it then owns.
pub fn stream(fd: RawFd) -> TcpStream {
    // SAFETY: `connect` has opened it and nobody else has it.
    unsafe { TcpStream::from_raw_fd(fd) }
}

/// What a read or a write did.
pub enum Io {
    N(usize),
    Eof,
    Again,
    Err,
}

pub fn read(fd: RawFd, b: &mut [u8]) -> Io {
    // SAFETY: the kernel writes at most as many bytes as the slice has.
    let n = unsafe { libc::recv(fd, b.as_mut_ptr() as *mut libc::c_void, b.len(), 0) };
    if n > 0 {
        return Io::N(n as usize);
    }
    if n == 0 {
        return Io::Eof;
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) | Some(libc::EINTR) => Io::Again,
        _ => Io::Err,
    }
}

pub fn write(fd: RawFd, b: &[u8]) -> Io {
    // SAFETY: the kernel reads as many bytes as the slice has.
    let n = unsafe { libc::send(fd, b.as_ptr() as *const libc::c_void, b.len(), libc::MSG_NOSIGNAL) };
    if n >= 0 {
        return Io::N(n as usize);
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) | Some(libc::EINTR) => Io::Again,
        _ => Io::Err,
    }
}

pub const IN: u32 = libc::EPOLLIN as u32;
pub const OUT: u32 = libc::EPOLLOUT as u32;
pub const HUP: u32 = (libc::EPOLLHUP | libc::EPOLLERR) as u32;

pub struct Poll {
    fd: RawFd,
    pub ev: Vec<libc::epoll_event>,
}

impl Poll {
    pub fn new() -> Poll {
        // SAFETY: no pointer.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        Poll { fd, ev: vec![libc::epoll_event { events: 0, u64: 0 }; 1024] }
    }
    fn ctl(&self, op: i32, fd: RawFd, tok: u64, m: u32) {
        let mut e = libc::epoll_event { events: m, u64: tok };
        // SAFETY: the event lives for the call.
        unsafe {
            libc::epoll_ctl(self.fd, op, fd, &mut e);
        }
    }
    pub fn add(&self, fd: RawFd, tok: u64, m: u32) {
        self.ctl(libc::EPOLL_CTL_ADD, fd, tok, m)
    }
    pub fn modify(&self, fd: RawFd, tok: u64, m: u32) {
        self.ctl(libc::EPOLL_CTL_MOD, fd, tok, m)
    }
    /// Waits at most `ns`; returns the number of ready events.
    pub fn wait(&mut self, ns: u64) -> usize {
        let ts = libc::timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 };
        // SAFETY: the kernel writes at most as many events as the vector has; the time lives for the call.
        let n = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd,
                self.ev.as_mut_ptr(),
                self.ev.len() as i32,
                &ts as *const _,
                std::ptr::null::<u8>(),
                8usize,
            )
        };
        if n < 0 { 0 } else { n as usize }
    }
}
