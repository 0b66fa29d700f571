//! The API as one connection in memory, against roles that answer from lists.

use std::net::SocketAddr;

use runtime::lifecycle::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

#[allow(dead_code)] // other tests use more of them
#[path = "../../crates/admin/src/tests/fakes.rs"]
mod fakes;

/// Turns of the runtime in which everything that can be answered is.
const TURNS: usize = 200;
/// Bytes of answers that wait in the pipe.
const PIPE: usize = 1 << 20;

thread_local! {
    static RUNTIME: Runtime = runtime();
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

/// Every answer is one of HTTP, and none is an error of ours.
pub(crate) fn check(bytes: &[u8]) {
    let answers = RUNTIME.with(|runtime| runtime.block_on(answers(bytes)));
    if answers.is_empty() {
        return;
    }
    let text = String::from_utf8_lossy(&answers);
    let status = text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("HTTP/1.0 "));
    let status = status.and_then(|rest| rest.get(..3)).and_then(|code| code.parse::<u16>().ok());
    let status = status.unwrap_or_else(|| panic!("no answer of HTTP: {text}"));
    assert!((200..500).contains(&status) || status == 503, "{text}");
    assert!(!text.contains("HTTP/1.1 500"), "{text}");
}

async fn answers(bytes: &[u8]) -> Vec<u8> {
    let (mut client, server) = tokio::io::duplex(PIPE);
    let local = SocketAddr::from(([127, 0, 0, 1], 18083));
    let roles = fakes::roles(&["car-1", "a/b"]);
    let serving = tokio::spawn(admin::serve_stream(server, local, roles, Shutdown::new()));
    // it may close before it has read everything
    let _ = client.write_all(bytes).await;
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
    let _ = client.shutdown().await;
    let mut answers = Vec::new();
    let _ = client.read_to_end(&mut answers).await;
    serving.await.expect("a connection never panics");
    answers
}
