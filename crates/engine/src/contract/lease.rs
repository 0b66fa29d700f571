//! Behaviours of leases and fences.

#![allow(missing_docs, reason = "a behaviour is said by its name")]

use super::{LONG, Make, Probe, SHORT, Setup, id, key};
use crate::{EngineError, Epoch, Fence, Key, Op, Pos, Reply, Shard, Write};

const S: Shard = Shard(0);

fn fence(lease: &Key, epoch: Epoch) -> Option<Fence> {
    Some(Fence { lease: lease.clone(), epoch })
}

fn append(n: u64, fence: Option<Fence>) -> Op {
    Op::Append { shard: S, frame: "fenced".into(), id: id(1, n), fence }
}

fn fenced<T>(current: Epoch) -> Result<T, EngineError> {
    Err(EngineError::Fenced { current })
}

pub fn a_lease_has_one_holder(make: Make) {
    let engine = make(Setup::default());
    let probes = [Probe::new(&engine), Probe::new(&engine)];
    let lease = key("lease");
    let epoch = probes[0].acquire(&lease, 1, LONG).expect("it is free");
    assert!(epoch > Epoch(0));
    assert_eq!(probes[1].acquire(&lease, 2, LONG), fenced(epoch));
    assert_eq!(probes[0].acquire(&lease, 2, LONG), fenced(epoch), "the holder counts, not the port");
    assert!(probes[1].acquire(&key("another"), 2, LONG).is_ok());
}

/// A witness with twice the time that is not renewed says when enough has passed.
pub fn a_renewal_keeps_the_epoch_and_outlives_the_first_ttl(make: Make) {
    let engine = make(Setup::default());
    let probe = Probe::new(&engine);
    let (lease, witness) = (key("lease"), key("witness"));
    probe.acquire(&witness, 1, 2 * SHORT).expect("it is free");
    let epoch = probe.acquire(&lease, 1, SHORT).expect("it is free");
    while !probe.lost_within(&witness, SHORT / 10) {
        assert_eq!(probe.acquire(&lease, 1, 4 * SHORT), Ok(epoch));
    }
    assert_eq!(Probe::new(&engine).acquire(&lease, 2, LONG), fenced(epoch));
    probe.lost(&lease);
}

pub fn a_lease_runs_out_its_holder_is_told_and_the_next_epoch_is_higher(make: Make) {
    let engine = make(Setup::default());
    let (holder, next) = (Probe::new(&engine), Probe::new(&engine));
    let lease = key("lease");
    let first = holder.acquire(&lease, 1, SHORT).expect("it is free");
    holder.lost(&lease);
    let second = next.acquire(&lease, 2, LONG).expect("it ran out");
    assert!(second > first, "{second:?} after {first:?}");
    assert_eq!(holder.acquire(&lease, 1, LONG), fenced(second));
    assert!(!next.lost_within(&lease, SHORT / 10), "only the former holder was told");
}

pub fn a_released_lease_can_be_taken_with_a_higher_epoch(make: Make) {
    let engine = make(Setup::default());
    let probes = [Probe::new(&engine), Probe::new(&engine)];
    let lease = key("lease");
    let mut last = Epoch(0);
    for round in 0..10 {
        let holder = round % 3;
        let epoch = probes[usize::from(round % 2 == 0)].acquire(&lease, holder, LONG).expect("it is free");
        assert!(epoch > last, "{epoch:?} after {last:?}");
        last = epoch;
        probes[0].release(&lease, holder);
    }
    probes[0].release(&lease, 1);
}

pub fn a_release_by_a_stranger_has_no_effect(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    let lease = key("lease");
    let epoch = probe.acquire(&lease, 1, LONG).expect("it is free");
    probe.release(&lease, 2);
    assert_eq!(probe.acquire(&lease, 2, LONG), fenced(epoch));
    assert_eq!(probe.acquire(&lease, 1, LONG), Ok(epoch));
}

pub fn a_held_fence_lets_appends_and_writes_pass(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    let (lease, k) = (key("lease"), key("k"));
    let epoch = probe.acquire(&lease, 1, LONG).expect("it is free");
    assert_eq!(probe.settle(&append(1, fence(&lease, epoch))), Ok(Reply::Appended { seq: 1 }));
    let write = Write { fence: fence(&lease, epoch), ..Write::put(k.clone(), "fenced") };
    assert!(probe.put(&[write]).is_ok());
    assert_eq!(probe.get(&k).map(|r| r.value), Some("fenced".into()));
}

pub fn an_append_with_a_lost_fence_has_no_effect(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    let lease = key("lease");
    assert!(matches!(probe.settle(&append(0, fence(&lease, Epoch(1)))), Err(EngineError::Fenced { .. })));
    let first = probe.acquire(&lease, 1, LONG).expect("it is free");
    probe.release(&lease, 1);
    assert!(matches!(probe.settle(&append(1, fence(&lease, first))), Err(EngineError::Fenced { .. })));
    let second = probe.acquire(&lease, 2, LONG).expect("it is free");
    assert_eq!(probe.settle(&append(2, fence(&lease, first))), fenced(second));
    assert_eq!(probe.head(S), Pos::START);
    assert_eq!(probe.settle(&append(2, fence(&lease, second))), Ok(Reply::Appended { seq: 1 }));
}

pub fn a_batch_with_a_lost_fence_has_no_effect(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    let (lease, a, b) = (key("lease"), key("a"), key("b"));
    let first = probe.acquire(&lease, 1, LONG).expect("it is free");
    probe.release(&lease, 1);
    let second = probe.acquire(&lease, 2, LONG).expect("it is free");
    let batch = |epoch| {
        let fenced = Write { fence: fence(&lease, epoch), ..Write::put(b.clone(), "new") };
        vec![Write::put(a.clone(), "new"), fenced]
    };
    assert_eq!(probe.put(&batch(first)), fenced(second));
    assert_eq!((probe.get(&a), probe.get(&b)), (None, None));
    assert!(probe.put(&batch(second)).is_ok());
}

pub fn a_fence_is_lost_when_the_lease_runs_out(make: Make) {
    let probe = Probe::new(&make(Setup::default()));
    let (lease, k) = (key("lease"), key("k"));
    let epoch = probe.acquire(&lease, 1, SHORT).expect("it is free");
    probe.lost(&lease);
    assert!(matches!(probe.settle(&append(1, fence(&lease, epoch))), Err(EngineError::Fenced { .. })));
    let write = Write { fence: fence(&lease, epoch), ..Write::put(k.clone(), "late") };
    assert!(matches!(probe.put(&[write]), Err(EngineError::Fenced { .. })));
    assert_eq!((probe.head(S), probe.get(&k)), (Pos::START, None));
}
