//! The kernel: epoll, non-blocking sockets of IPv4, clocks and limits. All that is `unsafe` stands here.

use libc::{c_int, c_void};
use std::net::Ipv4Addr;

pub const IN: u32 = libc::EPOLLIN as u32 | libc::EPOLLRDHUP as u32;
pub const OUT: u32 = libc::EPOLLOUT as u32;

pub fn now_ns() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is plain data that lives for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

fn addr(ip: Ipv4Addr, port: u16) -> libc::sockaddr_in {
    // SAFETY: an address of zeros is a value of this plain data.
    let mut a: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    a.sin_family = libc::AF_INET as u16;
    a.sin_port = port.to_be();
    a.sin_addr.s_addr = u32::from_ne_bytes(ip.octets());
    a
}

fn opt(fd: c_int, level: c_int, name: c_int, v: c_int) {
    // SAFETY: the kernel reads four bytes of an integer that lives for the call.
    unsafe { libc::setsockopt(fd, level, name, &v as *const _ as *const c_void, 4) };
}

pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Starts a non-blocking connect from `src` (0.0.0.0: any).
pub fn dial(host: Ipv4Addr, port: u16, src: Ipv4Addr) -> Result<c_int, i32> {
    // SAFETY: the addresses are plain data that live for the calls; 16 is their size. Closed is only what was opened here.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(errno());
        }
        opt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
        if !src.is_unspecified() {
            opt(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1);
            let a = addr(src, 0);
            if libc::bind(fd, &a as *const _ as *const libc::sockaddr, 16) < 0 {
                let e = errno();
                libc::close(fd);
                return Err(e);
            }
        }
        let a = addr(host, port);
        if libc::connect(fd, &a as *const _ as *const libc::sockaddr, 16) < 0 {
            let e = errno();
            if e != libc::EINPROGRESS {
                libc::close(fd);
                return Err(e);
            }
        }
        Ok(fd)
    }
}

pub fn listen(host: Ipv4Addr, port: u16) -> Result<c_int, i32> {
    // SAFETY: the address is plain data that lives for the calls; 16 is its size.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0);
        opt(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
        let a = addr(host, port);
        if fd < 0
            || libc::bind(fd, &a as *const _ as *const libc::sockaddr, 16) < 0
            || libc::listen(fd, 4096) < 0
        {
            return Err(errno());
        }
        Ok(fd)
    }
}

pub fn accept(fd: c_int) -> Option<c_int> {
    // SAFETY: no address is asked for.
    let c = unsafe {
        libc::accept4(
            fd,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        )
    };
    if c < 0 {
        return None;
    }
    opt(c, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
    Some(c)
}

/// >0 bytes, 0 peer closed, -1 would block, -2 error
pub fn read(fd: c_int, b: &mut [u8]) -> isize {
    loop {
        // SAFETY: the kernel writes at most as many bytes as the slice has.
        let n = unsafe { libc::read(fd, b.as_mut_ptr() as *mut c_void, b.len()) };
        if n >= 0 {
            return n;
        }
        match errno() {
            libc::EINTR => continue,
            libc::EAGAIN => return -1,
            _ => return -2,
        }
    }
}

pub fn write(fd: c_int, b: &[u8]) -> isize {
    loop {
        // SAFETY: the kernel reads as many bytes as the slice has.
        let n = unsafe { libc::send(fd, b.as_ptr() as *const c_void, b.len(), libc::MSG_NOSIGNAL) };
        if n >= 0 {
            return n;
        }
        match errno() {
            libc::EINTR => continue,
            libc::EAGAIN => return -1,
            _ => return -2,
        }
    }
}

pub fn close(fd: c_int) {
    // SAFETY: callers give each descriptor away once.
    unsafe { libc::close(fd) };
}

pub struct Epoll {
    fd: c_int,
    pub ev: Vec<libc::epoll_event>,
}

impl Epoll {
    pub fn new() -> Self {
        // SAFETY: no pointer.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        assert!(fd >= 0, "epoll_create1");
        Epoll { fd, ev: vec![libc::epoll_event { events: 0, u64: 0 }; 1024] }
    }
    pub fn add(&self, fd: c_int, key: u64, mask: u32) {
        let mut e = libc::epoll_event { events: mask, u64: key };
        // SAFETY: the event lives for the call.
        unsafe { libc::epoll_ctl(self.fd, libc::EPOLL_CTL_ADD, fd, &mut e) };
    }
    pub fn modify(&self, fd: c_int, key: u64, mask: u32) {
        let mut e = libc::epoll_event { events: mask, u64: key };
        // SAFETY: the event lives for the call.
        unsafe { libc::epoll_ctl(self.fd, libc::EPOLL_CTL_MOD, fd, &mut e) };
    }
    pub fn wait(&mut self, timeout_ns: u64) -> usize {
        let ts = libc::timespec {
            tv_sec: (timeout_ns / 1_000_000_000) as i64,
            tv_nsec: (timeout_ns % 1_000_000_000) as i64,
        };
        // epoll_pwait2 gives nanosecond timeouts; number 441 on every 64-bit Linux
        // SAFETY: the kernel writes at most as many events as the vector has; the time lives for the call.
        let n = unsafe {
            libc::syscall(
                441,
                self.fd,
                self.ev.as_mut_ptr(),
                self.ev.len() as c_int,
                &ts,
                std::ptr::null::<c_void>(),
                0usize,
            )
        };
        n.max(0) as usize
    }
}

pub fn raise_limits() {
    // SAFETY: the limits are plain data that live for the calls.
    unsafe {
        let mut r: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut r);
        let want = libc::rlimit { rlim_cur: 1_000_000, rlim_max: 1_000_000 };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &want) < 0 {
            r.rlim_cur = r.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &r);
        }
        libc::prctl(libc::PR_SET_TIMERSLACK, 1000usize);
    }
}

/// Ticks of a second in /proc.
pub fn ticks_per_s() -> f64 {
    // SAFETY: no pointer.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) as f64 }
}

/// CPU seconds of this process.
pub fn own_cpu_s() -> f64 {
    // SAFETY: the usage is plain data that lives for the call.
    let u = unsafe {
        let mut u: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut u);
        u
    };
    (u.ru_utime.tv_sec + u.ru_stime.tv_sec) as f64 + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) as f64 / 1e6
}
