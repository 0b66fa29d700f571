//! Clients whose messages come back: in a window, or at a rate where latency counts from the time a message was due.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::*;

// long: one event loop with its accounts, read from top to bottom
pub fn run(a: &Args) {
    let n = a.n("conns", 100) as usize;
    let window = a.n("window", 1) as u32;
    let size = a.n("size", 64).max(16) as usize;
    let rate = a.n("rate", 0);
    let secs = a.n("secs", 10);
    let total = if rate > 0 { rate * secs } else { a.n("msgs", 500_000) };
    let fam = family(&a.list("pid", ""));
    let mut x = new_ctx(a, n);
    let up = bring_up(&mut x, n, 64);
    if up == 0 {
        die("no connection came up");
    }
    let mut buf = vec![0u8; 256 << 10];
    let mut lat: Vec<u64> = Vec::with_capacity(total as usize);
    let v5 = x.v5;
    let payload = vec![b'x'; size];
    fn put(c: &mut Cl, v5: bool, payload: &[u8], stamp: u64) {
        let mut b = Vec::with_capacity(payload.len() + 64);
        let topic = std::mem::take(&mut c.topic);
        mqtt::publish_head(&mut b, &topic, None, v5, payload.len());
        c.topic = topic;
        let at = b.len();
        b.extend_from_slice(payload);
        b[at..at + 8].copy_from_slice(&stamp.to_le_bytes());
        c.queue(&b);
        c.inflight += 1;
    }
    let warm = total / 20;
    let (mut c0, mut o0) = (cpu_s(&fam), own_cpu());
    let mut t = now();
    let begin = now_ns(x.t0);
    let mut sent = 0u64;
    let mut got = 0u64;
    let mut warmed = rate > 0;
    if rate == 0 {
        for s in 0..n {
            if let Some(c) = x.cl[s].as_mut() {
                for _ in 0..window {
                    put(c, v5, &payload, now_ns(x.t0));
                    sent += 1;
                }
                let _ = c.flush();
            }
            x.arm(s);
        }
    }
    let mut rr = 0usize;
    let lim = now();
    let max_s = if rate > 0 { secs + 20 } else { a.n("max-secs", 60) };
    let goal = if rate > 0 { total } else { total + warm };
    while got < goal && lim.elapsed().as_secs() < max_s && !STOP.load(Ordering::Relaxed) {
        let mut to = 200_000_000u64;
        if rate > 0 && sent < total {
            let now = now_ns(x.t0) - begin;
            let due = ((now as u128 * rate as u128) / 1_000_000_000) as u64;
            let mut k = 0;
            while sent < due.min(total) && k < 2000 {
                for _ in 0..n {
                    rr = (rr + 1) % n;
                    if x.cl[rr].is_some() {
                        break;
                    }
                }
                // message k is due, and sent, at (k + 1) / rate
                let stamp = begin + (((sent + 1) as u128 * 1_000_000_000) / rate as u128) as u64;
                if let Some(c) = x.cl[rr].as_mut() {
                    put(c, v5, &payload, stamp);
                    let _ = c.flush();
                }
                x.arm(rr);
                sent += 1;
                k += 1;
            }
            let next = (((sent + 1) as u128 * 1_000_000_000) / rate as u128) as u64;
            to = next.saturating_sub(now_ns(x.t0) - begin);
        }
        let k = x.poll.wait(to);
        for i in 0..k {
            let s = x.poll.ev[i].u64 as usize;
            let ev = x.poll.ev[i].events;
            let mut bad = ev & OUT != 0 && x.on_out(s).is_err();
            let t0 = x.t0;
            if !bad
                && ev & (IN | HUP) != 0
                && let Some(c) = x.cl[s].as_mut()
            {
                loop {
                    match c.recv(&mut buf) {
                        Ok(0) => break,
                        Ok(m) => {
                            let now = now_ns(t0);
                            let mut back = 0;
                            let tl = c.topic.len();
                            let data = &buf[..m];
                            bad = frames(c, data, |t, b, _| {
                                if t >> 4 == 3 {
                                    let at = 2 + tl + v5 as usize;
                                    if let Some(st) = b.get(at..at + 8) {
                                        let mut w = [0u8; 8];
                                        w.copy_from_slice(st);
                                        lat.push(now.saturating_sub(u64::from_le_bytes(w)));
                                    }
                                    back += 1;
                                }
                            })
                            .is_err();
                            got += back;
                            c.inflight = c.inflight.saturating_sub(back as u32);
                            if rate == 0 {
                                while c.inflight < window && sent < goal + window as u64 * n as u64 {
                                    put(c, v5, &payload, now_ns(t0));
                                    sent += 1;
                                }
                            }
                            bad |= c.flush().is_err();
                            if m < buf.len() {
                                break;
                            }
                        }
                        Err(()) => {
                            bad = true;
                            break;
                        }
                    }
                    if bad {
                        break;
                    }
                }
            }
            if bad {
                x.errors += 1;
                x.close(s);
                if x.cl.iter().all(|c| c.is_none()) {
                    die("all connections broke");
                }
            } else {
                x.arm(s);
            }
        }
        if !warmed && got >= warm {
            warmed = true;
            got = warm;
            lat.clear();
            c0 = cpu_s(&fam);
            o0 = own_cpu();
            t = now();
        }
    }
    let wall = t.elapsed().as_secs_f64();
    let cpu = cpu_s(&fam) - c0;
    let own = own_cpu() - o0;
    let m_n = lat.len() as f64;
    let mut m = base(a, &x);
    m.insert("conns".into(), json!(up));
    m.insert("window".into(), json!(window));
    m.insert("size".into(), json!(size));
    m.insert("msgs".into(), json!(lat.len()));
    if rate > 0 {
        m.insert("offered_per_s".into(), json!(rate));
    }
    m.insert("echo_per_s".into(), json!(r(m_n / wall, 0)));
    m.insert("latency".into(), pct(&mut lat));
    m.insert("client_cpu_s".into(), json!(r(own, 3)));
    m.insert("wall_s".into(), json!(r(wall, 3)));
    if !fam.is_empty() {
        m.insert("lb_cpu_s".into(), json!(r(cpu, 4)));
        // one echo = two messages through the LB (one each way)
        m.insert("lb_cpu_s_per_m_msgs".into(), json!(r(cpu / (2.0 * m_n) * 1e6, 4)));
        m.insert("lb_busy".into(), json!(r(cpu / wall, 3)));
    }
    println!("{}", serde_json::Value::Object(m));
}
