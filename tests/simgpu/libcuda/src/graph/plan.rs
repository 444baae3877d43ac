//! Which nodes of a launch go into which stream.
//!
//! Nodes that follow each other share a lane; branches have lanes of their own, so that one which waits holds up no
//! other. Lane 0 is the launch stream. What a step knows to be done is a clock: how far in each lane it has come.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Body, Work};
use crate::objects::lock;

/// Most branches that go beside each other; more share lanes, as they share the connections of a real device
/// (`CUDA_DEVICE_MAX_CONNECTIONS`, at most 32).
pub(crate) const LANES_MAX: usize = 32;

/// A node in the order of handing in.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) work: Work,
    pub(crate) lane: usize,
    /// Steps of other lanes that must be done first.
    pub(crate) after: Vec<usize>,
}

/// All of a launch.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) lanes: usize,
}

/// Lays a graph out. `None` when its edges form a cycle.
pub(crate) fn lay_out(body: &Body) -> Option<Plan> {
    let mut flat = Vec::new();
    flatten(body, &[], &mut flat)?;
    let mut lanes: Vec<Lane> = Vec::new();
    let mut clocks: Vec<[u32; LANES_MAX]> = Vec::with_capacity(flat.len());
    let mut steps: Vec<Step> = Vec::with_capacity(flat.len());
    for (work, before) in flat {
        let mut clock = [0; LANES_MAX];
        for &step in &before {
            let known = clocks[step];
            clock.iter_mut().zip(known).for_each(|(own, other)| *own = (*own).max(other));
        }
        let follows = |lane: &Lane| before.contains(&lane.tail);
        let is_passed = |(index, lane): (usize, &Lane)| clock[index] >= lane.length;
        let lane = lanes
            .iter()
            .position(follows)
            .or_else(|| (0..lanes.len()).find(|&index| is_passed((index, &lanes[index]))))
            .unwrap_or_else(|| {
                if lanes.len() < LANES_MAX {
                    lanes.push(Lane { tail: usize::MAX, length: 0 });
                    lanes.len() - 1
                } else {
                    steps.len() % LANES_MAX
                }
            });
        let after = before.into_iter().filter(|&step| steps[step].lane != lane).collect();
        // Everything before it in its lane is done, too, whether the graph asks for it or not.
        if lanes[lane].tail != usize::MAX {
            let known = clocks[lanes[lane].tail];
            clock.iter_mut().zip(known).for_each(|(own, other)| *own = (*own).max(other));
        }
        lanes[lane].length += 1;
        lanes[lane].tail = steps.len();
        clock[lane] = lanes[lane].length;
        clocks.push(clock);
        steps.push(Step { work, lane, after });
    }
    Some(Plan { steps, lanes: lanes.len() })
}

struct Lane {
    tail: usize,
    length: u32,
}

/// Puts a graph's nodes into the list, those of child graphs in their place, and returns the last ones. `outer` is
/// what the first ones come after.
fn flatten(body: &Body, outer: &[usize], into: &mut Vec<(Work, Vec<usize>)>) -> Option<Vec<usize>> {
    let mut ends: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut last: BTreeMap<usize, ()> = body.nodes.keys().map(|&handle| (handle, ())).collect();
    for handle in body.order()? {
        let node = body.nodes.get(&handle)?;
        let mut after: Vec<usize> =
            node.after.keys().flat_map(|before| ends[before].iter().copied()).collect();
        after.sort_unstable();
        after.dedup();
        node.after.keys().for_each(|before| {
            last.remove(before);
        });
        if node.after.is_empty() {
            after = outer.to_vec();
        }
        let done = match &node.work {
            Work::Child(child) => {
                let child = Arc::clone(child);
                flatten(&lock(&child.body), &after, into)?
            }
            work => {
                let work = if node.enabled { work.clone() } else { Work::Empty };
                into.push((work, after));
                vec![into.len() - 1]
            }
        };
        ends.insert(handle, done);
    }
    if body.nodes.is_empty() {
        return Some(outer.to_vec());
    }
    Some(last.into_keys().flat_map(|handle| ends.remove(&handle).unwrap_or_default()).collect())
}

#[cfg(test)]
mod tests {
    use super::super::{Edge, Node};
    use super::*;

    fn body(edges: &[&[usize]]) -> Body {
        let nodes = edges.iter().enumerate().map(|(handle, after)| {
            let after = after.iter().map(|&before| (before, Edge::default())).collect();
            (handle, Node::new(Work::Empty, after))
        });
        Body { nodes: nodes.collect() }
    }

    fn lanes(edges: &[&[usize]]) -> Vec<usize> {
        lay_out(&body(edges)).expect("no cycle").steps.iter().map(|step| step.lane).collect()
    }

    #[test]
    fn a_chain_stays_in_one_lane() {
        assert_eq!(lanes(&[&[], &[0], &[1], &[2]]), [0, 0, 0, 0]);
    }

    #[test]
    fn branches_have_lanes_of_their_own_and_leave_them_when_they_join() {
        let plan = lay_out(&body(&[&[], &[0], &[0], &[1, 2], &[3], &[3]])).expect("no cycle");
        let seen: Vec<usize> = plan.steps.iter().map(|step| step.lane).collect();
        assert_eq!((seen, plan.lanes), (vec![0, 0, 1, 0, 0, 1], 2));
        assert_eq!(plan.steps[2].after, [0]);
        assert_eq!(plan.steps[3].after, [2]);
        assert_eq!(plan.steps[5].after, [3]);
    }

    #[test]
    fn roots_go_beside_each_other() {
        assert_eq!(lanes(&[&[], &[], &[0, 1]]), [0, 1, 0]);
    }

    #[test]
    fn a_cycle_is_found() {
        assert!(lay_out(&body(&[&[1], &[0]])).is_none());
    }

    #[test]
    fn many_branches_share_lanes() {
        let many: Vec<&[usize]> = vec![&[]; 100];
        let plan = lay_out(&body(&many)).expect("no cycle");
        assert_eq!(plan.lanes, LANES_MAX);
    }
}
