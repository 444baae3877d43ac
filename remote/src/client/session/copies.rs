//! Copies to the device: from where their bytes are, now or when their stream has come there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use headgate_abi::cuda::types::CUresult;

use super::{Expected, InOrder, Inbox, Session};
use crate::client::late::Row;
use crate::client::objects::lock;
use crate::client::raw;
use crate::limits::{HOLDS_MAX, LARGE_BYTES, LENT_BYTES, PIECE_BYTES_MAX};
use crate::link::{Batch, Outbox};
use crate::wire::large::WriteHead;
use crate::wire::operation::Operation;

/// Memory of the program is lent to the session for as long as this lives.
struct Lending<'a>(&'a Outbox<InOrder>);

impl Drop for Lending<'_> {
    fn drop(&mut self) {
        self.0.keep();
    }
}

impl Session {
    /// Adds a copy to the device. The bytes are the caller's own again when this returns.
    pub(in crate::client) fn write(
        &self,
        context: u32,
        stream: u32,
        to: u64,
        bytes: &'static [u8],
    ) -> Result<(), CUresult> {
        // Whatever becomes of the call, what was lent is given back.
        let _lending = Lending(&self.out);
        // What may break would have to be kept of a short copy after all, and another thread can write that.
        let lent = !self.resumes || bytes.len() >= LENT_BYTES;
        for (index, piece) in bytes.chunks(PIECE_BYTES_MAX).enumerate() {
            let to = to + (index * PIECE_BYTES_MAX) as u64;
            if lent && piece.len() >= LARGE_BYTES {
                self.write_lent(context, WriteHead { stream, to, bytes: piece.len() }, piece)?;
                continue;
            }
            let operation = Operation::Write { stream, to, bytes: piece };
            let placed = self.out.add(|batch| {
                Self::enter(batch, context);
                let encode = |bytes: &mut Vec<u8>| operation.encode(bytes);
                let number = if piece.len() < LARGE_BYTES {
                    batch.push(encode)
                } else {
                    batch.push_alone(encode, None)
                };
                self.placed.store(number, Ordering::Release);
            });
            placed.map_err(|_| self.gone())?;
        }
        Ok(())
    }

    /// Adds a copy to the device whose bytes are read when its stream has come there. The memory is in use until the worker has told
    /// of what is expected; [`Session::release`] waits for that.
    pub(in crate::client) fn write_late(
        self: &Arc<Self>,
        context: u32,
        stream: u32,
        rows: Vec<Row>,
        expected: Expected,
    ) -> Result<(), CUresult> {
        self.start_late()?;
        let open = self.late.open();
        if let Some(first) = open.first().filter(|_| open.len() >= HOLDS_MAX) {
            self.out.flush();
            self.wait(|inbox| (!inbox.expected.contains_key(first)).then_some(()))?;
        }
        let token = self.expect(expected);
        self.late.offer(token, rows);
        let hold = Operation::Hold { stream, token };
        let added = self.out.add(|batch| {
            Self::enter(batch, context);
            // What comes behind it in its frame would be dealt with before anybody reads ahead.
            let number = batch.push_alone(|bytes| hold.encode(bytes), None);
            self.placed.store(number, Ordering::Release);
        });
        added.map_err(|_| self.gone())
    }

    /// Starts the thread that sends what is read late. Few programs need it.
    fn start_late(self: &Arc<Self>) -> Result<(), CUresult> {
        let mut runs = lock(&self.late_runs);
        if !*runs {
            let session = Arc::clone(self);
            let body = move || {
                raw::block_signals();
                session.late.run(&session.out);
            };
            let started = thread::Builder::new().name("headgate-late".to_owned()).spawn(body);
            *runs = started.is_ok();
        }
        if *runs { Ok(()) } else { Err(CUresult::ERROR_OUT_OF_MEMORY) }
    }

    /// Waits until nothing of a range of host memory is still to be read.
    pub(in crate::client) fn release(&self, address: usize, bytes: usize) -> Result<(), CUresult> {
        if !*lock(&self.late_runs) {
            return Ok(());
        }
        let using = self.late.using(address, bytes);
        if !using.is_empty() {
            self.out.flush();
            let told = |inbox: &mut Inbox| !using.iter().any(|token| inbox.expected.contains_key(token));
            self.wait(|inbox| told(inbox).then_some(()))?;
            self.late.settle(address, bytes);
        }
        // What the journal still has of it.
        self.out.keep_late();
        Ok(())
    }

    fn write_lent(&self, context: u32, head: WriteHead, piece: &'static [u8]) -> Result<(), CUresult> {
        let before = |batch: &mut Batch<InOrder>| Self::enter(batch, context);
        let sent = self.out.send_lent(before, |to| head.encode(to), Box::new(piece));
        let number = sent.map_err(|_| self.gone())?;
        // Another thread may have placed something behind it by now.
        self.placed.fetch_max(number, Ordering::AcqRel);
        Ok(())
    }
}
