//! The broker beside a reference model of MQTT: the same actions for both, and every packet compared.
//!
//! [`reference`](self::reference) is the specification as a small sequential program: no workers, no log, no engine, no buffers. [`play`]
//! makes clients that do random legal and illegal things, one at a time and on simulated time, and asks after each
//! whether what every client saw is what the model says. `sim` looks for what goes wrong when everything happens at once and
//! fails; this looks for what is simply not MQTT.

mod play;
mod reference;

/// Runs of one turn; a seed is a few milliseconds.
const SEEDS: u64 = 500;

/// `TIDEGATE_SEED=<number>` runs that seed in place of the fixed ones, `TIDEGATE_SEEDS=<number>` so many in place of [`SEEDS`].
fn turn(name: &str, first: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|s| s.parse().ok());
    let seeds: Vec<u64> = match number("TIDEGATE_SEED") {
        Some(seed) => vec![seed],
        None => (first..first + number("TIDEGATE_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let fixed = seeds.len() > 1;
    let mut total = play::Score::default();
    for seed in seeds {
        match std::panic::catch_unwind(|| play::run(seed)) {
            Ok(Ok(score)) => total.add(&score),
            Ok(Err(error)) => {
                panic!(
                    "seed {seed}: {error}\nrepeat with TIDEGATE_SEED={seed} cargo nextest run -p broker {name}"
                )
            }
            Err(_) => panic!("seed {seed}: a panic, above; TIDEGATE_SEED={seed} repeats it"),
        }
    }
    println!("{name}: {total:?}");
    // a run in which little happens proves little
    assert!(!fixed || total.is_plenty(), "{total:?}");
}

macro_rules! turns {
    ($($name:ident: $first:literal;)*) => {$(
        #[test]
        fn $name() {
            turn(stringify!($name), $first);
        }
    )*};
}

// several tests, so that they run beside each other
turns! {
    sim_model_turn_1: 1_000_000;
    sim_model_turn_2: 2_000_000;
    sim_model_turn_3: 3_000_000;
    sim_model_turn_4: 4_000_000;
    sim_model_turn_5: 5_000_000;
    sim_model_turn_6: 6_000_000;
}
