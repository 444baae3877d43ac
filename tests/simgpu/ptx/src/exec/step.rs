//! The instruction loop of one thread.

use super::access::{Areas, resolve, window};
use super::block::{Frame, Identity, Thread};
use super::{Launch, Trouble};
use crate::alu;
use crate::code::{Address, Call, Carry, Combine, Compare, Op, Predicate, Special, Src, Target};
use crate::fault::FaultKind;
use crate::limits::{BARRIERS, CALL_DEPTH_MAX, LOCAL_BYTES_MAX, STACK_REGISTERS_MAX};
use crate::module::{Function, function_of_handle};
use crate::types::{Space, Type};

/// Why a thread gave up its turn.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    Slice,
    Exit,
    /// Stands on a barrier.
    Barrier {
        id: u8,
        threads: Option<u32>,
    },
    /// Has passed a barrier that it did not wait at.
    Arrive {
        id: u8,
    },
    /// Stands on a warp operation.
    Warp,
}

/// What the loop does after an instruction.
enum Flow {
    Next,
    Jump(u32),
    /// The frame has changed.
    Reenter,
    /// Stops with the instruction done.
    After(Stop),
    /// Stops on the instruction.
    On(Stop),
}

/// An operand that is not in a register.
pub(crate) fn constant(launch: &Launch<'_, '_, '_>, who: &Identity, frame: &Frame, src: Src) -> u64 {
    match src {
        // The caller reads registers.
        Src::Slot(_) => 0,
        Src::Immediate(value) => value,
        Src::Special(special) => special_value(launch, who, special),
        Src::Variable(index, addend) => {
            launch.addresses.address(index as usize).unwrap_or(0).wrapping_add_signed(addend)
        }
        Src::Shared(index, addend) => {
            let offset = launch.shared_offsets.get(index as usize).copied().unwrap_or(0);
            u64::from(offset).wrapping_add_signed(addend)
        }
        Src::Local(offset) => (frame.local as u64).wrapping_add_signed(offset),
        Src::Param(offset) => (frame.params as u64).wrapping_add_signed(offset),
    }
}

fn special_value(launch: &Launch<'_, '_, '_>, who: &Identity, special: Special) -> u64 {
    let axis = |values: &[u32; 3], axis: u8| u64::from(values[usize::from(axis.min(2))]);
    let low = |value: u64| value & 0xffff_ffff;
    let config = launch.config;
    let bit = 1u64 << who.lane;
    let sms = u64::from(config.sm_count.max(1));
    match special {
        Special::Tid(a) => axis(&who.tid, a),
        Special::Ntid(a) => axis(&config.block, a),
        Special::Ctaid(a) => axis(&who.ctaid, a),
        Special::Nctaid(a) => axis(&config.grid, a),
        Special::LaneId => u64::from(who.lane),
        Special::WarpId => u64::from(who.warp),
        Special::WarpCount => 64,
        Special::SmId => who.block_index % sms,
        Special::SmCount => sms,
        Special::GridId => config.grid_id,
        Special::LaneMaskEq => bit,
        Special::LaneMaskLt => bit - 1,
        Special::LaneMaskLe => bit | (bit - 1),
        Special::LaneMaskGt => low(!(bit | (bit - 1))),
        Special::LaneMaskGe => low(!(bit - 1)),
        Special::Clock => low(launch.cycles()),
        Special::ClockHigh => launch.cycles() >> 32,
        Special::Clock64 => launch.cycles(),
        Special::GlobalTimer => launch.nanoseconds(),
        Special::GlobalTimerLow => low(launch.nanoseconds()),
        Special::GlobalTimerHigh => launch.nanoseconds() >> 32,
        Special::DynamicShared => u64::from(config.dynamic_shared_bytes),
        Special::TotalShared => u64::from(launch.shared_bytes),
    }
}

/// The registers and memory that one instruction works on.
struct Step<'s, 'm, 'p, 'd> {
    launch: &'s mut Launch<'m, 'p, 'd>,
    who: &'s Identity,
    frame: Frame,
    registers: &'s mut [u64],
    areas: Areas<'s>,
    carry: &'s mut bool,
    is_entry: bool,
}

/// Runs a ready thread for at most so many instructions.
pub(crate) fn run(
    launch: &mut Launch<'_, '_, '_>,
    thread: &mut Thread,
    shared: &mut [u8],
    slice: u64,
) -> Result<Stop, Box<Trouble>> {
    let module = launch.kernel.module;
    let end = launch.stats.instructions.saturating_add(slice);
    loop {
        let Some(&frame) = thread.frames.last() else { return Ok(Stop::Exit) };
        let function = module
            .functions
            .get(frame.function)
            .ok_or_else(|| Trouble::new(FaultKind::InvalidPc, "the frame names no function"))?;
        let mut at = frame.at;
        let Some(registers) = thread.registers.get_mut(frame.registers..) else { return Ok(Stop::Exit) };
        let mut step = Step {
            launch: &mut *launch,
            who: &thread.identity,
            frame,
            registers,
            areas: Areas { shared, local: &mut thread.local, params: &mut thread.params },
            carry: &mut thread.carry,
            is_entry: function.entry.is_some(),
        };
        let done = loop {
            if step.launch.stats.instructions == end {
                break Ok(Flow::On(Stop::Slice));
            }
            let Some(instruction) = function.code.get(at) else {
                break Err(Trouble::new(FaultKind::InvalidPc, "ran past the end of the function"));
            };
            step.launch.stats.instructions += 1;
            if let Some(guard) = instruction.guard
                && !step.test(guard)
            {
                at += 1;
                continue;
            }
            match step.execute(&instruction.op) {
                Ok(Flow::Next) => at += 1,
                Ok(Flow::Jump(target)) => at = target as usize,
                other => break other,
            }
        };
        if let Some(frame) = thread.frames.last_mut() {
            frame.at = at;
        }
        match done? {
            Flow::On(stop) => return Ok(stop),
            Flow::After(stop) => {
                if let Some(frame) = thread.frames.last_mut() {
                    frame.at += 1;
                }
                return Ok(stop);
            }
            _ => match function.code.get(at).map(|instruction| &instruction.op) {
                Some(Op::Call(call)) => enter(launch, thread, call)?,
                _ => leave(launch, thread, function),
            },
        }
    }
}

/// Begins a function: a new frame with its own registers, local memory and parameters.
fn enter(launch: &Launch<'_, '_, '_>, thread: &mut Thread, call: &Call) -> Result<(), Box<Trouble>> {
    let functions = &launch.kernel.module.functions;
    let index = match call.target {
        Target::Function(index) => index as usize,
        Target::Pointer(src) => {
            let handle = thread.read(launch, src);
            let what = "a call through a pointer that is not the address of a function";
            function_of_handle(handle)
                .filter(|&index| functions.get(index).is_some_and(|function| function.entry.is_none()))
                .ok_or_else(|| Trouble::at(FaultKind::InvalidPc, handle, what))?
        }
    };
    let Some((callee, caller)) = functions.get(index).zip(thread.frames.last().copied()) else {
        return Err(Trouble::new(FaultKind::InvalidPc, "a call to nothing"));
    };
    let sizes =
        |ranges: &[crate::code::FrameRange]| ranges.iter().map(|range| range.bytes).collect::<Vec<_>>();
    if sizes(&call.arguments) != sizes(&callee.params) || sizes(&call.returns) != sizes(&callee.returns) {
        let detail = format!("`{}` has other parameters than the prototype of this call", callee.name);
        return Err(Trouble::new(FaultKind::InvalidPc, detail));
    }
    let align = usize::try_from(callee.local_align).unwrap_or(1);
    let local = thread.local.len().next_multiple_of(align);
    let local_end = local + callee.local_bytes as usize;
    let registers = thread.registers.len();
    let registers_end = registers + callee.registers as usize;
    let params = thread.params.len();
    if thread.frames.len() >= CALL_DEPTH_MAX
        || local_end as u64 > LOCAL_BYTES_MAX
        || registers_end > STACK_REGISTERS_MAX
    {
        let detail = format!("{} calls deep, the stack is full", thread.frames.len());
        return Err(Trouble::new(FaultKind::HardwareStackError, detail));
    }
    if let Some(frame) = thread.frames.last_mut() {
        frame.at += 1;
    }
    thread.local.resize(local_end, 0);
    thread.registers.resize(registers_end, 0);
    thread.params.resize(params + callee.param_bytes as usize, 0);
    for (from, to) in call.arguments.iter().zip(&callee.params) {
        let from = caller.params + from.offset as usize;
        thread.params.copy_within(from..from + to.bytes as usize, params + to.offset as usize);
    }
    thread.frames.push(Frame { function: index, at: 0, registers, local, params });
    Ok(())
}

/// Ends a function and hands its results to the caller. A kernel that ends leaves no frame.
fn leave(launch: &Launch<'_, '_, '_>, thread: &mut Thread, function: &Function) {
    let Some(frame) = thread.frames.pop() else { return };
    let Some(&caller) = thread.frames.last() else { return };
    let code = launch.kernel.module.functions.get(caller.function).map(|function| &function.code);
    let call = code.and_then(|code| code.get(caller.at.checked_sub(1)?));
    if let Some(Op::Call(call)) = call.map(|instruction| &instruction.op) {
        for (from, to) in function.returns.iter().zip(&call.returns) {
            let start = frame.params + from.offset as usize;
            thread.params.copy_within(start..start + from.bytes as usize, caller.params + to.offset as usize);
        }
    }
    thread.registers.truncate(frame.registers);
    thread.local.truncate(frame.local);
    thread.params.truncate(frame.params);
}

impl Step<'_, '_, '_, '_> {
    #[inline]
    fn read(&self, src: Src) -> u64 {
        match src {
            Src::Slot(slot) => self.registers[slot as usize],
            Src::Immediate(value) => value,
            other => constant(self.launch, self.who, &self.frame, other),
        }
    }

    #[inline]
    fn write(&mut self, slot: u32, value: u64) {
        self.registers[slot as usize] = value;
    }

    #[inline]
    fn test(&self, predicate: Predicate) -> bool {
        (self.registers[predicate.slot as usize] != 0) != predicate.negated
    }

    fn address(&self, address: Address) -> u64 {
        self.read(address.base).wrapping_add_signed(address.offset)
    }

    /// The condition of `setp` and `set`, and the same with the comparison negated.
    fn compare(
        &self,
        compare: Compare,
        combine: Option<(Combine, Predicate)>,
        a: Src,
        b: Src,
    ) -> (bool, bool) {
        let holds = compare(self.read(a), self.read(b));
        match combine {
            None => (holds, !holds),
            Some((how, predicate)) => {
                let other = self.test(predicate);
                match how {
                    Combine::And => (holds && other, !holds && other),
                    Combine::Or => (holds || other, !holds || other),
                    Combine::Xor => (holds != other, holds == other),
                }
            }
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each instruction, each a line or two")]
    fn execute(&mut self, op: &Op) -> Result<Flow, Box<Trouble>> {
        match *op {
            Op::Move { to, value } => {
                let value = self.read(value);
                self.write(to, value);
            }
            Op::Unary { apply, to, a } => {
                let result = apply(self.read(a));
                self.write(to, result);
            }
            Op::Binary { apply, to, a, b } => {
                let result = apply(self.read(a), self.read(b));
                self.write(to, result);
            }
            Op::Ternary { apply, to, a, b, c } => {
                let result = apply(self.read(a), self.read(b), self.read(c));
                self.write(to, result);
            }
            Op::Load { space, element, extend, to, lanes, address } => {
                return self.load(space, element, extend, &to[..usize::from(lanes.min(4))], address);
            }
            Op::Store { space, element, ref from, lanes, address } => {
                return self.store(space, element, &from[..usize::from(lanes.min(4))], address);
            }
            Op::Branch(target) => return Ok(Flow::Jump(target)),
            Op::Compare { compare, combine, to, other, a, b } => {
                let (holds, negated) = self.compare(compare, combine, a, b);
                self.write(other, u64::from(negated));
                self.write(to, u64::from(holds));
            }
            Op::Select { to, a, b, predicate } => {
                let value = self.read(if self.test(predicate) { a } else { b });
                self.write(to, value);
            }
            Op::Convert { convert, extend, to, a } => {
                let result = extend(convert.apply(self.read(a)));
                self.write(to, result);
            }
            Op::Float { apply, to, a, b, c } => {
                let result = apply.apply(self.read(a), self.read(b), self.read(c));
                self.write(to, result);
            }
            Op::ReadClock { to, clock } => {
                let value = special_value(self.launch, self.who, clock);
                self.write(to, value);
                return Ok(Flow::After(Stop::Slice));
            }
            Op::Pack { to, ref parts, bits } => {
                let mut value = 0;
                for (part, shift) in parts.iter().zip((0..64).step_by(bits as usize)) {
                    value |= self.read(*part) << shift;
                }
                self.write(to, value);
            }
            Op::Unpack { ref to, value, bits } => {
                let value = self.read(value);
                for (slot, shift) in to.iter().zip((0..64).step_by(bits as usize)) {
                    self.write(*slot, value >> shift & ((1 << bits) - 1));
                }
            }
            Op::Lop3 { to, a, b, c, table } => {
                let result = alu::lop3(self.read(a), self.read(b), self.read(c), table);
                self.write(to, result);
            }
            Op::BitInsert { to, a, b, position, length, wide } => {
                let (position, length) = (self.read(position), self.read(length));
                let result = alu::bit_insert(self.read(a), self.read(b), position, length, wide);
                self.write(to, result);
            }
            Op::AddCarry { carry, to, a, b } => {
                let (a, b) = (self.read(a), self.read(b));
                self.add_carry(carry, to, a, b);
            }
            Op::SubtractCarry { carry, to, a, b } => {
                let (a, b) = (u128::from(self.read(a)), u128::from(self.read(b)));
                let borrow = u128::from(carry.reads && *self.carry);
                let bits = if carry.wide { 64 } else { 32 };
                let result = a.wrapping_sub(b).wrapping_sub(borrow);
                self.finish_carry(carry, to, result, result >> bits != 0);
            }
            Op::MultiplyAddCarry { product, carry, to, a, b, c } => {
                let product = product(self.read(a), self.read(b));
                let c = self.read(c);
                self.add_carry(carry, to, product, c);
            }
            Op::Set { compare, combine, to, yes, a, b } => {
                let (holds, _) = self.compare(compare, combine, a, b);
                self.write(to, if holds { yes } else { 0 });
            }
            Op::SelectBy { keeps, to, a, b, c } => {
                let value = self.read(if keeps(self.read(c)) { a } else { b });
                self.write(to, value);
            }
            Op::Not { to, predicate } => {
                let value = u64::from(self.test(predicate));
                self.write(to, value);
            }
            Op::Atomic { space, element, change, to, address, b, c } => {
                let (b, c) = (self.read(b), self.read(c));
                let address = self.address(address);
                let mut change = |old| change(old, b, c);
                let bytes = element.bytes() as usize;
                let old = self.launch.update(&mut self.areas, space, address, bytes, &mut change)?;
                self.write(to, old);
            }
            Op::ToGeneric { space, to, a } => {
                let address = self.read(a).wrapping_add(window(space).unwrap_or(0));
                self.write(to, address);
            }
            Op::ToSpace { space, to, a } => {
                let address = self.read(a).wrapping_sub(window(space).unwrap_or(0));
                self.write(to, address);
            }
            Op::IsSpace { space, to, a } => {
                let (found, _) = resolve(self.read(a));
                // Constants live in global memory here.
                let holds = found == space;
                self.write(to, u64::from(holds));
            }
            Op::BranchIndexed { index, ref targets } => {
                let index = self.read(index);
                let target = usize::try_from(index).ok().and_then(|index| targets.get(index));
                let Some(&target) = target else {
                    let detail = format!("jump table of {} targets, index {index}", targets.len());
                    return Err(Trouble::new(FaultKind::InvalidPc, detail));
                };
                return Ok(Flow::Jump(target));
            }
            Op::Return if self.is_entry => return Ok(Flow::After(Stop::Exit)),
            Op::Call(_) | Op::Return => return Ok(Flow::Reenter),
            Op::Exit => return Ok(Flow::After(Stop::Exit)),
            Op::Trap => return Err(Trouble::new(FaultKind::Trap, "the kernel trapped")),
            Op::Yield => return Ok(Flow::After(Stop::Slice)),
            Op::Nothing => {}
            Op::Barrier { id, threads, .. } => {
                let id = self.barrier_id(id)?;
                let threads = match threads {
                    Some(threads) => Some(self.barrier_threads(threads)?),
                    None => None,
                };
                return Ok(Flow::On(Stop::Barrier { id, threads }));
            }
            Op::Arrive { id, threads } => {
                let id = self.barrier_id(id)?;
                self.barrier_threads(threads)?;
                return Ok(Flow::After(Stop::Arrive { id }));
            }
            Op::Warp(_) => return Ok(Flow::On(Stop::Warp)),
        }
        Ok(Flow::Next)
    }

    fn load(
        &mut self,
        space: Space,
        element: Type,
        extend: fn(u64) -> u64,
        to: &[u32],
        address: Address,
    ) -> Result<Flow, Box<Trouble>> {
        let bytes = element.bytes() as usize;
        let address = self.address(address);
        let mut buffer = [0; 16];
        let buffer = &mut buffer[..bytes * to.len()];
        self.launch.load(&mut self.areas, space, address, buffer)?;
        for (slot, part) in to.iter().zip(buffer.chunks_exact(bytes)) {
            let mut value = [0; 8];
            value[..bytes].copy_from_slice(part);
            self.write(*slot, extend(u64::from_le_bytes(value)));
        }
        Ok(Flow::Next)
    }

    fn store(
        &mut self,
        space: Space,
        element: Type,
        from: &[Src],
        address: Address,
    ) -> Result<Flow, Box<Trouble>> {
        let bytes = element.bytes() as usize;
        let address = self.address(address);
        let mut buffer = [0; 16];
        let buffer = &mut buffer[..bytes * from.len()];
        for (src, part) in from.iter().zip(buffer.chunks_exact_mut(bytes)) {
            part.copy_from_slice(&self.read(*src).to_le_bytes()[..bytes]);
        }
        self.launch.store(&mut self.areas, space, address, buffer)?;
        Ok(Flow::Next)
    }

    fn add_carry(&mut self, carry: Carry, to: u32, a: u64, b: u64) {
        let bits = if carry.wide { 64 } else { 32 };
        let sum = u128::from(a) + u128::from(b) + u128::from(carry.reads && *self.carry);
        self.finish_carry(carry, to, sum, sum >> bits != 0);
    }

    fn finish_carry(&mut self, carry: Carry, to: u32, result: u128, out: bool) {
        let mask = if carry.wide { u128::from(u64::MAX) } else { 0xffff_ffff };
        self.write(to, u64::try_from(result & mask).unwrap_or(0));
        if carry.writes {
            *self.carry = out;
        }
    }

    fn barrier_id(&self, id: Src) -> Result<u8, Box<Trouble>> {
        let id = self.read(id);
        u8::try_from(id)
            .ok()
            .filter(|&id| usize::from(id) < BARRIERS)
            .ok_or_else(|| Trouble::new(FaultKind::IllegalInstruction, format!("barrier {id} of {BARRIERS}")))
    }

    fn barrier_threads(&self, threads: Src) -> Result<u32, Box<Trouble>> {
        let threads = self.read(threads);
        u32::try_from(threads).ok().filter(|threads| *threads > 0 && threads.is_multiple_of(32)).ok_or_else(
            || {
                let detail =
                    format!("a barrier of {threads} threads, which is not a multiple of the warp size");
                Trouble::new(FaultKind::IllegalInstruction, detail)
            },
        )
    }
}
