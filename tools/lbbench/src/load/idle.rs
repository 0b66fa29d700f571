//! Memory of a balancer for a connection that does nothing.

use serde_json::json;

use super::*;

pub fn run(a: &Args) {
    let n = a.n("conns", 8000) as usize;
    let hold = a.n("hold", 3);
    let fam = family(&a.list("pid", ""));
    let mut x = new_ctx(a, n);
    let (p0, r0) = mem_kib(&fam);
    let (k0, s0) = (tcp_mem_kib(), slab_kib());
    let cs = cpu_s(&fam);
    let up = bring_up(&mut x, n, 64);
    std::thread::sleep(std::time::Duration::from_secs(hold));
    let (p1, r1) = mem_kib(&fam);
    let (k1, s1) = (tcp_mem_kib(), slab_kib());
    let ce = cpu_s(&fam);
    // idle burn with nothing to do
    std::thread::sleep(std::time::Duration::from_secs(2));
    let burn = (cpu_s(&fam) - ce) / 2.0;
    let per = |a: u64, b: u64| r((b as f64 - a as f64) / up.max(1) as f64, 3);
    let mut m = base(a, &x);
    m.insert("conns".into(), json!(up));
    m.insert("lb_pss_kib_before".into(), json!(p0));
    m.insert("lb_pss_kib_after".into(), json!(p1));
    m.insert("pss_kib_per_conn".into(), json!(per(p0, p1)));
    m.insert("rss_kib_per_conn".into(), json!(per(r0, r1)));
    m.insert("machine_tcp_mem_kib_per_conn".into(), json!(per(k0, k1)));
    m.insert("machine_slab_kib_per_conn".into(), json!(per(s0, s1)));
    m.insert("lb_cpu_s_bring_up".into(), json!(r(ce - cs, 4)));
    m.insert("lb_idle_cpu_share".into(), json!(r(burn, 5)));
    println!("{}", serde_json::Value::Object(m));
}
