//! Large payloads: bytes through a balancer.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::*;

// long: one event loop with its accounts, read from top to bottom
pub fn run(a: &Args) {
    let n = a.n("conns", 8) as usize;
    let window = a.n("window", 4) as u32;
    let size = a.n("size", 65536) as usize;
    let echo = a.has("echo");
    let total = a.n("mib", 2048) * (1 << 20) / size as u64;
    let fam = family(&a.list("pid", ""));
    let mut x = new_ctx(a, n);
    let up = bring_up(&mut x, n, 16);
    if up == 0 {
        die("no connection came up");
    }
    let v5 = x.v5;
    let payload = vec![b'y'; size];
    let mut buf = vec![0u8; 256 << 10];
    let put = |c: &mut Cl| {
        let mut b = Vec::with_capacity(size + 64);
        c.pid = c.pid.wrapping_add(1).max(1);
        let mut tp = c.topic.clone();
        if !echo {
            tp[0] = b's';
        }
        mqtt::publish_head(&mut b, &tp, if echo { None } else { Some(c.pid) }, v5, size);
        b.extend_from_slice(&payload);
        c.queue(&b);
        c.inflight += 1;
    };
    let (c0, o0) = (cpu_s(&fam), own_cpu());
    let t = now();
    let mut sent = 0u64;
    let mut got = 0u64;
    for s in 0..n {
        if let Some(c) = x.cl[s].as_mut() {
            for _ in 0..window {
                put(c);
                sent += 1;
            }
            let _ = c.flush();
        }
        x.arm(s);
    }
    while got < total && t.elapsed().as_secs() < a.n("max-secs", 60) && !STOP.load(Ordering::Relaxed) {
        let k = x.poll.wait(200_000_000);
        for i in 0..k {
            let s = x.poll.ev[i].u64 as usize;
            let ev = x.poll.ev[i].events;
            let mut bad = ev & OUT != 0 && x.on_out(s).is_err();
            if !bad
                && ev & (IN | HUP) != 0
                && let Some(c) = x.cl[s].as_mut()
            {
                match c.recv(&mut buf) {
                    Ok(m) => {
                        let mut back = 0;
                        let data = &buf[..m];
                        bad = frames(c, data, |t, _, _| {
                            if t >> 4 == 4 || t >> 4 == 3 {
                                back += 1;
                            }
                        })
                        .is_err();
                        got += back;
                        c.inflight = c.inflight.saturating_sub(back as u32);
                        while c.inflight < window && sent < total {
                            put(c);
                            sent += 1;
                        }
                        bad |= c.flush().is_err();
                    }
                    Err(()) => bad = true,
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
    }
    let wall = t.elapsed().as_secs_f64();
    let cpu = cpu_s(&fam) - c0;
    let own = own_cpu() - o0;
    // bytes that crossed the LB
    let bytes = got as f64 * size as f64 * if echo { 2.0 } else { 1.0 };
    let mut m = base(a, &x);
    m.insert("conns".into(), json!(up));
    m.insert("size".into(), json!(size));
    m.insert("echo".into(), json!(echo));
    m.insert("msgs".into(), json!(got));
    m.insert("mb_per_s".into(), json!(r(bytes / wall / 1e6, 1)));
    m.insert("client_cpu_s".into(), json!(r(own, 3)));
    m.insert("wall_s".into(), json!(r(wall, 3)));
    if !fam.is_empty() {
        m.insert("lb_cpu_s".into(), json!(r(cpu, 4)));
        m.insert("lb_cpu_s_per_gib".into(), json!(r(cpu / (bytes / (1u64 << 30) as f64), 4)));
        m.insert("lb_busy".into(), json!(r(cpu / wall, 3)));
    }
    println!("{}", serde_json::Value::Object(m));
}
