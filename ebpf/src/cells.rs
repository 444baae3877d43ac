//! Which row of the histograms is whose on which GPU.
//!
//! A tenant times every GPU would be a table of mostly empty rows on every CPU. So each tenant has a row of its own, and a pair of a
//! tenant and a GPU gets a cell behind those rows when the first process of that pair is seated.

use std::collections::BTreeMap;

use headgate_ebpf_records::{events::Cell, slots::Slot};

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
    seated: BTreeMap<u32, (Slot, u8)>,
}

/// What the kernel is to be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) seated: Vec<(u32, Cell)>,
    pub(crate) gone: Vec<u32>,
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
    pub(crate) fn seat(&mut self, processes: &BTreeMap<u32, (Slot, u8)>) -> Change {
        let mut change = Change::default();
        let gone = self.seated.extract_if(.., |process, _| !processes.contains_key(process));
        change.gone = gone.map(|(process, _)| process).collect();
        for (process, seat) in processes {
            if self.seated.get(process) == Some(seat) {
                continue;
            }
            let (slot, _) = *seat;
            let Some(cell) = self.cell(*seat) else {
                if self.seated.remove(process).is_some() {
                    change.gone.push(*process);
                }
                change.crowded_out += 1;
                continue;
            };
            self.seated.insert(*process, *seat);
            change.seated.push((*process, Cell { row: slot.row(), cell }));
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Cell, Cells, Slot};

    fn slot(index: u32) -> Slot {
        Slot::of_tenant(index).expect("a small index")
    }

    #[test]
    fn a_pair_has_one_cell_until_its_tenant_goes() {
        let mut cells = Cells::new(5, 2);
        let seats = BTreeMap::from([(10, (slot(0), 0)), (11, (slot(0), 0)), (12, (slot(3), 1))]);
        let change = cells.seat(&seats);
        assert_eq!(change.seated[0].1, change.seated[1].1, "two processes, one pair");
        assert_eq!(change.seated[2], (12, Cell { row: slot(3).row(), cell: 6 }));
        assert!(cells.seat(&seats).is_empty(), "told once");
        assert_eq!(cells.rows_of(slot(0)).collect::<Vec<_>>(), [(None, 1), (Some(0), 5)]);

        let crowd = BTreeMap::from([(12, (slot(3), 1)), (13, (slot(2), 0))]);
        let change = cells.seat(&crowd);
        assert_eq!((change.gone, change.crowded_out), (vec![10, 11], 1));
        cells.release(slot(0));
        let change = cells.seat(&crowd);
        assert_eq!(
            (change.seated, change.crowded_out),
            (vec![(13, Cell { row: slot(2).row(), cell: 5 })], 0)
        );
    }
}
