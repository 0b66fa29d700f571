//! A minimal single-thread epoll relay: what a plain read/write byte proxy costs on this machine.
//! With `--mqtt` it reads the CONNECT first and picks the backend by rendezvous hash of the client id.

use crate::account::now;
use crate::arguments::{Args, die};
use crate::mqtt;
use crate::sockets::*;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;

struct Pair {
    generation: u32,
    fd: [RawFd; 2],
    /// bytes read from side i and not yet written to side 1-i
    pend: [Vec<u8>; 2],
    armed: [u32; 2],
    half: [bool; 2],
}

fn hash(id: &[u8], salt: u64) -> u64 {
    let mut h = 0xcbf29ce484222325u64 ^ salt.wrapping_mul(0x9e3779b97f4a7c15);
    for b in id {
        h = (h ^ *b as u64).wrapping_mul(0x100000001b3);
    }
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51afd7ed558ccd);
    h ^ (h >> 33)
}

// long: one event loop with its accounts, read from top to bottom
pub fn run(a: &Args) {
    let l = listen(a.n("listen", 1884) as u16).unwrap_or_else(|e| die(&e.to_string()));
    let to: Vec<u16> = a.list("to", "18830").iter().map(|&x| x as u16).collect();
    let aware = a.has("mqtt");
    let mut buf = vec![0u8; a.n("buf", 65536) as usize];
    let mut poll = Poll::new();
    poll.add(l, u64::MAX, IN);
    let mut ps: Vec<Option<Box<Pair>>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut generation = 0u32;
    let mut rr = 0usize;
    let t0 = now();
    let tok = |g: u32, i: usize, side: usize| (g as u64) << 32 | (i as u64) << 1 | side as u64;
    while !STOP.load(Ordering::Relaxed) && t0.elapsed().as_secs() < a.n("secs", 3600) {
        let n = poll.wait(500_000_000);
        for e in 0..n {
            let (tk, ev) = (poll.ev[e].u64, poll.ev[e].events);
            if tk == u64::MAX {
                for _ in 0..256 {
                    let Ok(Some(fd)) = accept(l) else { break };
                    generation = (generation.wrapping_add(1) & 0x7fff_ffff).max(1);
                    let ix = free.pop().unwrap_or_else(|| {
                        ps.push(None);
                        ps.len() - 1
                    });
                    let mut p = Box::new(Pair {
                        generation,
                        fd: [fd, -1],
                        pend: [Vec::new(), Vec::new()],
                        armed: [IN, 0],
                        half: [false; 2],
                    });
                    if !aware {
                        rr = (rr + 1) % to.len();
                        if let Ok(b) = connect(None, ([127, 0, 0, 1], to[rr])) {
                            p.fd[1] = b;
                            p.armed[1] = IN;
                            poll.add(b, tok(generation, ix, 1), IN);
                        }
                    }
                    poll.add(fd, tok(generation, ix, 0), IN);
                    ps[ix] = Some(p);
                }
                continue;
            }
            let (ix, side) = ((tk as u32 >> 1) as usize, (tk & 1) as usize);
            let Some(Some(p)) = ps.get_mut(ix) else { continue };
            if p.generation != (tk >> 32) as u32 {
                continue;
            }
            let mut dead = false;
            if ev & (IN | HUP) != 0 {
                let o = 1 - side;
                match read(p.fd[side], &mut buf) {
                    Io::N(k) => {
                        let mut d = &buf[..k];
                        if p.fd[1] < 0 {
                            p.pend[0].extend_from_slice(d);
                            d = &[];
                            if let Some(Ok((h, rem))) = mqtt::head(&p.pend[0]) {
                                if p.pend[0].len() >= h + rem {
                                    let bd = &p.pend[0][h..h + rem];
                                    match mqtt::parse_connect(bd) {
                                        Some((id, _)) if p.pend[0][0] == 0x10 => {
                                            let mut best = (0u64, to[0]);
                                            for t in &to {
                                                let s = hash(id, *t as u64);
                                                if s >= best.0 {
                                                    best = (s, *t);
                                                }
                                            }
                                            match connect(None, ([127, 0, 0, 1], best.1)) {
                                                Ok(b) => {
                                                    p.fd[1] = b;
                                                    p.armed[1] = IN | OUT;
                                                    poll.add(b, tok(p.generation, ix, 1), IN | OUT);
                                                }
                                                Err(_) => dead = true,
                                            }
                                        }
                                        _ => dead = true,
                                    }
                                } else if rem > 65536 {
                                    dead = true;
                                }
                            }
                        }
                        if p.pend[side].is_empty() && !d.is_empty() {
                            match write(p.fd[o], d) {
                                Io::N(w) => d = &d[w..],
                                Io::Again => {}
                                _ => dead = true,
                            }
                        }
                        if !d.is_empty() {
                            p.pend[side].extend_from_slice(d);
                        }
                    }
                    Io::Again => {}
                    Io::Eof => {
                        p.half[side] = true;
                        dead = p.pend[side].is_empty() || p.fd[1] < 0;
                    }
                    Io::Err => dead = true,
                }
            }
            if !dead && ev & OUT != 0 {
                let o = 1 - side;
                if !p.pend[o].is_empty() {
                    match write(p.fd[side], &p.pend[o]) {
                        Io::N(w) => {
                            if w == p.pend[o].len() {
                                p.pend[o] = Vec::new();
                                dead = p.half[o];
                            } else {
                                p.pend[o].drain(..w);
                            }
                        }
                        Io::Again => {}
                        _ => dead = true,
                    }
                }
            }
            if dead {
                close(p.fd[0]);
                if p.fd[1] >= 0 {
                    close(p.fd[1]);
                }
                ps[ix] = None;
                free.push(ix);
                continue;
            }
            for s in 0..2 {
                if p.fd[s] < 0 {
                    continue;
                }
                let mut w = 0;
                if p.pend[s].len() < 65536 && !p.half[s] {
                    w |= IN;
                }
                if !p.pend[1 - s].is_empty() {
                    w |= OUT;
                }
                if w != p.armed[s] {
                    p.armed[s] = w;
                    poll.modify(p.fd[s], tok(p.generation, ix, s), w);
                }
            }
        }
    }
}
