//! Filters to receivers: a radix trie whose letters are whole levels.
//!
//! A node stands for one or more levels, so a chain without branches is one node and a device's own filter costs
//! one node however deep it is. Every node but the root has receivers or at least two branches; there are
//! therefore fewer than twice as many nodes as filters, and nothing stays behind when a filter goes.
//!
//! This file must not know locks, generations or what a hit is.

use std::hash::{BuildHasher, Hasher};

use hashbrown::DefaultHashBuilder;
use smallvec::SmallVec;

use super::arena::Arena;
use super::edges::Edges;
use super::receivers::{Crowds, End, Entry, Lists, Removed};
use super::text::{Text, follow, shared_levels, split_level};
use super::{Address, SessionKey};

const ROOT: u32 = 0;
/// No node.
const NONE: u32 = 0;

/// One line of a processor's cache: with its receiver in it, a device's filter costs one place of memory that is in no cache,
/// and the edge that leads to it another.
#[derive(Default)]
#[repr(align(64))]
struct Node {
    /// What lies between the parent and here; empty for the root only.
    text: Text,
    parent: u32,
    /// Children by a literal level.
    literals: u32,
    /// All ids of literal children, XORed: the id itself when there is one, which is all we ever ask for.
    literal_ids: u32,
    /// The child whose first level is `+`.
    plus: u32,
    /// Receivers of the filter that ends here, and of the one that ends here and goes on with `/#`.
    lists: Lists,
}

/// What a filter says, apart from its text: where its path ends and which of the two lists there is its own.
#[derive(Clone, Copy)]
struct Target<'f> {
    /// `None` is the root, for the filter `#`.
    path: Option<&'f [u8]>,
    end: End,
}

impl<'f> Target<'f> {
    fn of(filter: &'f str) -> Self {
        let filter = filter.as_bytes();
        match filter {
            b"#" => Self { path: None, end: End::Below },
            _ => match filter.strip_suffix(b"/#") {
                Some(path) => Self { path: Some(path), end: End::Below },
                None => Self { path: Some(filter), end: End::Here },
            },
        }
    }
}

/// What a change did to the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// A subscription appeared or disappeared.
    pub(super) subscription: bool,
    /// And with it, its filter.
    pub(super) filter: bool,
}

pub(super) struct Trie {
    nodes: Arena<Node>,
    crowds: Crowds,
    edges: Edges,
    hasher: DefaultHashBuilder,
}

impl Trie {
    pub(super) fn new(hasher: DefaultHashBuilder) -> Self {
        Self { nodes: Arena::new(), crowds: Crowds::new(), edges: Edges::new(), hasher }
    }

    pub(super) fn insert(&mut self, filter: &str, entry: Entry) -> Changed {
        let target = Target::of(filter);
        let node = self.reach(target.path);
        let (subscription, filter) = self.crowds.insert(&mut self.nodes[node].lists, target.end, entry);
        Changed { subscription, filter }
    }

    pub(super) fn remove(&mut self, filter: &str, session: SessionKey) -> Changed {
        let Some((node, end)) = self.find(filter) else { return Changed::default() };
        match self.crowds.remove(&mut self.nodes[node].lists, end, session) {
            Removed::Nothing => Changed::default(),
            Removed::One => Changed { subscription: true, filter: false },
            Removed::Last => {
                self.prune(node);
                Changed { subscription: true, filter: true }
            }
        }
    }

    /// True when something changed.
    pub(super) fn relocate(&mut self, filter: &str, session: SessionKey, address: Option<Address>) -> bool {
        self.find(filter).is_some_and(|(node, end)| {
            self.crowds.relocate(&mut self.nodes[node].lists, end, session, address)
        })
    }

    /// Appends the receivers of every filter that matches, list by list, each list in ascending order of
    /// session; gives how many lists there were.
    ///
    /// Whether a leading wildcard may match this topic [MQTT-4.7.2-1] is decided by the caller, who keeps such
    /// filters in a trie of their own. The work is bounded by the nodes there are: each is visited once at most.
    pub(super) fn matching(&self, topic: &str, out: &mut Vec<Entry>) -> usize {
        let mut lists = 0;
        let mut take = |node: &Node, end| lists += usize::from(self.crowds.copy(&node.lists, end, out));
        let mut walk = Walk::new();
        walk.push((ROOT, Some(topic.as_bytes())));
        while let Some((id, rest)) = walk.pop() {
            let node = &self.nodes[id];
            // `a/#` matches `a` as well, and everything below (§4.7.1.2).
            take(node, End::Below);
            let Some(rest) = rest else {
                take(node, End::Here);
                continue;
            };
            if node.plus != NONE
                && let Some(rest) = follow(self.nodes[node.plus].text.as_bytes(), rest)
            {
                walk.push((node.plus, rest));
            }
            if node.literals > 0
                && let Some(child) = self.literal(id, split_level(rest).0)
                && let Some(rest) = follow(self.nodes[child].text.as_bytes(), rest)
            {
                walk.push((child, rest));
            }
        }
        lists
    }

    /// The node at the end of `path`, made when it is not there.
    fn reach(&mut self, path: Option<&[u8]>) -> u32 {
        let (mut node, mut rest) = (ROOT, path);
        while let Some(path) = rest {
            let Some(child) = self.child(node, split_level(path).0) else {
                let leaf = self.nodes.insert(Node { text: Text::new(path), ..Node::default() });
                self.attach(node, leaf);
                return leaf;
            };
            let text = self.nodes[child].text.as_bytes();
            let shared = shared_levels(text, path);
            node = if shared == text.len() { child } else { self.split(child, shared) };
            rest = path.get(shared + 1..);
        }
        node
    }

    /// The node where this filter ends, if there is one.
    fn find(&self, filter: &str) -> Option<(u32, End)> {
        let target = Target::of(filter);
        let (mut node, mut rest) = (ROOT, target.path);
        while let Some(path) = rest {
            node = self.child(node, split_level(path).0)?;
            let after = path.strip_prefix(self.nodes[node].text.as_bytes())?;
            rest = match after.split_first() {
                None => None,
                Some((b'/', rest)) => Some(rest),
                Some(_) => return None,
            };
        }
        Some((node, target.end))
    }

    /// Puts a new node in the place of `lower`, for its first `at` bytes; `lower` keeps its id and children.
    fn split(&mut self, lower: u32, at: usize) -> u32 {
        let text = self.nodes[lower].text.as_bytes();
        let (above, below) = (Text::new(&text[..at]), Text::new(&text[at + 1..]));
        let upper = self.nodes.insert(Node { text: above, ..Node::default() });
        self.substitute(lower, upper);
        self.nodes[lower].text = below;
        self.attach(upper, lower);
        upper
    }

    /// Removes what no longer serves: a node without receivers that leads nowhere, or to one place only.
    fn prune(&mut self, from: u32) {
        let mut id = from;
        while id != ROOT {
            let Node { literals, literal_ids, plus, parent, ref lists, .. } = self.nodes[id];
            if !lists.is_empty() {
                return;
            }
            match (literals, plus) {
                (0, NONE) => {
                    self.detach(id);
                    self.nodes.remove(id);
                    id = parent;
                }
                (1, NONE) => return self.merge(id, literal_ids),
                (0, plus) => return self.merge(id, plus),
                _ => return,
            }
        }
    }

    /// Puts `lower`, the only child of `upper`, in its place.
    fn merge(&mut self, upper: u32, lower: u32) {
        self.detach(lower);
        self.substitute(upper, lower);
        self.nodes[lower].text = Text::join(&self.nodes[upper].text, &self.nodes[lower].text);
        self.nodes.remove(upper);
    }

    /// Lets the parent of `old` lead to `new` instead. Both begin, or will begin, with the same level.
    fn substitute(&mut self, old: u32, new: u32) {
        let parent = self.nodes[old].parent;
        if self.nodes[parent].plus == old {
            self.nodes[parent].plus = new;
        } else {
            let hash = self.hash(parent, self.nodes[old].text.first_level());
            self.edges.replace(hash, old, new);
            self.nodes[parent].literal_ids ^= old ^ new;
        }
        self.nodes[new].parent = parent;
    }

    fn attach(&mut self, parent: u32, child: u32) {
        self.nodes[child].parent = parent;
        if self.nodes[child].text.first_level() == b"+" {
            self.nodes[parent].plus = child;
            return;
        }
        let Self { nodes, edges, hasher, .. } = self;
        let rehash = |id| hash_edge(hasher, nodes[id].parent, nodes[id].text.first_level());
        edges.insert(rehash(child), child, rehash);
        self.nodes[parent].literals += 1;
        self.nodes[parent].literal_ids ^= child;
    }

    fn detach(&mut self, child: u32) {
        let parent = self.nodes[child].parent;
        if self.nodes[parent].plus == child {
            self.nodes[parent].plus = NONE;
            return;
        }
        let hash = self.hash(parent, self.nodes[child].text.first_level());
        self.edges.remove(hash, child);
        self.nodes[parent].literals -= 1;
        self.nodes[parent].literal_ids ^= child;
    }

    fn child(&self, parent: u32, level: &[u8]) -> Option<u32> {
        if level == b"+" {
            let plus = self.nodes[parent].plus;
            return (plus != NONE).then_some(plus);
        }
        self.literal(parent, level)
    }

    fn literal(&self, parent: u32, level: &[u8]) -> Option<u32> {
        self.edges.find(self.hash(parent, level), |id| {
            let node = &self.nodes[id];
            node.parent == parent && node.text.begins_with(level)
        })
    }

    fn hash(&self, parent: u32, level: &[u8]) -> u64 {
        hash_edge(&self.hasher, parent, level)
    }
}

/// Where a walk has yet to go: a node, and what remains of the topic after it (`None`: nothing).
type Walk<'t> = SmallVec<[(u32, Option<&'t [u8]>); 16]>;

fn hash_edge(hasher: &DefaultHashBuilder, parent: u32, level: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write_u32(parent);
    hasher.write(level);
    hasher.finish()
}

const _: () = assert!(size_of::<Node>() == 64);

#[cfg(test)]
impl Trie {
    /// Nodes, lists of receivers, and bytes they take.
    pub(super) fn census(&self) -> (usize, usize, usize) {
        let texts: usize = (0..self.nodes.used()).map(|id| self.nodes[id].text.heap_bytes()).sum();
        let filters = (0..self.nodes.used()).map(|id| self.crowds.filters(&self.nodes[id].lists)).sum();
        let bytes = self.nodes.bytes() + self.crowds.bytes() + self.edges.bytes() + texts;
        (self.nodes.len(), filters, bytes)
    }

    /// Every node is reached from its parent and serves: it has receivers, or leads to two places or more.
    pub(super) fn assert_whole(&self) {
        let mut pending = vec![ROOT];
        pending.extend(self.edges.iter());
        let by_plus: Vec<u32> =
            pending.iter().map(|&id| self.nodes[id].plus).filter(|&id| id != NONE).collect();
        let mut reached = pending.len() - 1;
        let mut plus_chain = by_plus;
        while let Some(id) = plus_chain.pop() {
            pending.push(id);
            reached += 1;
            plus_chain.extend(Some(self.nodes[id].plus).filter(|&id| id != NONE));
        }
        assert_eq!(reached, self.nodes.len(), "a node is lost or found twice");
        for id in pending.into_iter().filter(|&id| id != ROOT) {
            let node = &self.nodes[id];
            let branches = node.literals + u32::from(node.plus != NONE);
            assert!(!node.lists.is_empty() || branches >= 2, "node {id} serves nothing");
            let found = self.child(node.parent, node.text.first_level());
            assert_eq!(found, Some(id), "node {id} is not where its parent leads to");
        }
    }
}
