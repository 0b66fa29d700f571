//! What a turn of the engine gives to each port.

use crate::{Arrival, EngineError, Port, Reply, Token};

/// How many arrivals of a port in a turn are nothing unusual.
const USUAL: usize = 1024;

/// Arrivals by port, in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    ports: Vec<Vec<Arrival>>,
    /// Ports whose list is not empty.
    dirty: Vec<Port>,
    answers: usize,
}

impl Outbox {
    pub(crate) fn push(&mut self, port: Port, arrival: Arrival) {
        let at = usize::from(port.0);
        if self.ports.len() <= at {
            self.ports.resize_with(at + 1, Vec::new);
        }
        let Some(list) = self.ports.get_mut(at) else { return };
        if list.is_empty() {
            self.dirty.push(port);
        }
        list.push(arrival);
    }

    /// Answers an operation that was admitted.
    pub(crate) fn answer(&mut self, port: Port, token: Token, result: Result<Reply, EngineError>) {
        self.answers += 1;
        self.push(port, Arrival::Done { token, result });
    }

    /// How many operations were answered since the last call.
    pub(crate) fn take_answers(&mut self) -> usize {
        std::mem::take(&mut self.answers)
    }

    /// Everything, one batch for each port.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (Port, Vec<Arrival>)> {
        let ports = &mut self.ports;
        self.dirty.drain(..).filter_map(|port| {
            let list = ports.get_mut(usize::from(port.0))?;
            // The next turn's batch is likely to be as long as this one; after an unusual one no memory stays behind.
            let capacity = list.len().min(USUAL);
            Some((port, std::mem::replace(list, Vec::with_capacity(capacity))))
        })
    }
}
