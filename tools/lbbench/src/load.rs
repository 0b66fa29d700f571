//! The load side: connect storm, echo throughput and latency, bulk transfer, idle memory. One epoll thread.

mod bulk;
mod echo;
mod idle;
mod storm;

use crate::account::*;
use crate::arguments::{Args, addr, die};
use crate::mqtt;
use crate::sockets::*;
use serde_json::json;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;
use std::time::Instant;

pub struct Cl {
    pub fd: RawFd,
    up: bool,
    pub ready: bool,
    wbuf: Vec<u8>,
    wpos: usize,
    armed: u32,
    rbuf: Vec<u8>,
    skip: usize,
    t: u64,
    pub inflight: u32,
    pid: u16,
    topic: Vec<u8>,
}

impl Cl {
    fn queue(&mut self, d: &[u8]) {
        self.wbuf.extend_from_slice(d);
    }
    /// Writes what it can; Err when the connection broke.
    fn flush(&mut self) -> Result<(), ()> {
        while self.wpos < self.wbuf.len() {
            match write(self.fd, &self.wbuf[self.wpos..]) {
                Io::N(n) => self.wpos += n,
                Io::Again => return Ok(()),
                _ => return Err(()),
            }
        }
        self.wbuf.clear();
        self.wpos = 0;
        Ok(())
    }
    fn pending(&self) -> bool {
        self.wpos < self.wbuf.len()
    }
    /// Reads into `buf`; 0 = nothing now.
    fn recv(&mut self, buf: &mut [u8]) -> Result<usize, ()> {
        match read(self.fd, buf) {
            Io::N(n) => Ok(n),
            Io::Again => Ok(0),
            Io::Eof | Io::Err => Err(()),
        }
    }
}

pub struct Ctx {
    dst: ([u8; 4], u16),
    v5: bool,
    srcs: u64,
    poll: Poll,
    t0: Instant,
    pub cl: Vec<Option<Cl>>,
    seq: u64,
    prefix: String,
    errors: u64,
}

impl Ctx {
    fn src(&self, i: u64) -> Option<[u8; 4]> {
        if self.srcs > 0 { Some([127, 0, 1, 1 + (i % self.srcs.min(250)) as u8]) } else { None }
    }
    fn open(&mut self, slot: usize) {
        let i = self.seq;
        self.seq += 1;
        match connect(self.src(i), self.dst) {
            Ok(fd) => {
                self.poll.add(fd, slot as u64, OUT);
                self.cl[slot] = Some(Cl {
                    fd,
                    up: false,
                    ready: false,
                    wbuf: Vec::new(),
                    wpos: 0,
                    armed: OUT,
                    rbuf: Vec::new(),
                    skip: 0,
                    t: now_ns(self.t0),
                    inflight: 0,
                    pid: 0,
                    topic: format!("e/{}{}", self.prefix, i).into_bytes(),
                });
            }
            Err(_) => {
                self.errors += 1;
                self.cl[slot] = None;
            }
        }
    }
    fn close(&mut self, slot: usize) {
        if let Some(c) = self.cl[slot].take() {
            close(c.fd);
        }
    }
    /// Handles readiness: finishes the TCP connect, sends CONNECT once, flushes. Err = broken.
    fn on_out(&mut self, slot: usize) -> Result<(), ()> {
        let v5 = self.v5;
        let Some(c) = self.cl[slot].as_mut() else { return Ok(()) };
        if !c.up {
            if so_error(c.fd) != 0 {
                return Err(());
            }
            c.up = true;
            let mut b = Vec::with_capacity(64);
            let cid = c.topic[2..].to_vec();
            mqtt::connect(&mut b, &cid, v5, 0, None);
            c.queue(&b);
        }
        c.flush()
    }
    fn arm(&mut self, slot: usize) {
        let Some(c) = self.cl[slot].as_mut() else { return };
        let want = if !c.up {
            OUT
        } else if c.pending() {
            IN | OUT
        } else {
            IN
        };
        if want != c.armed {
            c.armed = want;
            let fd = c.fd;
            self.poll.modify(fd, slot as u64, want);
        }
    }
}

/// Calls `f(type_byte, body)` for each whole frame; large PUBLISH bodies are not kept when `swallow`.
fn frames(c: &mut Cl, b: &[u8], mut f: impl FnMut(u8, &[u8], usize)) -> Result<(), ()> {
    let mut own;
    let data: &[u8] = if c.rbuf.is_empty() {
        b
    } else {
        own = std::mem::take(&mut c.rbuf);
        own.extend_from_slice(b);
        &own
    };
    let mut p = 0;
    loop {
        if c.skip > 0 {
            let n = c.skip.min(data.len() - p);
            c.skip -= n;
            p += n;
            if c.skip > 0 {
                return Ok(());
            }
        }
        match mqtt::head(&data[p..]) {
            None => break,
            Some(Err(())) => return Err(()),
            Some(Ok((h, rem))) => {
                let have = data.len() - p - h;
                if have >= rem {
                    f(data[p], &data[p + h..p + h + rem], rem);
                    p += h + rem;
                } else if rem > 4096 && have >= 64 {
                    // a large echo: its head is enough, the rest is skipped
                    f(data[p], &data[p + h..], rem);
                    c.skip = rem - have;
                    p = data.len();
                    break;
                } else {
                    break;
                }
            }
        }
    }
    let rest = data[p..].to_vec();
    if !rest.is_empty() {
        c.rbuf = rest;
    }
    Ok(())
}

fn new_ctx(a: &Args, slots: usize) -> Ctx {
    Ctx {
        dst: addr(&a.s("to", "127.0.0.1:1883")),
        v5: a.has("v5"),
        srcs: a.n("srcs", 8),
        poll: Poll::new(),
        t0: now(),
        cl: (0..slots).map(|_| None).collect(),
        seq: 0,
        prefix: a.s("prefix", &format!("c{}-", std::process::id())),
        errors: 0,
    }
}

/// Opens all slots (at most `conc` handshakes at once) and waits for every CONNACK. Returns how many came up.
fn bring_up(x: &mut Ctx, n: usize, conc: usize) -> usize {
    let mut buf = vec![0u8; 64 << 10];
    let (mut next, mut busy, mut up) = (0usize, 0usize, 0usize);
    let lim = now();
    while up + (x.errors as usize) < n && lim.elapsed().as_secs() < 120 && !STOP.load(Ordering::Relaxed) {
        while busy < conc && next < n {
            x.open(next);
            if x.cl[next].is_some() {
                busy += 1;
            }
            next += 1;
        }
        let k = x.poll.wait(200_000_000);
        for i in 0..k {
            let s = x.poll.ev[i].u64 as usize;
            let ev = x.poll.ev[i].events;
            let was = x.cl[s].as_ref().is_none_or(|c| c.ready);
            let mut bad = ev & OUT != 0 && x.on_out(s).is_err();
            if !bad
                && ev & (IN | HUP) != 0
                && let Some(c) = x.cl[s].as_mut()
            {
                match c.recv(&mut buf) {
                    Ok(m) => {
                        let mut ok = false;
                        let data = buf[..m].to_vec();
                        bad = frames(c, &data, |t, _, _| ok |= t >> 4 == 2).is_err() || c.flush().is_err();
                        c.ready |= ok;
                    }
                    Err(()) => bad = true,
                }
            }
            if bad {
                x.errors += 1;
                if !was {
                    busy -= 1;
                }
                x.close(s);
                continue;
            }
            x.arm(s);
            if !was && x.cl[s].as_ref().is_some_and(|c| c.ready) {
                busy -= 1;
                up += 1;
            }
        }
    }
    up
}

fn base(a: &Args, x: &Ctx) -> serde_json::Map<String, serde_json::Value> {
    let mut m = serde_json::Map::new();
    m.insert("run".into(), json!(format!("load/{}", a.s("mode", ""))));
    if a.has("label") {
        m.insert("label".into(), json!(a.s("label", "")));
    }
    m.insert("mqtt".into(), json!(if x.v5 { "5" } else { "3.1.1" }));
    m.insert("errors".into(), json!(x.errors));
    m
}

pub fn run(a: &Args) {
    match a.s("mode", "storm").as_str() {
        "storm" => storm::run(a),
        "msgs" => echo::run(a),
        "bulk" => bulk::run(a),
        "idle" => idle::run(a),
        _ => die("--mode storm|msgs|bulk|idle"),
    }
}

fn own_cpu() -> f64 {
    cpu_s(&[std::process::id() as u64])
}
