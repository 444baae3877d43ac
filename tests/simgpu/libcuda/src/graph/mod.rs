//! Graphs as the process keeps them: nodes with what they do, and what each comes after.
//!
//! Read [`Work`] (what a node does), [`Body`] (nodes and edges), [`Graph`] and [`Executable`], [`plan`] (which nodes of a
//! launch go into which stream), [`run`] (handing them in), [`memory`] (what allocation nodes hold).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use headgate_abi::cuda::types::{
    CUDA_MEMSET_NODE_PARAMS, CUgraphEdgeData, CUresult, CUstreamBatchMemOpParams,
};
use headgate_simgpu::protocol::{Command, Launch};

use crate::driver::Driver;
use crate::objects::{Event, lock};

pub(crate) mod memory;
pub(crate) mod plan;
pub(crate) mod run;

use memory::NodeMemory;

/// A launch as a node of a graph keeps it.
#[derive(Clone, Debug)]
pub(crate) struct KernelNode {
    /// Handle of the function.
    pub(crate) function: usize,
    /// Context of the function's module.
    pub(crate) context: usize,
    pub(crate) launch: Launch,
    pub(crate) priority: i32,
    /// Where each parameter lies, in the launch's parameter block, which does not change.
    pub(crate) pointers: Vec<usize>,
    /// Offsets of the parameters in the block.
    pub(crate) offsets: Vec<u32>,
}

impl KernelNode {
    /// Points to its own parameters, after it was made or copied.
    pub(crate) fn renewed(mut self) -> Self {
        let block = self.launch.params.as_ptr().expose_provenance();
        self.pointers = self.offsets.iter().map(|&offset| block + offset as usize).collect();
        self
    }
}

/// What a node does. What a program may ask back is kept as it was told.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Kernel(Arc<KernelNode>),
    /// The bytes of a `CUDA_MEMCPY3D`, none for a copy that was captured.
    Copy {
        commands: Vec<Command>,
        told: Arc<[u8]>,
    },
    Fill {
        command: Command,
        told: CUDA_MEMSET_NODE_PARAMS,
    },
    /// `told` is empty for operations that were captured.
    MemoryOperations {
        commands: Vec<Command>,
        told: Arc<[CUstreamBatchMemOpParams]>,
    },
    Host {
        call: usize,
        data: usize,
    },
    Child(Arc<Graph>),
    Empty,
    Wait {
        handle: usize,
        event: Arc<Event>,
    },
    Record {
        handle: usize,
        event: Arc<Event>,
    },
    Allocate(Arc<NodeMemory>),
    Free(Arc<NodeMemory>),
}

impl Work {
    /// `CUgraphNodeType`.
    pub(crate) fn kind(&self) -> u32 {
        match self {
            Self::Kernel(_) => 0,
            Self::Copy { .. } => 1,
            Self::Fill { .. } => 2,
            Self::Host { .. } => 3,
            Self::Child(_) => 4,
            Self::Empty => 5,
            Self::Wait { .. } => 6,
            Self::Record { .. } => 7,
            Self::Allocate(_) => 10,
            Self::Free(_) => 11,
            Self::MemoryOperations { .. } => 12,
        }
    }

    /// Whether a graph with such a node is bound by the rules of `cuGraphAddMemAllocNode`: no copies of it, one
    /// executable at a time, nothing taken out.
    fn is_memory(&self) -> bool {
        matches!(self, Self::Allocate(_) | Self::Free(_))
    }
}

/// The ports and the kind of an edge, as in `CUgraphEdgeData`. The ordinary edge is all zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Edge {
    from_port: u8,
    to_port: u8,
    kind: u8,
}

impl Edge {
    /// An edge as a program describes it. Programmatic ones order their ends like ordinary ones here.
    pub(crate) fn parse(data: CUgraphEdgeData) -> Result<Self, CUresult> {
        if data.reserved != [0; 5] || data.kind > 1 || data.from_port > 2 || data.to_port != 0 {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        Ok(Self { from_port: data.from_port, to_port: data.to_port, kind: data.kind })
    }

    pub(crate) fn data(self) -> CUgraphEdgeData {
        CUgraphEdgeData {
            from_port: self.from_port,
            to_port: self.to_port,
            kind: self.kind,
            reserved: [0; 5],
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) work: Work,
    pub(crate) after: BTreeMap<usize, Edge>,
    /// `cuGraphNodeSetEnabled`: a node that is not does nothing.
    pub(crate) enabled: bool,
}

impl Node {
    pub(crate) fn new(work: Work, after: BTreeMap<usize, Edge>) -> Self {
        Self { work, after, enabled: true }
    }
}

/// Nodes by handle, which is the order they were made in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub(crate) nodes: BTreeMap<usize, Node>,
}

impl Body {
    /// An order in which every node comes after those it depends on, as early as it may. `None` when there is none.
    pub(crate) fn order(&self) -> Option<Vec<usize>> {
        let mut missing: BTreeMap<usize, usize> =
            self.nodes.iter().map(|(&handle, node)| (handle, node.after.len())).collect();
        let mut next: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (&handle, node) in &self.nodes {
            for &before in node.after.keys() {
                next.entry(before).or_default().push(handle);
            }
        }
        let roots = missing.iter().filter(|(_, missing)| **missing == 0).map(|(&handle, _)| handle);
        let mut ready: VecDeque<usize> = roots.collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(handle) = ready.pop_front() {
            order.push(handle);
            for after in next.get(&handle).into_iter().flatten() {
                if let Some(missing) = missing.get_mut(after) {
                    *missing -= 1;
                    if *missing == 0 {
                        ready.push_back(*after);
                    }
                }
            }
        }
        (order.len() == self.nodes.len()).then_some(order)
    }

    /// All nodes that some nodes come after, those included.
    pub(crate) fn ancestors(&self, of: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut left: Vec<usize> = of.iter().copied().collect();
        while let Some(handle) = left.pop() {
            if found.insert(handle)
                && let Some(node) = self.nodes.get(&handle)
            {
                left.extend(node.after.keys());
            }
        }
        found
    }

    /// Allocation nodes, those of child graphs included.
    pub(crate) fn allocations(&self) -> Vec<Arc<NodeMemory>> {
        self.nodes
            .values()
            .flat_map(|node| match &node.work {
                Work::Allocate(memory) => vec![Arc::clone(memory)],
                Work::Child(child) => lock(&child.body).allocations(),
                _ => Vec::new(),
            })
            .collect()
    }

    /// Whether it, or a graph in it, has memory nodes.
    pub(crate) fn has_memory(&self) -> bool {
        self.nodes.values().any(|node| match &node.work {
            Work::Child(child) => lock(&child.body).has_memory(),
            work => work.is_memory(),
        })
    }

    /// Whether it has memory nodes itself.
    pub(crate) fn owns_memory(&self) -> bool {
        self.nodes.values().any(|node| node.work.is_memory())
    }

    /// Adds an edge. One that is there already is an error.
    pub(crate) fn depend(&mut self, node: usize, on: usize, edge: Edge) -> Result<(), CUresult> {
        if !self.nodes.contains_key(&on) || node == on {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        let known = self.nodes.get_mut(&node).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        match known.after.insert(on, edge) {
            None => Ok(()),
            Some(_) => Err(CUresult::ERROR_INVALID_VALUE),
        }
    }

    /// A copy that shares nothing that can change. Nodes keep their handles, by which an executable graph is asked.
    pub(crate) fn snapshot(&self) -> Self {
        let mut copy = self.clone();
        for node in copy.nodes.values_mut() {
            if let Work::Child(child) = &node.work {
                let body = lock(&child.body).snapshot();
                node.work = Work::Child(Arc::new(Graph::of(child.handle, body)));
            }
        }
        copy
    }

    /// A copy whose nodes have handles of their own, and which of them stands for which.
    pub(crate) fn renamed(&self, driver: &Driver, graph: &Arc<Graph>) -> (Self, BTreeMap<usize, usize>) {
        let names: BTreeMap<usize, usize> =
            self.nodes.keys().map(|&node| (node, driver.graph_nodes.reserve())).collect();
        let rename = |node: &usize| names.get(node).copied().unwrap_or(*node);
        let mut copy = Self::default();
        for (old, node) in &self.nodes {
            let work = match &node.work {
                Work::Child(child) => Work::Child(Graph::copied(driver, child)),
                work => work.clone(),
            };
            driver.graph_nodes.insert(rename(old), Arc::clone(graph));
            let after = node.after.iter().map(|(before, &edge)| (rename(before), edge)).collect();
            copy.nodes.insert(rename(old), Node { work, after, enabled: node.enabled });
        }
        (copy, names)
    }

    /// A node, in it or in a graph in it.
    pub(crate) fn change<T>(&mut self, handle: usize, work: impl FnOnce(&mut Node) -> T) -> Option<T> {
        if let Some(node) = self.nodes.get_mut(&handle) {
            return Some(work(node));
        }
        let children = self.nodes.values().filter_map(|node| match &node.work {
            Work::Child(child) => Some(Arc::clone(child)),
            _ => None,
        });
        let inside = children.into_iter().find(|child| lock(&child.body).knows(handle))?;
        lock(&inside.body).change(handle, work)
    }

    fn knows(&self, handle: usize) -> bool {
        self.nodes.contains_key(&handle)
            || self.nodes.values().any(|node| match &node.work {
                Work::Child(child) => lock(&child.body).knows(handle),
                _ => false,
            })
    }
}

/// A graph under construction.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub(crate) handle: usize,
    pub(crate) body: Mutex<Body>,
    /// It belongs to a node of another graph, and ends with it.
    pub(crate) is_child: AtomicBool,
    /// A stream is being captured into it: nothing of it may be taken out.
    pub(crate) is_captured_to: AtomicBool,
    /// Nodes of the graph it was cloned from, and what they are here.
    pub(crate) originals: Mutex<BTreeMap<usize, usize>>,
    /// What it was last made ready as.
    pub(crate) ready: Mutex<Weak<Executable>>,
}

impl Graph {
    pub(crate) fn of(handle: usize, body: Body) -> Self {
        Self { handle, body: Mutex::new(body), ..Self::default() }
    }

    /// A child graph: a copy of a graph as it is now, with a handle of its own.
    pub(crate) fn copied(driver: &Driver, graph: &Self) -> Arc<Self> {
        let copy = Self::cloned(driver, graph);
        copy.is_child.store(true, Ordering::Relaxed);
        copy
    }

    /// A copy of a graph as it is now, entered into the books.
    pub(crate) fn cloned(driver: &Driver, graph: &Self) -> Arc<Self> {
        let copy = Arc::new(Self::of(driver.graphs.reserve(), Body::default()));
        let (body, names) = lock(&graph.body).renamed(driver, &copy);
        *lock(&copy.body) = body;
        *lock(&copy.originals) = names;
        driver.graphs.insert(copy.handle, Arc::clone(&copy));
        copy
    }

    /// Whether a graph of this handle is in it.
    pub(crate) fn contains(&self, handle: usize) -> bool {
        lock(&self.body).nodes.values().any(|node| match &node.work {
            Work::Child(child) => child.handle == handle || child.contains(handle),
            _ => false,
        })
    }

    /// Takes it, its nodes and the graphs in it out of the books.
    pub(crate) fn forget(&self, driver: &Driver) {
        driver.graphs.remove(self.handle);
        let nodes = std::mem::take(&mut lock(&self.body).nodes);
        for (handle, node) in nodes {
            driver.graph_nodes.remove(handle);
            if let Work::Child(child) = node.work {
                child.forget(driver);
            }
        }
    }
}

/// A graph made ready to launch.
#[derive(Debug)]
pub(crate) struct Executable {
    pub(crate) body: Mutex<Body>,
    pub(crate) flags: u64,
    pub(crate) state: Mutex<run::State>,
}
