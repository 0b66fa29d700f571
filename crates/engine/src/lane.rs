//! Lane: volatile frames between ports, at most once, in order, with losses told.

use crate::Port;

/// A node of the cluster, unique for the life of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// Where a lane frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// Which node.
    pub node: NodeId,
    /// Which port of it: a worker.
    pub port: Port,
}
