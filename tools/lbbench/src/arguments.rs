//! What the command line says. Ends the program with a line where it says what cannot be.

use std::collections::HashMap;

/// `--key value` pairs; a key followed by another key (or nothing) is a flag.
pub struct Args(HashMap<String, String>);

impl Args {
    pub fn parse(v: &[String]) -> Args {
        let mut m = HashMap::new();
        let mut i = 0;
        while i < v.len() {
            let k = v[i].trim_start_matches("--").to_string();
            if i + 1 < v.len() && !v[i + 1].starts_with("--") {
                m.insert(k, v[i + 1].clone());
                i += 2;
            } else {
                m.insert(k, "1".into());
                i += 1;
            }
        }
        Args(m)
    }
    pub fn s(&self, k: &str, d: &str) -> String {
        self.0.get(k).cloned().unwrap_or_else(|| d.to_string())
    }
    pub fn n(&self, k: &str, d: u64) -> u64 {
        match self.0.get(k) {
            Some(v) => v.parse().unwrap_or_else(|_| die(&format!("--{k}: not a number"))),
            None => d,
        }
    }
    pub fn has(&self, k: &str) -> bool {
        self.0.contains_key(k)
    }
    pub fn list(&self, k: &str, d: &str) -> Vec<u64> {
        self.s(k, d).split(',').filter(|x| !x.is_empty()).filter_map(|x| x.trim().parse().ok()).collect()
    }
}

pub fn die(m: &str) -> ! {
    eprintln!("lbbench: {m}");
    std::process::exit(2)
}

pub fn addr(s: &str) -> ([u8; 4], u16) {
    let (h, p) = s.rsplit_once(':').unwrap_or(("127.0.0.1", s));
    let ip: std::net::Ipv4Addr =
        h.parse().unwrap_or_else(|_| die("address must be an IPv4 loopback address"));
    if !ip.is_loopback() {
        die("loopback only");
    }
    (ip.octets(), p.parse().unwrap_or_else(|_| die("bad port")))
}
