use std::rc::Rc;

use super::*;

const WAIT: Duration = Duration::from_secs(20);

fn workers(count: usize) -> Workers {
    Workers::start(count, Clock::system()).unwrap()
}

/// Runs on that worker and waits for the result.
fn ask<T: Send + 'static, F: Future<Output = T> + 'static>(
    workers: &Workers,
    worker: WorkerId,
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<T, oneshot::error::RecvError> {
    let answer = workers.run(worker, make);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(WAIT, answer).await.expect("no answer in time") })
}

#[test]
fn each_worker_is_a_named_thread_that_knows_its_number() {
    let workers = workers(3);
    assert_eq!(workers.len(), 3);
    assert_eq!(WorkerId::current(), None);
    for id in workers.ids() {
        let seen = ask(&workers, id, move || async {
            (thread::current().name().map(str::to_owned), WorkerId::current())
        });
        assert_eq!(seen.unwrap(), (Some(format!("worker-{id}")), Some(id)));
    }
}

#[test]
fn there_is_always_one_worker() {
    assert_eq!(workers(0).len(), 1);
}

#[test]
fn a_future_on_a_worker_needs_not_be_send() {
    let workers = workers(1);
    let sum = ask(&workers, WorkerId(0), || {
        let shared = Rc::new(Cell::new(1));
        async move {
            let other = Rc::clone(&shared);
            tokio::task::spawn_local(async move { other.set(other.get() + 1) }).await.unwrap();
            shared.get()
        }
    });
    assert_eq!(sum, Ok(2));
}

#[test]
fn timers_and_sockets_work_on_a_worker() {
    let workers = workers(1);
    let bytes = ask(&workers, WorkerId(0), || async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let timer = tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>());
        timer.await.unwrap_err();
        client.write_all(b"hello").await.unwrap();
        drop(client);
        let mut bytes = Vec::new();
        server.read_to_end(&mut bytes).await.unwrap();
        bytes
    });
    assert_eq!(bytes.unwrap(), b"hello");
}

#[test]
fn a_panic_ends_its_own_future_only() {
    let workers = workers(1);
    let (alive, mut ticks) = tokio::sync::mpsc::channel(1);
    workers.spawn(WorkerId(0), move || async move { while alive.send(()).await.is_ok() {} });
    assert!(ask::<(), _>(&workers, WorkerId(0), || async { panic!("in the future") }).is_err());
    let in_the_closure = || -> std::future::Ready<()> { panic!("in the closure") };
    assert!(ask(&workers, WorkerId(0), in_the_closure).is_err());
    workers.spawn(WorkerId(0), in_the_closure);
    for _ in 0..10 {
        ticks.blocking_recv().unwrap();
    }
    assert_eq!(ask(&workers, WorkerId(0), || async { 1 }), Ok(1));
    drop(ticks);
}

#[test]
fn stop_drops_the_futures_on_their_thread_and_joins_it() {
    struct Witness(SyncSender<Option<WorkerId>>);
    impl Drop for Witness {
        fn drop(&mut self) {
            // A future may still need its runtime's timer and sockets while it is dropped.
            let _ = tokio::runtime::Handle::current();
            self.0.send(WorkerId::current()).unwrap();
        }
    }
    let workers = workers(2);
    let (dropped, drops) = sync_channel(2);
    for id in workers.ids() {
        let witness = Witness(dropped.clone());
        ask(&workers, id, move || async move {
            tokio::task::spawn_local(async move {
                let _witness = witness;
                std::future::pending::<()>().await;
            });
        })
        .unwrap();
    }
    assert!(workers.stop());
    let mut seen: Vec<_> = drops.try_iter().flatten().collect();
    seen.sort_unstable();
    assert_eq!(seen, [WorkerId(0), WorkerId(1)], "both before stop returned");
    assert!(workers.stop(), "a second stop does nothing");
}

#[test]
fn after_stop_a_job_is_dropped_and_its_asker_hears_of_it() {
    let workers = workers(1);
    assert!(workers.stop());
    assert!(ask(&workers, WorkerId(0), || async { 1 }).is_err());
    assert!(ask(&workers, WorkerId(9), || async { 1 }).is_err());
}

#[test]
fn the_last_handle_may_be_dropped_by_a_worker_which_does_not_wait_for_itself() {
    let (clock, workers) = (Clock::system(), workers(2));
    let (done, finished) = sync_channel(1);
    let (dropped, alone) = oneshot::channel::<()>();
    let own = workers.clone();
    workers.spawn(WorkerId(0), move || async move {
        let _ = alone.await;
        let start = own.clock().now();
        drop(own);
        done.send(start).unwrap();
    });
    drop(workers);
    dropped.send(()).unwrap();
    let start = finished.recv_timeout(WAIT).unwrap();
    assert!(clock.now() - start < STOP_WAIT, "it waited for its own end");
}

#[test]
fn a_worker_that_blocks_does_not_hold_stop_for_ever() {
    let workers = workers(1);
    let (release, blocked) = sync_channel::<()>(0);
    let (entered, inside) = sync_channel(1);
    workers.spawn(WorkerId(0), move || async move {
        entered.send(()).unwrap();
        let _ = blocked.recv(); // a bug in some role: it holds the thread
    });
    inside.recv_timeout(WAIT).unwrap();
    assert!(!workers.stop_within(Duration::from_millis(10)));
    drop(release);
}
