//! A minimal fake MQTT backend on several ports, one epoll thread.
//!
//! Topics starting with `e/` are echoed back, every other PUBLISH is swallowed (QoS 1 gets its PUBACK).
//! SUBSCRIBE to `$lb/port` is answered with a PUBLISH whose payload is the port the client arrived on.

use crate::account::now;
use crate::arguments::{Args, die};
use crate::mqtt;
use crate::sockets::*;
use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;

#[derive(Clone, Copy, PartialEq)]
enum Pp {
    None,
    V1,
    V2,
    Any,
}

struct Conn {
    fd: RawFd,
    port: usize,
    generation: u32,
    rbuf: Vec<u8>,
    wbuf: Vec<u8>,
    wpos: usize,
    out_armed: bool,
    skip: usize,
    puback: Option<u16>,
    v5: bool,
    got_proxy: bool,
    src: Option<String>,
}

#[derive(Default)]
struct PortStat {
    conns: u64,
    connects: u64,
    msgs: u64,
    bytes: u64,
    proxy_ok: u64,
    proxy_bad: u64,
    malformed: u64,
    open: i64,
}

/// PROXY protocol header at the start of `b`: `None` more bytes needed, `Some(Err)` not one, `Some(Ok((len, source)))`.
fn proxy_header(b: &[u8], want: Pp) -> Option<Result<(usize, String), ()>> {
    const SIG: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    let is_v2 = !b.is_empty() && b[0] == SIG[0];
    if is_v2 && want != Pp::V1 {
        let n = b.len().min(12);
        if b[..n] != SIG[..n] {
            return Some(Err(()));
        }
        if b.len() < 16 {
            return None;
        }
        let len = u16::from_be_bytes([b[14], b[15]]) as usize;
        if b[12] >> 4 != 2 {
            return Some(Err(()));
        }
        if b.len() < 16 + len {
            return None;
        }
        let src = match (b[12] & 15, b[13]) {
            (1, 0x11) if len >= 12 => format!("{}.{}.{}.{}", b[16], b[17], b[18], b[19]),
            (0, _) => "local".into(),
            _ => "other".into(),
        };
        return Some(Ok((16 + len, src)));
    }
    if want == Pp::V2 {
        return if b.is_empty() { None } else { Some(Err(())) };
    }
    let n = b.len().min(6);
    if b[..n] != b"PROXY "[..n] {
        return Some(Err(()));
    }
    match b.iter().take(108).position(|&x| x == b'\n') {
        None if b.len() >= 107 => Some(Err(())),
        None => None,
        Some(i) => {
            let l = String::from_utf8_lossy(&b[..i]).to_string();
            let f: Vec<&str> = l.trim_end().split(' ').collect();
            if f.len() == 6 && f[1] == "TCP4" && f[2].parse::<std::net::Ipv4Addr>().is_ok() {
                Some(Ok((i + 1, f[2].to_string())))
            } else if f.len() >= 2 && f[1] == "UNKNOWN" {
                Some(Ok((i + 1, "unknown".into())))
            } else {
                Some(Err(()))
            }
        }
    }
}

/// Connections of a client id by port, and the address that the last one came from.
type Seen = (HashMap<u16, u64>, Option<String>);

struct Be {
    ports: Vec<u16>,
    st: Vec<PortStat>,
    ids: HashMap<Vec<u8>, Seen>,
    track: bool,
    pp: Pp,
}

impl Be {
    /// Consumes what it can of `b`; returns bytes used, or Err to drop the connection.
    // long: one packet after the other, each kind where it is answered
    fn feed(&mut self, c: &mut Conn, b: &[u8]) -> Result<usize, ()> {
        let mut p = 0;
        if !c.got_proxy {
            match proxy_header(b, self.pp) {
                None => return Ok(0),
                Some(Err(())) => {
                    self.st[c.port].proxy_bad += 1;
                    return Err(());
                }
                Some(Ok((n, src))) => {
                    self.st[c.port].proxy_ok += 1;
                    c.src = Some(src);
                    c.got_proxy = true;
                    p = n;
                }
            }
        }
        loop {
            if c.skip > 0 {
                let n = c.skip.min(b.len() - p);
                c.skip -= n;
                p += n;
                if c.skip > 0 {
                    return Ok(p);
                }
                if let Some(id) = c.puback.take() {
                    c.wbuf.extend_from_slice(&[0x40, 2, (id >> 8) as u8, id as u8]);
                }
            }
            let (h, rem) = match mqtt::head(&b[p..]) {
                None => return Ok(p),
                Some(Err(())) => return Err(()),
                Some(Ok(x)) => x,
            };
            let t = b[p];
            let avail = b.len() - p - h;
            if t >> 4 == 3 {
                // PUBLISH: a swallowed one never has to be buffered whole.
                if avail < 4.min(rem) {
                    return Ok(p);
                }
                let qos = (t >> 1) & 3;
                let bd = &b[p + h..];
                let tl = u16::from_be_bytes([bd[0], bd[1]]) as usize;
                let need = 2 + tl + if qos > 0 { 2 } else { 0 };
                if need > rem {
                    return Err(());
                }
                let echo = tl >= 2 && bd.len() >= 4 && &bd[2..4] == b"e/";
                if !echo {
                    if avail < need {
                        return Ok(p);
                    }
                    if qos > 0 {
                        c.puback = Some(u16::from_be_bytes([bd[2 + tl], bd[3 + tl]]));
                    }
                    self.st[c.port].msgs += 1;
                    self.st[c.port].bytes += (h + rem) as u64;
                    p += h;
                    c.skip = rem;
                    continue;
                }
                if avail < rem {
                    return Ok(p);
                }
                self.st[c.port].msgs += 1;
                self.st[c.port].bytes += (h + rem) as u64;
                if qos == 1 {
                    c.wbuf.extend_from_slice(&[0x40, 2, bd[2 + tl], bd[3 + tl]]);
                    mqtt::put_head(&mut c.wbuf, 0x30, rem - 2);
                    c.wbuf.extend_from_slice(&bd[..2 + tl]);
                    c.wbuf.extend_from_slice(&bd[4 + tl..rem]);
                } else {
                    c.wbuf.extend_from_slice(&b[p..p + h + rem]);
                }
                p += h + rem;
                continue;
            }
            if rem > 1 << 20 {
                return Err(());
            }
            if avail < rem {
                return Ok(p);
            }
            let bd = &b[p + h..p + h + rem];
            match t >> 4 {
                1 => {
                    let Some((cid, level)) = mqtt::parse_connect(bd) else {
                        self.st[c.port].malformed += 1;
                        return Err(());
                    };
                    c.v5 = level == 5;
                    self.st[c.port].connects += 1;
                    if self.track {
                        let e = self.ids.entry(cid.to_vec()).or_default();
                        *e.0.entry(self.ports[c.port]).or_default() += 1;
                        e.1 = c.src.clone();
                    }
                    if c.v5 {
                        c.wbuf.extend_from_slice(&[0x20, 3, 0, 0, 0]);
                    } else {
                        c.wbuf.extend_from_slice(&[0x20, 2, 0, 0]);
                    }
                }
                8 => {
                    if rem < 5 {
                        return Err(());
                    }
                    let off = if c.v5 { 3 } else { 2 };
                    let (a, z) = (bd[0], bd[1]);
                    if c.v5 {
                        c.wbuf.extend_from_slice(&[0x90, 4, a, z, 0, 0]);
                    } else {
                        c.wbuf.extend_from_slice(&[0x90, 3, a, z, 0]);
                    }
                    let fl = u16::from_be_bytes([bd[off], bd[off + 1]]) as usize;
                    if bd.get(off + 2..off + 2 + fl) == Some(b"$lb/port") {
                        let s = self.ports[c.port].to_string();
                        mqtt::publish_head(&mut c.wbuf, b"$lb/port", None, c.v5, s.len());
                        c.wbuf.extend_from_slice(s.as_bytes());
                    }
                }
                10 => {
                    if rem < 2 {
                        return Err(());
                    }
                    if c.v5 {
                        c.wbuf.extend_from_slice(&[0xb0, 4, bd[0], bd[1], 0, 0]);
                    } else {
                        c.wbuf.extend_from_slice(&[0xb0, 2, bd[0], bd[1]]);
                    }
                }
                12 => c.wbuf.extend_from_slice(&[0xd0, 0]),
                14 => return Err(()),
                4..=7 => {}
                _ => {
                    self.st[c.port].malformed += 1;
                    return Err(());
                }
            }
            p += h + rem;
        }
    }
}

fn flush(c: &mut Conn) -> Result<(), ()> {
    while c.wpos < c.wbuf.len() {
        match write(c.fd, &c.wbuf[c.wpos..]) {
            Io::N(n) => c.wpos += n,
            Io::Again => return Ok(()),
            _ => return Err(()),
        }
    }
    c.wpos = 0;
    if c.wbuf.capacity() > 1 << 16 {
        c.wbuf = Vec::new();
    } else {
        c.wbuf.clear();
    }
    Ok(())
}

// long: one event loop with its accounts, read from top to bottom
pub fn run(a: &Args) {
    let ports: Vec<u16> = a.list("ports", "18830,18831,18832,18833").iter().map(|&x| x as u16).collect();
    let pp = match a.s("proxy", "none").as_str() {
        "v1" => Pp::V1,
        "v2" => Pp::V2,
        "any" => Pp::Any,
        _ => Pp::None,
    };
    let secs = a.n("secs", 3600);
    let mut be = Be {
        st: ports.iter().map(|_| PortStat::default()).collect(),
        ports: ports.clone(),
        ids: HashMap::new(),
        track: !a.has("no-track"),
        pp,
    };
    let mut poll = Poll::new();
    let np = ports.len();
    let mut ls = vec![];
    for (i, p) in ports.iter().enumerate() {
        let l = listen(*p).unwrap_or_else(|e| die(&format!("listen {p}: {e}")));
        poll.add(l, i as u64, IN);
        ls.push(l);
    }
    let mut conns: Vec<Option<Box<Conn>>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut generation = 0u32;
    let mut buf = vec![0u8; 256 << 10];
    let t0 = now();
    while !STOP.load(Ordering::Relaxed) && t0.elapsed().as_secs() < secs {
        let n = poll.wait(500_000_000);
        for i in 0..n {
            let (tok, ev) = (poll.ev[i].u64, poll.ev[i].events);
            if (tok as u32 as usize) < np && tok >> 32 == 0 {
                let li = tok as usize;
                for _ in 0..256 {
                    match accept(ls[li]) {
                        Ok(Some(fd)) => {
                            generation = generation.wrapping_add(1).max(1);
                            let ix = free.pop().unwrap_or_else(|| {
                                conns.push(None);
                                conns.len() - 1
                            });
                            conns[ix] = Some(Box::new(Conn {
                                fd,
                                port: li,
                                generation,
                                rbuf: Vec::new(),
                                wbuf: Vec::new(),
                                wpos: 0,
                                out_armed: false,
                                skip: 0,
                                puback: None,
                                v5: false,
                                got_proxy: pp == Pp::None,
                                src: None,
                            }));
                            be.st[li].conns += 1;
                            be.st[li].open += 1;
                            poll.add(fd, (generation as u64) << 32 | ix as u64, IN);
                        }
                        Ok(None) => break,
                        Err(_) => break,
                    }
                }
                continue;
            }
            let ix = tok as u32 as usize;
            let Some(Some(c)) = conns.get_mut(ix) else { continue };
            if c.generation != (tok >> 32) as u32 {
                continue;
            }
            let mut dead = false;
            if ev & OUT != 0 && flush(c).is_err() {
                dead = true;
            }
            if !dead && ev & (IN | HUP) != 0 {
                match read(c.fd, &mut buf) {
                    Io::N(k) => {
                        let res = if c.rbuf.is_empty() {
                            let r = be.feed(c, &buf[..k]);
                            if let Ok(u) = r {
                                c.rbuf.extend_from_slice(&buf[u..k]);
                            }
                            r
                        } else {
                            let mut rb = std::mem::take(&mut c.rbuf);
                            rb.extend_from_slice(&buf[..k]);
                            let r = be.feed(c, &rb);
                            if let Ok(u) = r {
                                if u == rb.len() {
                                    rb.clear();
                                    if rb.capacity() > 1 << 16 {
                                        rb = Vec::new();
                                    }
                                } else if u > 0 {
                                    rb.drain(..u);
                                }
                                c.rbuf = rb;
                            }
                            r
                        };
                        dead = res.is_err() || flush(c).is_err();
                    }
                    Io::Again => {}
                    _ => dead = true,
                }
            }
            if dead {
                close(c.fd);
                be.st[c.port].open -= 1;
                conns[ix] = None;
                free.push(ix);
            } else {
                let want = c.wpos < c.wbuf.len();
                if want != c.out_armed {
                    c.out_armed = want;
                    poll.modify(c.fd, tok, if want { IN | OUT } else { IN });
                }
            }
        }
    }
    let mut per = serde_json::Map::new();
    for (i, p) in ports.iter().enumerate() {
        let s = &be.st[i];
        per.insert(
            p.to_string(),
            serde_json::json!({"conns": s.conns, "connects": s.connects, "msgs": s.msgs, "bytes": s.bytes, "proxy_ok": s.proxy_ok, "proxy_bad": s.proxy_bad, "malformed": s.malformed, "open": s.open}),
        );
    }
    let multi = be.ids.values().filter(|v| v.0.len() > 1).count();
    println!(
        "{}",
        serde_json::json!({"run": "backend", "ports": per, "client_ids": be.ids.len(), "ids_on_several_ports": multi})
    );
    let f = a.s("stats", "");
    if !f.is_empty() {
        let mut m = serde_json::Map::new();
        for (k, (v, src)) in &be.ids {
            let mut pm = serde_json::Map::new();
            for (p, n) in v {
                pm.insert(p.to_string(), (*n).into());
            }
            m.insert(String::from_utf8_lossy(k).to_string(), serde_json::json!({"ports": pm, "src": src}));
        }
        let _ = std::fs::write(f, serde_json::Value::Object(m).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_header_is_read_only_whole_and_where_it_is_asked_for() {
        let h = b"PROXY TCP4 127.0.2.7 127.0.0.1 4242 1883\r\n\x10";
        assert!(
            matches!(proxy_header(h, Pp::Any), Some(Ok((n, ref s))) if n == h.len() - 1 && s == "127.0.2.7")
        );
        assert!(proxy_header(&h[..20], Pp::V1).is_none());
        assert!(matches!(proxy_header(b"\x10\x0e\0\x04MQTT", Pp::Any), Some(Err(()))));
        assert!(matches!(proxy_header(h, Pp::V2), Some(Err(()))));
    }

    #[test]
    fn a_binary_header_is_read_only_whole_and_of_version_2() {
        let mut h = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        h.extend_from_slice(&[127, 0, 2, 9, 127, 0, 0, 1, 0x10, 0x92, 7, 0x5b]);
        assert!(matches!(proxy_header(&h, Pp::Any), Some(Ok((28, ref s))) if s == "127.0.2.9"));
        for k in 0..h.len() {
            assert!(proxy_header(&h[..k], Pp::V2).is_none());
        }
        h[12] = 0x11;
        assert!(matches!(proxy_header(&h, Pp::V2), Some(Err(()))));
    }

    #[test]
    fn a_connect_tells_its_client_id() {
        for v5 in [false, true] {
            let mut o = Vec::new();
            mqtt::connect(&mut o, b"dev-1", v5, 60, Some(b"u"));
            let (h, rem) = mqtt::head(&o).unwrap().unwrap();
            assert_eq!(h + rem, o.len());
            assert_eq!(mqtt::parse_connect(&o[h..]), Some((&b"dev-1"[..], if v5 { 5 } else { 4 })));
        }
    }
}
