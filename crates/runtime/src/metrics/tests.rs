use proptest::prelude::*;

use super::*;

const BYTES: Desc = Desc::counter("tidegate_test_bytes_total", "Bytes.", &["listener"]);
const OPEN: Desc = Desc::gauge("tidegate_test_open", "Open \\ now,\nper worker.", &[]);

struct Two {
    bytes: PerWorker<Counter>,
    open: PerWorker<Gauge>,
}

impl Collect for Two {
    fn collect(&self, out: &mut Exposition) {
        for counter in self.bytes.iter() {
            out.sample(&BYTES, &["tcp"], counter.get() as f64);
        }
        out.sample(&BYTES, &["we\"ird\\\n"], 1.0);
        out.sample(&OPEN, &[], self.open.sum_gauge(|gauge| gauge) as f64);
    }
}

#[test]
fn the_text_groups_sums_and_escapes() {
    let two = Two { bytes: PerWorker::new(2, Counter::new), open: PerWorker::new(2, Gauge::new) };
    two.bytes.get(WorkerId(0)).unwrap().add(3);
    two.bytes.get(WorkerId(1)).unwrap().inc();
    two.open.get(WorkerId(1)).unwrap().inc();
    two.open.get(WorkerId(0)).unwrap().dec();
    two.open.get(WorkerId(0)).unwrap().add(-1);
    let registry = Registry::new();
    registry.register(Arc::new(two));
    assert_eq!(
        registry.render(),
        "# HELP tidegate_test_bytes_total Bytes.\n\
         # TYPE tidegate_test_bytes_total counter\n\
         tidegate_test_bytes_total{listener=\"tcp\"} 4\n\
         tidegate_test_bytes_total{listener=\"we\\\"ird\\\\\\n\"} 1\n\
         # HELP tidegate_test_open Open \\\\ now,\\nper worker.\n\
         # TYPE tidegate_test_open gauge\n\
         tidegate_test_open -1\n"
    );
}

#[test]
fn two_collectors_of_one_metric_share_its_header() {
    struct One(&'static str);
    impl Collect for One {
        fn collect(&self, out: &mut Exposition) {
            out.sample(&BYTES, &[self.0], 0.5);
        }
    }
    let registry = Registry::new();
    let other = registry.clone();
    registry.register(Arc::new(One("b")));
    other.register(Arc::new(One("a")));
    let text = registry.render();
    assert_eq!(text.matches("# TYPE").count(), 1);
    assert!(
        text.ends_with("{listener=\"a\"} 0.5\ntidegate_test_bytes_total{listener=\"b\"} 0.5\n"),
        "{text}"
    );
}

#[test]
fn numbers_without_a_decimal_form_have_their_names() {
    let mut out = Exposition::new();
    for (label, number) in
        [("nan", f64::NAN), ("up", f64::INFINITY), ("down", f64::NEG_INFINITY), ("big", 1e21)]
    {
        out.sample(&BYTES, &[label], number);
    }
    let text = out.finish();
    for line in ["\"nan\"} NaN", "\"up\"} +Inf", "\"down\"} -Inf", "\"big\"} 1000000000000000000000"] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn values_of_workers_are_on_lines_of_their_own() {
    let counters = PerWorker::new(4, Counter::new);
    let addresses: Vec<usize> = counters.iter().map(|counter| std::ptr::from_ref(counter).addr()).collect();
    for pair in addresses.windows(2) {
        assert!(pair[1] - pair[0] >= 128);
        assert_eq!(pair[0] % 128, 0);
    }
    assert!(counters.get(WorkerId(4)).is_none());
    assert_eq!(PerWorker::new(0, Counter::new).iter().count(), 1);
}

#[test]
fn a_gauge_may_be_set() {
    let gauge = Gauge::new();
    gauge.dec();
    assert_eq!(gauge.get(), -1);
    gauge.set(5);
    assert_eq!(gauge.get(), 5);
}

/// Reads a label value as a scraper does.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        out.push(match character {
            '\\' => match characters.next()? {
                'n' => '\n',
                other @ ('\\' | '"') => other,
                _ => return None,
            },
            '"' | '\n' => return None,
            other => other,
        });
    }
    Some(out)
}

proptest! {
    #[test]
    fn any_label_value_can_be_read_back(value: String) {
        let mut out = Exposition::new();
        out.sample(&BYTES, &[&value], 1.0);
        let text = out.finish();
        let written = text.rsplit_once("# TYPE tidegate_test_bytes_total counter\n").unwrap().1;
        let inside = written.strip_prefix("tidegate_test_bytes_total{listener=\"").unwrap().strip_suffix("\"} 1\n").unwrap();
        prop_assert_eq!(unescape(inside), Some(value));
    }
}
