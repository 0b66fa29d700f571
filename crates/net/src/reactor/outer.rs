//! Our epoll instance as one descriptor of the runtime's.
#![allow(unsafe_code)] // the runtime trusts its caller that the descriptor stays what it is

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Makes the runtime wait for events of an epoll instance.
pub(super) fn register(epoll: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and the same descriptor until it is dropped. The `AsyncFd` owns it, and nothing in
    // the crate takes it out or replaces it: only `get_ref` is used.
    let registered = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use rustix::event::epoll::{self, CreateFlags};

    use super::*;

    #[test]
    fn the_descriptor_stays_open_until_the_registration_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let registered = register(epoll::create(CreateFlags::CLOEXEC).unwrap()).unwrap();
        assert!(rustix::io::fcntl_getfd(registered.get_ref()).is_ok());
        let epoll = registered.into_inner();
        assert!(rustix::io::fcntl_getfd(&epoll).is_ok(), "given back and not closed");
    }
}
