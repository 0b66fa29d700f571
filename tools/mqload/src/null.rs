//! A null broker: answers CONNECT and SUBSCRIBE, looks an exact topic up in a hash map and copies
//! the PUBLISH to the matching sockets. QoS 0 only, no sessions, no wildcards, no retained messages.
//! It shows what the kernel's socket path alone allows, for two write strategies:
//! one write per target per loop turn (`batch`), or one write per message (`permsg`).

use crate::net::{self, Epoll};
use crate::proto;
use std::collections::HashMap;
use std::net::Ipv4Addr;

struct C {
    fd: i32,
    out: Vec<u8>,
    off: usize,
    carry: Vec<u8>,
    dirty: bool,
    armed: bool,
}

fn flush(ep: &Epoll, c: &mut C, key: u64) {
    while c.off < c.out.len() {
        let n = net::write(c.fd, &c.out[c.off..]);
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
            ep.modify(c.fd, key, net::IN);
        }
    } else if !c.armed {
        c.armed = true;
        ep.modify(c.fd, key, net::IN | net::OUT);
    }
}

// long: one event loop with its accounts, read from top to bottom
pub fn run(host: Ipv4Addr, port: u16, per_msg: bool, secs: f64, rbuf_kb: usize) -> Result<(), String> {
    let lfd = net::listen(host, port).map_err(|e| format!("listen: errno {e}"))?;
    let mut ep = Epoll::new();
    ep.add(lfd, u64::MAX, net::IN);
    let mut cs: Vec<C> = vec![];
    let mut topics: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
    let mut buf = vec![0u8; rbuf_kb << 10];
    let mut dirty: Vec<usize> = vec![];
    let end = net::now_ns() + (secs * 1e9) as u64;
    while net::now_ns() < end {
        let n = ep.wait(200_000_000);
        for i in 0..n {
            let ev = ep.ev[i];
            let key = ev.u64;
            if key == u64::MAX {
                while let Some(fd) = net::accept(lfd) {
                    ep.add(fd, cs.len() as u64, net::IN);
                    cs.push(C { fd, out: vec![], off: 0, carry: vec![], dirty: false, armed: false });
                }
                continue;
            }
            let k = key as usize;
            if cs[k].fd < 0 {
                continue;
            }
            if ev.events & net::OUT != 0 {
                flush(&ep, &mut cs[k], key);
            }
            if ev.events & !net::OUT == 0 {
                continue;
            }
            let pre = cs[k].carry.len();
            buf[..pre].copy_from_slice(&cs[k].carry);
            cs[k].carry.clear();
            let r = net::read(cs[k].fd, &mut buf[pre..]);
            if r == 0 || r == -2 {
                net::close(cs[k].fd);
                cs[k].fd = -1;
                for v in topics.values_mut() {
                    v.retain(|s| *s != k);
                }
                continue;
            }
            let len = pre + r.max(0) as usize;
            let mut at = 0;
            while let Some((h, whole)) = proto::frame(&buf[at..len]) {
                let p = &buf[at..at + whole];
                match p[0] >> 4 {
                    1 => {
                        cs[k].out.extend_from_slice(&[0x20, 2, 0, 0]);
                        mark(&mut cs, &mut dirty, k);
                    }
                    3 => {
                        if let Some((t, _, _)) = proto::publish_parts(p[0], &p[h..], false)
                            && let Some(subs) = topics.get(t)
                        {
                            for &s in subs {
                                cs[s].out.extend_from_slice(p);
                                if per_msg {
                                    flush(&ep, &mut cs[s], s as u64);
                                } else {
                                    mark(&mut cs, &mut dirty, s);
                                }
                            }
                        }
                    }
                    8 => {
                        let b = &p[h..];
                        let mut ack = vec![b[0], b[1]];
                        let mut j = 2;
                        while j + 2 < b.len() {
                            let l = u16::from_be_bytes([b[j], b[j + 1]]) as usize;
                            topics.entry(b[j + 2..j + 2 + l].to_vec()).or_default().push(k);
                            ack.push(0);
                            j += 3 + l;
                        }
                        cs[k].out.push(0x90);
                        proto::put_varint(&mut cs[k].out, ack.len());
                        cs[k].out.extend_from_slice(&ack);
                        mark(&mut cs, &mut dirty, k);
                    }
                    12 => {
                        cs[k].out.extend_from_slice(&[0xd0, 0]);
                        mark(&mut cs, &mut dirty, k);
                    }
                    _ => {}
                }
                at += whole;
            }
            if at < len {
                cs[k].carry.extend_from_slice(&buf[at..len]);
            }
        }
        for k in dirty.drain(..) {
            cs[k].dirty = false;
            if cs[k].fd >= 0 && !cs[k].armed {
                flush(&ep, &mut cs[k], k as u64);
            }
        }
    }
    Ok(())
}

fn mark(cs: &mut [C], dirty: &mut Vec<usize>, k: usize) {
    if !cs[k].dirty {
        cs[k].dirty = true;
        dirty.push(k);
    }
}
