//! Graphs: building ([`build`]), nodes of every kind ([`nodes`]), edges ([`edges`]), what nodes can be asked and told
//! ([`params`]), making ready, launching and updating ([`ready`]), memory ([`memory`]).

pub(crate) mod build;
pub(crate) mod nodes;
pub(crate) mod edges;
pub(crate) mod params;
pub(crate) mod ready;
pub(crate) mod memory;

use std::sync::Arc;

use headgate_abi::cuda::types::{CUgraph, CUgraphExec, CUgraphNode, CUresult};

use crate::driver::Driver;
use crate::graph::{Executable, Graph};
use crate::raw;

fn find(driver: &Driver, graph: CUgraph) -> Result<Arc<Graph>, CUresult> {
    driver.graphs.get(graph.addr()).ok_or(CUresult::ERROR_INVALID_VALUE)
}

fn find_exec(driver: &Driver, exec: CUgraphExec) -> Result<Arc<Executable>, CUresult> {
    driver.executables.get(exec.addr()).ok_or(CUresult::ERROR_INVALID_VALUE)
}

/// The graph a node belongs to.
fn owner(driver: &Driver, node: CUgraphNode) -> Result<Arc<Graph>, CUresult> {
    driver.graph_nodes.get(node.addr()).ok_or(CUresult::ERROR_INVALID_VALUE)
}

fn handles(from: *const CUgraphNode, count: usize) -> Result<Vec<usize>, CUresult> {
    (0..count).map(|index| Ok(raw::load_at(from, index)?.addr())).collect()
}
