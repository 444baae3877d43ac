//! Which row of the histograms is whose on which GPU.
//!
//! A tenant times every GPU would be a table of mostly empty rows on every CPU. So each tenant has a row of its own, and a pair of a
//! tenant and a GPU gets a cell behind those rows when the first process of that pair is seated.

use std::collections::BTreeMap;

use headgate_ebpf_records::{
    events::{Cell, CellKey},
    slots::Slot,
};

/// The cells given out.
#[derive(Debug)]
pub(crate) struct Cells {
    /// The row behind the last cell.
    end: u32,
    /// The next cell never given out.
    next: u32,
    /// Given back.
    free: Vec<u32>,
    cells: BTreeMap<(Slot, u8), u32>,
    /// What the kernel was told.
    seated: BTreeMap<CellKey, (Slot, u8)>,
}

/// What the kernel is to be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) seated: Vec<(CellKey, Cell)>,
    pub(crate) gone: Vec<CellKey>,
    pub(crate) crowded_out: usize,
}

impl Change {
    pub(crate) fn is_empty(&self) -> bool {
        self.seated.is_empty() && self.gone.is_empty()
    }
}

impl Cells {
    /// So many cells behind so many rows.
    pub(crate) fn new(rows: u32, cells: u32) -> Self {
        Self {
            end: rows + cells,
            next: rows,
            free: Vec::new(),
            cells: BTreeMap::new(),
            seated: BTreeMap::new(),
        }
    }

    /// Rows and cells together.
    pub(crate) const fn rows(&self) -> u32 {
        self.end
    }

    /// A slot's rows: its own, and one for each of its GPUs.
    pub(crate) fn rows_of(&self, slot: Slot) -> impl Iterator<Item = (Option<u8>, u32)> {
        let cells = self.cells.range((slot, 0)..=(slot, u8::MAX));
        std::iter::once((None, slot.row())).chain(cells.map(|((_, gpu), cell)| (Some(*gpu), *cell)))
    }

    /// Takes in who sits where now.
    pub(crate) fn seat(&mut self, processes: &BTreeMap<u32, (Slot, Vec<u8>)>) -> Change {
        let wanted = wanted(processes);
        let mut change = Change::default();
        let gone = self.seated.extract_if(.., |key, _| !wanted.contains_key(key));
        change.gone = gone.map(|(key, _)| key).collect();
        for (key, pair) in wanted {
            if self.seated.get(&key) == Some(&pair) {
                continue;
            }
            let Some(cell) = self.cell(pair) else {
                if self.seated.remove(&key).is_some() {
                    change.gone.push(key);
                }
                change.crowded_out += 1;
                continue;
            };
            self.seated.insert(key, pair);
            change.seated.push((key, Cell { row: pair.0.row(), cell }));
        }
        change
    }

    fn cell(&mut self, pair: (Slot, u8)) -> Option<u32> {
        if let Some(cell) = self.cells.get(&pair) {
            return Some(*cell);
        }
        let cell = self.free.pop().or_else(|| {
            let fresh = self.next;
            (fresh < self.end).then(|| self.next += 1)?;
            Some(fresh)
        })?;
        self.cells.insert(pair, cell);
        Some(cell)
    }

    /// Gives a slot's cells back, which the caller has cleared.
    pub(crate) fn release(&mut self, slot: Slot) {
        self.free
            .extend(self.cells.extract_if((slot, 0)..=(slot, u8::MAX), |_, _| true).map(|(_, cell)| cell));
        // Whoever still sits there is told anew.
        self.seated.retain(|_, (of, _)| *of != slot);
    }
}

/// Which calls of which processes belong to which pair: those for which the hook told a device, and of a process with one device
/// all others.
fn wanted(processes: &BTreeMap<u32, (Slot, Vec<u8>)>) -> BTreeMap<CellKey, (Slot, u8)> {
    let mut wanted = BTreeMap::new();
    for (&tgid, (slot, gpus)) in processes {
        for &gpu in gpus {
            wanted.insert(CellKey { tgid, device: u32::from(gpu) + 1 }, (*slot, gpu));
        }
        if let [only] = gpus[..] {
            wanted.insert(CellKey { tgid, device: 0 }, (*slot, only));
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Cell, CellKey, Cells, Change, Slot};

    fn slot(index: u32) -> Slot {
        Slot::of_tenant(index).expect("a small index")
    }

    fn key(tgid: u32, device: u32) -> CellKey {
        CellKey { tgid, device }
    }

    fn cell(change: &Change, of: CellKey) -> Option<Cell> {
        change.seated.iter().find_map(|(key, cell)| (*key == of).then_some(*cell))
    }

    #[test]
    fn a_pair_has_one_cell_until_its_tenant_goes() {
        let mut cells = Cells::new(5, 2);
        let seats =
            BTreeMap::from([(10, (slot(0), vec![0])), (11, (slot(0), vec![0])), (12, (slot(3), vec![1]))]);
        let change = cells.seat(&seats);
        assert_eq!(cell(&change, key(10, 0)), Some(Cell { row: slot(0).row(), cell: 5 }));
        assert_eq!(cell(&change, key(11, 1)), cell(&change, key(10, 0)), "two processes, one pair");
        assert_eq!(cell(&change, key(12, 2)), Some(Cell { row: slot(3).row(), cell: 6 }));
        assert!(cells.seat(&seats).is_empty(), "told once");
        assert_eq!(cells.rows_of(slot(0)).collect::<Vec<_>>(), [(None, 1), (Some(0), 5)]);

        let crowd = BTreeMap::from([(12, (slot(3), vec![1])), (13, (slot(2), vec![0]))]);
        let change = cells.seat(&crowd);
        assert_eq!(change.gone, [key(10, 0), key(10, 1), key(11, 0), key(11, 1)]);
        assert_eq!(change.crowded_out, 2, "with a device told, and without");
        cells.release(slot(0));
        let change = cells.seat(&crowd);
        assert_eq!(cell(&change, key(13, 0)), Some(Cell { row: slot(2).row(), cell: 5 }));
        assert_eq!((change.seated.len(), change.crowded_out), (2, 0));
    }

    #[test]
    fn a_process_with_two_gpus_has_a_cell_for_each_and_none_for_calls_without_a_word() {
        let mut cells = Cells::new(5, 4);
        let one = BTreeMap::from([(10, (slot(0), vec![0]))]);
        cells.seat(&one);
        let two = BTreeMap::from([(10, (slot(0), vec![0, 3]))]);
        let change = cells.seat(&two);
        assert_eq!(change.gone, [key(10, 0)]);
        assert_eq!(change.seated, [(key(10, 4), Cell { row: slot(0).row(), cell: 6 })]);
        assert_eq!(cells.rows_of(slot(0)).collect::<Vec<_>>(), [(None, 1), (Some(0), 5), (Some(3), 6)]);
    }
}
