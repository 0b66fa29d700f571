//! One event loop that owns every client's connection, publishes, receives and checks.

use crate::hist::Hist;
use crate::net::{self, Epoll};
use crate::procstat;
use crate::proto::{self, HDR, Template};
use std::net::Ipv4Addr;

#[derive(Clone)]
pub struct Cfg {
    pub host: Ipv4Addr,
    pub port: u16,
    pub v5: bool,
    pub qos: u8,
    pub sub_qos: u8,
    pub size: usize,
    pub pubs: usize,
    pub subs: usize,
    pub topics: usize,
    pub secs: f64,
    pub msgs: u64,
    /// end-to-end window per publisher, in messages (0: open loop)
    pub window: u64,
    /// unacknowledged QoS 1/2 messages per publisher
    pub inflight: u32,
    /// total messages per second over all publishers (0: as fast as the windows allow)
    pub rate: f64,
    pub tick_us: u64,
    pub share: Option<String>,
    pub wild: bool,
    pub random: bool,
    pub overlap: bool,
    pub filters: usize,
    pub pid: Option<i32>,
    pub conc: usize,
    pub srcs: u32,
    pub hold: f64,
    pub drain: f64,
    pub keepalive: u16,
    pub setup_s: f64,
    pub label: String,
}

#[derive(Clone, Copy, PartialEq)]
enum St {
    Dialing,
    WaitConnack,
    WaitSuback,
    Ready,
    Dead,
}

struct Client {
    fd: i32,
    st: St,
    out: Vec<u8>,
    off: usize,
    carry: Vec<u8>,
    armed: bool,
    dirty: bool,
    acks_left: u32,
    t0: u64,
}

struct Pub {
    seq: u32,
    pid: u16,
    inflight: u32,
    outstanding: i64,
    own: Vec<u32>,
    at: usize,
    sent: u64,
    lag: u64,
    queued: bool,
    dead: bool,
}

pub struct World {
    pub c: Cfg,
    ep: Epoll,
    cl: Vec<Client>,
    ready: usize,
    dead: usize,
    sub_rejects: u64,
    dial_errno: i32,
    filters_sent: u64,
    buf: Vec<u8>,
    pub conn_hist: Hist,
    pubs: Vec<Pub>,
    tpl: Vec<Template>,
    fan: Vec<u32>,
    fan_max: u32,
    last: Vec<u32>,
    hist: Hist,
    wake: Vec<usize>,
    dirty: Vec<usize>,
    expected: u64,
    sent: u64,
    acked: u64,
    recv: u64,
    order: u64,
    dups: u64,
    foreign: u64,
    last_rx: u64,
    start: u64,
    rng: u64,
    stalls: u64,
    run_id: u32,
}

const BUF: usize = 512 << 10;

impl World {
    pub fn new(c: Cfg) -> Self {
        net::raise_limits();
        World {
            c,
            ep: Epoll::new(),
            cl: vec![],
            ready: 0,
            dead: 0,
            sub_rejects: 0,
            dial_errno: 0,
            filters_sent: 0,
            buf: vec![0; BUF],
            conn_hist: Hist::new(),
            pubs: vec![],
            tpl: vec![],
            fan: vec![],
            fan_max: 1,
            last: vec![],
            hist: Hist::new(),
            wake: vec![],
            dirty: vec![],
            expected: 0,
            sent: 0,
            acked: 0,
            recv: 0,
            order: 0,
            dups: 0,
            foreign: 0,
            last_rx: 0,
            start: 0,
            rng: 0x9e37_79b9_7f4a_7c15,
            stalls: 0,
            run_id: std::process::id(),
        }
    }

    // ---- setup -------------------------------------------------------------------------------

    fn topic_name(&self, t: usize) -> String {
        if self.c.random {
            if !self.c.overlap && t % 10 == 8 {
                return format!("w/v{t}/y"); // met by a filter that starts with '+'
            }
            format!("w/{t}/x/y")
        } else {
            format!("ml/b/{t}")
        }
    }

    /// Filters of subscriber `s`.
    fn filters_of(&self, s: usize) -> Vec<String> {
        let c = &self.c;
        if c.random {
            // filter i belongs to client i % subs
            return (s..c.filters)
                .step_by(c.subs)
                .map(|i| {
                    if c.overlap {
                        let g = i / 4;
                        match i % 4 {
                            0 => format!("w/{g}/x/y"),
                            1 => format!("w/{g}/+/y"),
                            2 => format!("w/{g}/x/#"),
                            _ => format!("w/{g}/#"),
                        }
                    } else {
                        match i % 10 {
                            0..=5 => format!("w/{i}/x/y"),
                            6 => format!("w/{i}/+/y"),
                            7 => format!("w/{i}/+/+"),
                            8 => format!("+/v{i}/y"),
                            _ => format!("w/{i}/#"),
                        }
                    }
                })
                .collect();
        }
        let pre = c.share.as_ref().map(|g| format!("$share/{g}/")).unwrap_or_default();
        if c.wild || c.share.is_some() {
            return vec![format!("{pre}ml/b/+")];
        }
        if c.subs >= c.topics {
            vec![format!("ml/b/{}", s % c.topics)]
        } else {
            (s..c.topics).step_by(c.subs).map(|t| format!("ml/b/{t}")).collect()
        }
    }

    /// Dials `n` clients; `sub(i)` gives the filters of client i. Returns seconds taken.
    pub fn dial_all(&mut self, n: usize, sub: &dyn Fn(&World, usize) -> Vec<String>) -> f64 {
        let t0 = net::now_ns();
        let end = t0 + (self.c.setup_s * 1e9) as u64;
        let base = self.cl.len();
        let mut next = 0;
        let (r0, d0) = (self.ready, self.dead);
        loop {
            let done = self.ready - r0 + self.dead - d0;
            if done >= n || net::now_ns() > end {
                break;
            }
            while next < n && next - (self.ready - r0 + self.dead - d0) < self.c.conc {
                let i = base + next;
                let src = if self.c.srcs <= 1 {
                    Ipv4Addr::UNSPECIFIED
                } else {
                    Ipv4Addr::new(127, 0, 1, 1 + (next as u32 % self.c.srcs) as u8)
                };
                let mut cl = Client {
                    fd: -1,
                    st: St::Dialing,
                    out: vec![],
                    off: 0,
                    carry: vec![],
                    armed: true,
                    dirty: false,
                    acks_left: 0,
                    t0: net::now_ns(),
                };
                match net::dial(self.c.host, self.c.port, src) {
                    Ok(fd) => {
                        cl.fd = fd;
                        self.ep.add(fd, i as u64, net::IN | net::OUT);
                    }
                    Err(e) => {
                        self.dial_errno = e; // 24: this process ran out of descriptors
                        cl.st = St::Dead;
                        self.dead += 1;
                    }
                }
                self.cl.push(cl);
                next += 1;
            }
            let k = self.ep.wait(20_000_000);
            for e in 0..k {
                let ev = self.ep.ev[e];
                let i = ev.u64 as usize;
                if self.cl[i].st == St::Dialing && ev.events & (net::OUT | libc::EPOLLERR as u32) != 0 {
                    let id = format!("ml{}-{}", self.run_id, i);
                    let mut o = vec![];
                    proto::connect(&mut o, &id, self.c.v5, self.c.keepalive);
                    self.cl[i].st = St::WaitConnack;
                    let w = net::write(self.cl[i].fd, &o);
                    if w != o.len() as isize {
                        self.kill(i);
                        continue;
                    }
                    self.cl[i].armed = false;
                    self.ep.modify(self.cl[i].fd, i as u64, net::IN);
                    continue;
                }
                let was = self.cl[i].st;
                self.event(i, ev.events);
                if was == St::WaitConnack && self.cl[i].st == St::WaitSuback {
                    let fs = sub(self, i);
                    if fs.is_empty() {
                        self.cl[i].st = St::Ready;
                        self.ready += 1;
                    } else {
                        let mut o = vec![];
                        let mut packets = 0;
                        for (p, ch) in fs.chunks(32).enumerate() {
                            proto::subscribe(&mut o, p as u16 + 1, ch, self.c.sub_qos, self.c.v5);
                            packets += 1;
                        }
                        self.filters_sent += fs.len() as u64;
                        self.cl[i].acks_left = packets;
                        self.cl[i].out.extend_from_slice(&o);
                        self.flush(i);
                    }
                }
            }
        }
        (net::now_ns() - t0) as f64 / 1e9
    }

    fn kill(&mut self, i: usize) {
        let c = &mut self.cl[i];
        if c.st == St::Dead {
            return;
        }
        if c.st == St::Ready {
            self.ready -= 1;
        }
        c.st = St::Dead;
        self.dead += 1;
        net::close(c.fd);
        c.fd = -1;
        c.out = vec![];
        if i >= self.c.subs && i - self.c.subs < self.pubs.len() {
            self.pubs[i - self.c.subs].dead = true;
        }
    }

    // ---- I/O ---------------------------------------------------------------------------------

    fn flush(&mut self, i: usize) {
        let c = &mut self.cl[i];
        if c.fd < 0 {
            return;
        }
        while c.off < c.out.len() {
            let n = net::write(c.fd, &c.out[c.off..]);
            if n == -2 {
                self.kill(i);
                return;
            }
            if n < 0 {
                break;
            }
            c.off += n as usize;
        }
        if c.off == c.out.len() {
            c.out.clear();
            c.off = 0;
            if c.armed {
                c.armed = false;
                self.ep.modify(c.fd, i as u64, net::IN);
                if i >= self.c.subs {
                    self.wake_pub(i - self.c.subs);
                }
            }
        } else if !c.armed {
            c.armed = true;
            self.ep.modify(c.fd, i as u64, net::IN | net::OUT);
        }
    }

    fn mark(&mut self, i: usize) {
        if !self.cl[i].dirty {
            self.cl[i].dirty = true;
            self.dirty.push(i);
        }
    }

    fn flush_dirty(&mut self) {
        let mut d = std::mem::take(&mut self.dirty);
        for i in d.drain(..) {
            self.cl[i].dirty = false;
            if !self.cl[i].armed {
                self.flush(i);
            }
        }
        self.dirty = d;
    }

    #[inline]
    fn wake_pub(&mut self, p: usize) {
        if let Some(q) = self.pubs.get_mut(p)
            && !q.queued
        {
            q.queued = true;
            self.wake.push(p);
        }
    }

    fn event(&mut self, i: usize, mask: u32) {
        if self.cl[i].fd < 0 {
            return;
        }
        if mask & net::OUT != 0 {
            self.flush(i);
        }
        if mask & !net::OUT == 0 || self.cl[i].fd < 0 {
            return;
        }
        let mut buf = std::mem::take(&mut self.buf);
        for _ in 0..4 {
            let pre = self.cl[i].carry.len();
            if pre > 0 {
                buf[..pre].copy_from_slice(&self.cl[i].carry);
                self.cl[i].carry.clear();
            }
            let r = net::read(self.cl[i].fd, &mut buf[pre..]);
            if r == 0 || r == -2 {
                self.kill(i);
                break;
            }
            let len = pre + r.max(0) as usize;
            let now = net::now_ns();
            let mut at = 0;
            while let Some((h, whole)) = proto::frame(&buf[at..len]) {
                self.packet(i, buf[at], &buf[at + h..at + whole], now);
                at += whole;
            }
            if at < len {
                self.cl[i].carry.extend_from_slice(&buf[at..len]);
            }
            if r < 0 || len < BUF || self.cl[i].fd < 0 {
                break;
            }
        }
        self.buf = buf;
    }

    fn packet(&mut self, i: usize, first: u8, body: &[u8], now: u64) {
        match first >> 4 {
            3 => self.delivered(i, first, body, now),
            4 => {
                // PUBACK to a publisher
                let p = i - self.c.subs.min(i);
                if let Some(q) = self.pubs.get_mut(p) {
                    q.inflight = q.inflight.saturating_sub(1);
                    self.acked += 1;
                    self.wake_pub(p);
                }
            }
            5 if body.len() >= 2 => {
                self.cl[i].out.extend_from_slice(&[0x62, 2, body[0], body[1]]);
                self.mark(i);
            }
            6 if body.len() >= 2 => {
                self.cl[i].out.extend_from_slice(&[0x70, 2, body[0], body[1]]);
                self.mark(i);
            }
            7 => {
                let p = i - self.c.subs.min(i);
                if let Some(q) = self.pubs.get_mut(p) {
                    q.inflight = q.inflight.saturating_sub(1);
                    self.acked += 1;
                    self.wake_pub(p);
                }
            }
            2 => {
                if body.get(1) == Some(&0) {
                    let c = &mut self.cl[i];
                    c.st = St::WaitSuback;
                    let d = now - c.t0;
                    self.conn_hist.add(d);
                } else {
                    self.kill(i);
                }
            }
            9 => {
                let skip = if self.c.v5 { 3 } else { 2 };
                self.sub_rejects += body.iter().skip(skip).filter(|b| **b >= 0x80).count() as u64;
                let c = &mut self.cl[i];
                c.acks_left = c.acks_left.saturating_sub(1);
                if c.acks_left == 0 && c.st == St::WaitSuback {
                    c.st = St::Ready;
                    self.ready += 1;
                }
            }
            _ => {}
        }
    }

    #[inline]
    fn slot(&self, sub: usize, publ: usize, topic: usize) -> usize {
        if self.c.random {
            (topic * self.c.pubs + publ) * 4 + (sub & 3)
        } else {
            sub * self.c.pubs.max(self.c.topics) + if self.c.pubs >= self.c.topics { publ } else { topic }
        }
    }

    #[inline]
    fn delivered(&mut self, i: usize, first: u8, body: &[u8], now: u64) {
        let Some((_, pid, pl)) = proto::publish_parts(first, body, self.c.v5) else {
            self.foreign += 1;
            return;
        };
        let q = (first >> 1) & 3;
        if q > 0 {
            let op = if q == 1 { 0x40 } else { 0x50 };
            let b = pid.to_be_bytes();
            self.cl[i].out.extend_from_slice(&[op, 2, b[0], b[1]]);
            self.mark(i);
        }
        if pl.len() < HDR {
            self.foreign += 1;
            return;
        }
        let u = |a: usize| u32::from_le_bytes(pl[a..a + 4].try_into().unwrap());
        let (p, t, seq) = (u(0) as usize, u(4) as usize, u(8));
        let ts = u64::from_le_bytes(pl[12..20].try_into().unwrap());
        if p >= self.pubs.len() || t >= self.tpl.len() {
            self.foreign += 1;
            return;
        }
        self.last_rx = now;
        if !self.last.is_empty() {
            let s = self.slot(i, p, t);
            let l = &mut self.last[s];
            if seq <= *l {
                if first & 8 != 0 || seq == *l {
                    self.dups += 1;
                    return;
                }
                self.order += 1;
            } else {
                *l = seq;
            }
        }
        self.recv += 1;
        self.hist.add(now.saturating_sub(ts));
        self.pubs[p].outstanding -= 1;
        if self.c.window > 0 {
            self.wake_pub(p);
        }
    }

    // ---- publishing --------------------------------------------------------------------------

    fn put(&mut self, p: usize, ts: u64) {
        let q = &mut self.pubs[p];
        let t = if self.c.random {
            self.rng ^= self.rng << 13;
            self.rng ^= self.rng >> 7;
            self.rng ^= self.rng << 17;
            (self.rng % self.tpl.len() as u64) as u32
        } else {
            let t = q.own[q.at];
            q.at += 1;
            if q.at == q.own.len() {
                q.at = 0;
            }
            t
        };
        q.seq += 1;
        q.sent += 1;
        if self.c.qos > 0 {
            q.pid = if q.pid == u16::MAX { 1 } else { q.pid + 1 };
            q.inflight += 1;
        }
        let f = self.fan[t as usize];
        q.outstanding += f as i64;
        self.expected += f as u64;
        self.sent += 1;
        let ci = self.c.subs + p;
        self.tpl[t as usize].emit(&mut self.cl[ci].out, q.pid, p as u32, t, q.seq, ts);
    }

    /// Messages that publisher p may send now.
    #[inline]
    fn credit(&self, p: usize) -> u64 {
        let q = &self.pubs[p];
        if q.dead {
            return 0;
        }
        let mut n = u64::MAX;
        if self.c.window > 0 {
            let room = self.c.window as i64 * self.fan_max as i64 - q.outstanding;
            n = (room.max(0) as u64) / self.fan_max as u64;
            if n < (self.c.window / 4).max(1) {
                return 0;
            }
        }
        if self.c.qos > 0 {
            let k = self.c.inflight.saturating_sub(q.inflight);
            if k == 0 {
                return 0;
            }
            n = n.min(k as u64);
        }
        n
    }

    fn fill_wake(&mut self) {
        let mut w = std::mem::take(&mut self.wake);
        let mut again = vec![];
        for p in w.drain(..) {
            self.pubs[p].queued = false;
            let ci = self.c.subs + p;
            if self.cl[ci].armed {
                continue; // socket full; flush() wakes this publisher when it drains
            }
            let mut n = self.credit(p);
            if n == 0 {
                continue;
            }
            n = n.min(self.c.msgs.saturating_sub(self.sent));
            let ts = net::now_ns();
            while n > 0 && self.cl[ci].out.len() < 64 << 10 {
                self.put(p, ts);
                n -= 1;
            }
            self.flush(ci);
            if n > 0 && self.cl[ci].fd >= 0 && !self.cl[ci].armed && self.sent < self.c.msgs {
                self.pubs[p].queued = true;
                again.push(p);
            }
        }
        // wakes queued meanwhile are in self.wake
        self.wake.extend(again);
    }

    fn send_due(&mut self, now: u64, k_next: &mut u64) {
        let iv = 1e9 / self.c.rate;
        let np = self.pubs.len() as u64;
        let due = (((now - self.start) as f64 / iv) as u64 + 1).min(self.c.msgs);
        while *k_next < due {
            let p = (*k_next % np) as usize;
            *k_next += 1;
            self.pubs[p].lag += 1;
            self.send_lag(p, iv, np);
        }
        let w = std::mem::take(&mut self.wake);
        for p in w {
            self.pubs[p].queued = false;
            self.send_lag(p, iv, np);
        }
    }

    fn send_lag(&mut self, p: usize, iv: f64, np: u64) {
        let ci = self.c.subs + p;
        while self.pubs[p].lag > 0 && !self.pubs[p].dead {
            if self.c.qos > 0 && self.pubs[p].inflight >= self.c.inflight {
                break;
            }
            if self.cl[ci].out.len() > 8 << 20 {
                break;
            }
            self.pubs[p].lag -= 1;
            let k = self.pubs[p].sent * np + p as u64;
            let ts = self.start + (k as f64 * iv) as u64;
            self.put(p, ts);
            self.mark(ci);
        }
    }

    /// Topics, how many deliveries a message of each must make, and publishers; then a moment without traffic.
    fn prepare(&mut self) {
        let c = self.c.clone();
        let nt = if c.random { if c.overlap { c.filters / 4 } else { c.filters } } else { c.topics };
        self.tpl = (0..nt).map(|t| Template::new(&self.topic_name(t), c.qos, c.size, c.v5)).collect();
        self.fan = (0..nt)
            .map(|t| {
                if c.random {
                    if c.overlap { 4 } else { 1 }
                } else if c.share.is_some() {
                    1
                } else if c.wild {
                    c.subs as u32
                } else if c.subs >= c.topics {
                    ((c.subs - t - 1) / c.topics + 1) as u32
                } else {
                    1
                }
            })
            .collect();
        self.fan_max = *self.fan.iter().max().unwrap_or(&1);
        let slots = if c.random { nt * c.pubs * 4 } else { c.subs * c.pubs.max(c.topics) };
        if slots <= 40_000_000 {
            self.last = vec![0; slots];
        }
        for p in 0..c.pubs {
            let own = if c.pubs >= nt {
                vec![(p % nt) as u32]
            } else {
                (p..nt).step_by(c.pubs).map(|t| t as u32).collect()
            };
            self.pubs.push(Pub {
                seq: 0,
                pid: 0,
                inflight: 0,
                outstanding: 0,
                own,
                at: 0,
                sent: 0,
                lag: 0,
                queued: true,
                dead: false,
            });
            self.wake.push(p);
        }
        if c.rate > 0.0 {
            self.wake.clear();
            self.pubs.iter_mut().for_each(|q| q.queued = false);
        }
        let settle = net::now_ns() + 200_000_000;
        while net::now_ns() < settle {
            let k = self.ep.wait(20_000_000);
            for e in 0..k {
                let ev = self.ep.ev[e];
                self.event(ev.u64 as usize, ev.events);
            }
        }
    }

    /// Connects everybody, publishes, drains, prints the result line.
    // long: one event loop with its accounts, read from top to bottom
    pub fn measure(mut self, name: &str) -> Result<(), String> {
        let c = self.c.clone();
        let total = c.subs + c.pubs;
        let setup = self.dial_all(total, &|w, i| if i < w.c.subs { w.filters_of(i) } else { vec![] });
        if self.ready < total {
            return Err(format!(
                "setup: {} of {total} clients ready, {} refused or closed",
                self.ready, self.dead
            ));
        }
        if self.sub_rejects > 0 {
            return Err(format!("setup: {} subscriptions refused by the server", self.sub_rejects));
        }
        self.prepare();
        let pids = c.pid.map(procstat::tree).unwrap_or_default();
        procstat::reset_peak(&pids);
        let (cpu0, gen0, rss0) = (procstat::cpu_s(&pids), net::own_cpu_s(), procstat::rss_kb(&pids));
        self.start = net::now_ns();
        self.last_rx = self.start;
        let end = self.start + (c.secs * 1e9) as u64;
        let hard = end + (c.drain * 1e9) as u64;
        let mut k_next = 0u64;
        let mut stop: Option<(u64, u64)> = None;
        loop {
            let now = net::now_ns();
            if stop.is_none() && (now >= end || self.sent >= c.msgs) {
                stop = Some((now, self.recv));
            }
            if let Some((stopped, _)) = stop {
                let acked = c.qos == 0 || self.acked >= self.sent;
                let quiet = now.saturating_sub(self.last_rx.max(stopped));
                if (self.recv >= self.expected && acked) || quiet > 2_000_000_000 || now > hard {
                    break;
                }
            } else if c.rate > 0.0 {
                self.send_due(now, &mut k_next);
            } else {
                if c.window > 0 && now - self.last_rx > 500_000_000 {
                    // deliveries were lost: give the window back, keep the loss in the count
                    self.stalls += 1;
                    self.last_rx = now;
                    for p in 0..self.pubs.len() {
                        self.pubs[p].outstanding = 0;
                        self.wake_pub(p);
                    }
                }
                self.fill_wake();
            }
            self.flush_dirty();
            let timeout = if stop.is_some() {
                20_000_000
            } else if c.rate > 0.0 {
                let next = self.start + (k_next as f64 * 1e9 / c.rate) as u64;
                let now = net::now_ns();
                next.saturating_sub(now).max(if next > now { c.tick_us * 1000 } else { 0 })
            } else if !self.wake.is_empty() {
                0
            } else {
                100_000_000
            };
            let k = self.ep.wait(timeout);
            for e in 0..k {
                let ev = self.ep.ev[e];
                self.event(ev.u64 as usize, ev.events);
            }
        }
        let (t1, recv1) = stop.unwrap_or((net::now_ns(), self.recv));
        let el = (t1 - self.start) as f64 / 1e9;
        let all_el = (self.last_rx.max(t1) - self.start) as f64 / 1e9;
        let cpu = procstat::cpu_s(&pids) - cpu0;
        let own = net::own_cpu_s() - gen0;
        let per_m = |x: f64| if self.recv > 0 { x / self.recv as f64 * 1e6 } else { 0.0 };
        println!(
            concat!(
                "{{\"scenario\":\"{}\",\"label\":\"{}\",\"v\":{},\"qos\":{},\"size\":{},\"pubs\":{},\"subs\":{},\"topics\":{},",
                "\"window\":{},\"inflight\":{},\"rate\":{},\"secs\":{:.2},\"drain_s\":{:.2},\"setup_s\":{:.2},\"filters\":{},\"sub_rejects\":{},",
                "\"sent\":{},\"expected\":{},\"delivered\":{},\"lost\":{},\"dups\":{},\"order_viol\":{},\"order_checked\":{},\"foreign\":{},",
                "\"disconnects\":{},\"stalls\":{},\"sent_per_s\":{:.0},\"delivered_per_s\":{:.0},",
                "\"p50_us\":{:.0},\"p99_us\":{:.0},\"p999_us\":{:.0},\"max_us\":{:.0},",
                "\"cpu_s\":{:.2},\"cpu_s_per_M\":{:.3},\"cpu_cores\":{:.2},\"gen_cpu_s\":{:.2},\"gen_cpu_s_per_M\":{:.3},\"rss0_kb\":{},\"rss_peak_kb\":{}}}"
            ),
            name,
            c.label,
            if c.v5 { 5 } else { 4 },
            c.qos,
            c.size,
            c.pubs,
            c.subs,
            self.tpl.len(),
            c.window,
            c.inflight,
            c.rate,
            el,
            all_el - el,
            setup,
            self.filters_sent,
            self.sub_rejects,
            self.sent,
            self.expected,
            self.recv,
            self.expected.saturating_sub(self.recv),
            self.dups,
            self.order,
            !self.last.is_empty(),
            self.foreign,
            self.dead,
            self.stalls,
            self.sent as f64 / el,
            recv1 as f64 / el,
            self.hist.q_us(0.5),
            self.hist.q_us(0.99),
            self.hist.q_us(0.999),
            self.hist.max_us(),
            cpu,
            per_m(cpu),
            cpu / all_el,
            own,
            per_m(own),
            rss0,
            procstat::peak_kb(&pids),
        );
        Ok(())
    }

    /// Opens `n` connections (each with one subscription when `with_sub`), holds them, prints one line.
    pub fn crowd(mut self, name: &str, n: usize, with_sub: bool) -> Result<(), String> {
        self.c.subs = n;
        let pids = self.c.pid.map(procstat::tree).unwrap_or_default();
        procstat::reset_peak(&pids);
        let (rss0, cpu0, gen0) = (procstat::rss_kb(&pids), procstat::cpu_s(&pids), net::own_cpu_s());
        let el = self.dial_all(n, &|_, i| if with_sub { vec![format!("idle/{i}/t")] } else { vec![] });
        let cpu_conn = procstat::cpu_s(&pids) - cpu0;
        let own = net::own_cpu_s() - gen0;
        let ready = self.ready;
        let t = net::now_ns();
        let cpu1 = procstat::cpu_s(&pids);
        let end = t + (self.c.hold * 1e9) as u64;
        while net::now_ns() < end {
            let k = self.ep.wait(100_000_000);
            for e in 0..k {
                let ev = self.ep.ev[e];
                self.event(ev.u64 as usize, ev.events);
            }
        }
        let rss1 = procstat::rss_kb(&pids);
        let hold = (net::now_ns() - t) as f64 / 1e9;
        println!(
            concat!(
                "{{\"scenario\":\"{}\",\"label\":\"{}\",\"n\":{},\"connected\":{},\"failed\":{},\"dial_errno\":{},\"still_open\":{},\"secs\":{:.3},\"conn_per_s\":{:.0},",
                "\"p50_us\":{:.0},\"p99_us\":{:.0},\"max_us\":{:.0},\"conc\":{},\"cpu_s\":{:.2},\"cpu_us_per_conn\":{:.1},\"gen_cpu_s\":{:.2},",
                "\"rss0_kb\":{},\"rss_kb\":{},\"rss_peak_kb\":{},\"rss_bytes_per_conn\":{:.0},\"hold_s\":{:.1},\"hold_cpu_cores\":{:.4}}}"
            ),
            name,
            self.c.label,
            n,
            ready,
            n - ready.min(n),
            self.dial_errno,
            self.ready,
            el,
            ready as f64 / el,
            self.conn_hist.q_us(0.5),
            self.conn_hist.q_us(0.99),
            self.conn_hist.max_us(),
            self.c.conc,
            cpu_conn,
            cpu_conn * 1e6 / ready.max(1) as f64,
            own,
            rss0,
            rss1,
            procstat::peak_kb(&pids),
            (rss1 as f64 - rss0 as f64) * 1024.0 / ready.max(1) as f64,
            hold,
            (procstat::cpu_s(&pids) - cpu1) / hold.max(0.001),
        );
        Ok(())
    }
}
