//! Clients that connect, get their CONNACK and go, as fast as they can.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::*;

pub fn run(a: &Args) {
    let total = a.n("conns", 20000);
    let conc = a.n("conc", 32) as usize;
    let fam = family(&a.list("pid", ""));
    let mut x = new_ctx(a, conc);
    let mut buf = vec![0u8; 64 << 10];
    let mut lat: Vec<u64> = Vec::with_capacity(total as usize);
    let (c0, o0) = (cpu_s(&fam), own_cpu());
    let t = now();
    for s in 0..conc.min(total as usize) {
        x.open(s);
    }
    let bye = [0xe0u8, 0];
    while (lat.len() as u64 + x.errors) < total
        && t.elapsed().as_secs() < a.n("secs", 60)
        && !STOP.load(Ordering::Relaxed)
    {
        let k = x.poll.wait(200_000_000);
        for i in 0..k {
            let s = x.poll.ev[i].u64 as usize;
            let ev = x.poll.ev[i].events;
            let mut bad = ev & OUT != 0 && x.on_out(s).is_err();
            let mut done = false;
            if !bad
                && ev & (IN | HUP) != 0
                && let Some(c) = x.cl[s].as_mut()
            {
                match c.recv(&mut buf) {
                    Ok(m) => {
                        let data = &buf[..m];
                        bad = frames(c, data, |t, _, _| done |= t >> 4 == 2).is_err() || c.flush().is_err();
                    }
                    Err(()) => bad = true,
                }
            }
            if done {
                if let Some(c) = x.cl[s].as_mut() {
                    lat.push(now_ns(x.t0) - c.t);
                    c.queue(&bye);
                    let _ = c.flush();
                }
            } else if bad {
                x.errors += 1;
            }
            if done || bad {
                x.close(s);
                if x.seq < total {
                    x.open(s);
                }
            } else {
                x.arm(s);
            }
        }
    }
    let wall = t.elapsed().as_secs_f64();
    let own = own_cpu() - o0;
    std::thread::sleep(std::time::Duration::from_millis(150));
    let cpu = cpu_s(&fam) - c0;
    let n = lat.len() as f64;
    let mut m = base(a, &x);
    m.insert("conns".into(), json!(lat.len()));
    m.insert("conn_per_s".into(), json!(r(n / wall, 0)));
    m.insert("latency".into(), pct(&mut lat));
    m.insert("client_cpu_s".into(), json!(r(own, 3)));
    m.insert("wall_s".into(), json!(r(wall, 3)));
    if !fam.is_empty() {
        m.insert("lb_cpu_s".into(), json!(r(cpu, 4)));
        m.insert("lb_cpu_s_per_10k".into(), json!(r(cpu / n * 1e4, 4)));
        m.insert("conns_per_lb_cpu_s".into(), json!(r(n / cpu, 0)));
        m.insert("lb_busy".into(), json!(r(cpu / wall, 3)));
    }
    println!("{}", serde_json::Value::Object(m));
}
