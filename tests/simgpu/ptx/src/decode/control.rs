//! Instructions that change the flow: branches, calls, barriers, and what the lanes of a warp do together.

use std::collections::BTreeSet;

use super::Decoder;
use super::form::{Form, Parsed};
use super::names::{Global, Local};
use crate::alu;
use crate::code::{Binary, Call, FrameRange, Op, Reduction, Shuffle, Src, Target, Vote, WarpOp};
use crate::text::syntax::{Operand, Shape};
use crate::types::{Space, Type};

impl<'a> Decoder<'a, '_> {
    pub(super) fn control(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Option<Op>> {
        Ok(Some(match form.name {
            "bra" => {
                form.skip(&["uni"]);
                form.operands(1, 1)?;
                Op::Branch(self.label(Self::at(form, 0)?)?)
            }
            "brx" => self.branch_indexed(form)?,
            "call" => self.call(form)?,
            "ret" => {
                form.skip(&["uni"]);
                form.operands(0, 0)?;
                Op::Return
            }
            "exit" => {
                form.operands(0, 0)?;
                Op::Exit
            }
            "trap" | "brkpt" => {
                form.operands(0, 0)?;
                Op::Trap
            }
            "nanosleep" => {
                form.flag("u32");
                form.operands(1, 1)?;
                self.source(Self::at(form, 0)?, Type::U32)?;
                Op::Yield
            }
            "pmevent" => {
                form.skip(&["mask"]);
                form.operands(1, 1)?;
                Op::Nothing
            }
            "membar" => {
                form.skip(&["cta", "gl", "sys"]);
                form.operands(0, 0)?;
                Op::Nothing
            }
            "fence" => {
                form.skip(&["sc", "acq_rel", "acquire", "release", "cta", "cluster", "gpu", "sys"]);
                form.operands(0, 0)?;
                Op::Nothing
            }
            "griddepcontrol" => {
                form.skip(&["launch_dependents", "wait"]);
                form.operands(0, 0)?;
                Op::Nothing
            }
            "bar" | "barrier" => self.barrier(form)?,
            "shfl" | "vote" | "match" | "redux" | "elect" | "activemask" => {
                Op::Warp(Box::new(self.warp(form)?))
            }
            _ => return Ok(None),
        }))
    }

    fn label(&self, operand: &Operand<'a>) -> Parsed<u32> {
        let Shape::Name(name, 0) = operand.shape else {
            return Err(operand.place.invalid("expected a label"));
        };
        self.scopes
            .label(name)
            .ok_or_else(|| operand.place.invalid(format!("`{name}` is not a label of this function")))
    }

    fn branch_indexed(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        if !form.flag("idx") {
            return Err(form.unsupported());
        }
        form.skip(&["uni"]);
        form.operands(2, 2)?;
        let index = self.source(Self::at(form, 0)?, Type::U32)?;
        let list = Self::at(form, 1)?;
        let Shape::Name(name, 0) = list.shape else {
            return Err(list.place.invalid("expected the label of a `.branchtargets`"));
        };
        let Some(Local::Targets(names)) = self.scopes.find(name) else {
            return Err(list.place.invalid(format!("`{name}` is not a list of branch targets")));
        };
        let targets = names
            .iter()
            .map(|(name, place)| {
                let missing = || place.invalid(format!("`{name}` is not a label of this function"));
                self.scopes.label(name).ok_or_else(missing)
            })
            .collect::<Parsed<_>>()?;
        Ok(Op::BranchIndexed { index, targets })
    }

    /// `call (returns), function, (arguments)`, or through a pointer with a prototype at the end.
    fn call(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        form.skip(&["uni"]);
        form.operands(1, 4)?;
        let mut rest = form.operands.iter().peekable();
        let group = |rest: &mut std::iter::Peekable<std::slice::Iter<'_, Operand<'a>>>| match rest
            .peek()
            .map(|operand| &operand.shape)
        {
            Some(Shape::Group(parts)) => {
                rest.next();
                parts.iter().map(|part| self.call_param(part)).collect::<Parsed<Vec<_>>>()
            }
            _ => Ok(Vec::new()),
        };
        let returns = group(&mut rest)?;
        let callee = rest.next().ok_or_else(|| form.place.invalid("`call` names no function"))?;
        let arguments = group(&mut rest)?;
        let prototype = rest.next();
        if let Some(extra) = rest.next() {
            return Err(extra.place.invalid("`call` has an operand too many"));
        }
        let Shape::Name(name, 0) = callee.shape else {
            return Err(callee.place.invalid("expected a function"));
        };
        let sizes = |ranges: &[FrameRange]| ranges.iter().map(|range| range.bytes).collect::<Vec<_>>();
        let agree = |params: &[u32], results: &[u32]| {
            if sizes(&arguments) == params && sizes(&returns) == results {
                return Ok(());
            }
            Err(form.place.invalid(format!("the arguments do not fit the signature of `{name}`")))
        };
        if let Some(register) = self.scopes.register(name, callee.place)? {
            let what = "a call through a pointer names its `.callprototype`";
            let prototype = prototype.ok_or_else(|| form.place.invalid(what))?;
            let Shape::Name(label, 0) = prototype.shape else { return Err(prototype.place.invalid(what)) };
            let Some(Local::Prototype { returns: results, params }) = self.scopes.find(label) else {
                return Err(prototype.place.invalid(format!("`{label}` is not a prototype")));
            };
            let narrow = |sizes: &[u64]| sizes.iter().map(|&size| super::narrow(size)).collect::<Vec<_>>();
            agree(&narrow(params), &narrow(results))?;
            if register.register.bits() != 64 {
                return Err(callee.place.invalid(format!("`{name}` cannot hold the address of a function")));
            }
            self.calls_pointers = true;
            let target = Target::Pointer(Src::Slot(register.slot));
            return Ok(Op::Call(Box::new(Call { target, arguments, returns })));
        }
        let Some(&Global::Function(index)) = self.outside.names.get(name) else {
            return Err(callee.place.invalid(format!("`{name}` is not a function")));
        };
        self.require_body(index, callee.place)?;
        if let Some(Some(signature)) = self.outside.signatures.get(index as usize) {
            agree(&signature.params, &signature.returns)?;
        }
        self.calls.insert(index);
        Ok(Op::Call(Box::new(Call { target: Target::Function(index), arguments, returns })))
    }

    fn call_param(&self, operand: &Operand<'a>) -> Parsed<FrameRange> {
        let Shape::Name(name, 0) = operand.shape else {
            return Err(operand.place.unsupported("arguments other than `.param` variables"));
        };
        match self.scopes.find(name) {
            Some(&Local::Memory { space: Space::FrameParam, offset, bytes }) => {
                Ok(FrameRange { offset, bytes })
            }
            _ => Err(operand.place.unsupported(format!("`{name}`: arguments other than `.param` variables"))),
        }
    }

    fn barrier(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        if form.flag("warp") {
            if !form.flag("sync") {
                return Err(form.unsupported());
            }
            form.operands(1, 1)?;
            let mask = self.source(Self::at(form, 0)?, Type::B32)?;
            return Ok(Op::Warp(Box::new(WarpOp::Sync { mask })));
        }
        form.skip(&["cta", "aligned"]);
        match form.one_of(&["sync", "arrive", "red"]) {
            Some("sync") => {
                form.operands(1, 2)?;
                let id = self.source(Self::at(form, 0)?, Type::U32)?;
                let threads = match form.operands.get(1) {
                    Some(operand) => Some(self.source(operand, Type::U32)?),
                    None => None,
                };
                Ok(Op::Barrier { id, threads, reduction: None })
            }
            Some("arrive") => {
                form.operands(2, 2)?;
                let id = self.source(Self::at(form, 0)?, Type::U32)?;
                Ok(Op::Arrive { id, threads: self.source(Self::at(form, 1)?, Type::U32)? })
            }
            Some("red") => {
                let operation = form.one_of(&["popc", "and", "or"]).ok_or_else(|| form.unsupported())?;
                let ty = form.ty()?;
                let wanted = if operation == "popc" { Type::U32 } else { Type::Pred };
                if ty != wanted {
                    return Err(form.unsupported());
                }
                form.operands(3, 4)?;
                let to = self.destination(Self::at(form, 0)?, ty)?;
                let id = self.source(Self::at(form, 1)?, Type::U32)?;
                let last = form.operands.len() - 1;
                let threads = match last {
                    3 => Some(self.source(Self::at(form, 2)?, Type::U32)?),
                    _ => None,
                };
                let predicate = self.predicate(Self::at(form, last)?)?;
                let reduction = match operation {
                    "popc" => Reduction::Population(to, predicate),
                    "and" => Reduction::And(to, predicate),
                    _ => Reduction::Or(to, predicate),
                };
                Ok(Op::Barrier { id, threads, reduction: Some(reduction) })
            }
            _ => Err(form.unsupported()),
        }
    }

    fn warp(&mut self, form: &mut Form<'_, 'a>) -> Parsed<WarpOp> {
        if form.name == "activemask" {
            let ty = form.ty()?;
            form.operands(1, 1)?;
            return Ok(WarpOp::ActiveMask { to: self.destination(Self::at(form, 0)?, ty)? });
        }
        if !form.flag("sync") {
            let message = format!("`{}` without `.sync`, which sm_70 and later do not have", form.opcode);
            return Err(form.place.unsupported(message));
        }
        match form.name {
            "shfl" => self.shuffle(form),
            "vote" => self.vote(form),
            "match" => {
                let all = form.one_of(&["any", "all"]).ok_or_else(|| form.unsupported())? == "all";
                let ty = form.ty()?;
                form.operands(3, 3)?;
                let (to, agreed) = self.destination_pair(Self::at(form, 0)?, Type::B32)?;
                let value = self.source(Self::at(form, 1)?, ty)?;
                Ok(WarpOp::Match {
                    all,
                    to,
                    agreed,
                    value,
                    mask: self.source(Self::at(form, 2)?, Type::B32)?,
                })
            }
            "redux" => {
                let operations = ["add", "min", "max", "and", "or", "xor"];
                let operation = form.one_of(&operations).ok_or_else(|| form.unsupported())?;
                let ty = form.ty()?;
                let combine: Binary = alu::integer_binary(operation, ty)
                    .filter(|_| ty.bits() == 32)
                    .ok_or_else(|| form.unsupported())?;
                form.operands(3, 3)?;
                let to = self.destination(Self::at(form, 0)?, ty)?;
                let value = self.source(Self::at(form, 1)?, ty)?;
                Ok(WarpOp::Reduce { combine, to, value, mask: self.source(Self::at(form, 2)?, Type::B32)? })
            }
            _ => {
                form.operands(2, 2)?;
                let (lane, elected) = self.destination_pair(Self::at(form, 0)?, Type::B32)?;
                Ok(WarpOp::Elect { lane, elected, mask: self.source(Self::at(form, 1)?, Type::B32)? })
            }
        }
    }

    fn shuffle(&mut self, form: &mut Form<'_, 'a>) -> Parsed<WarpOp> {
        let mode = match form.one_of(&["up", "down", "bfly", "idx"]) {
            Some("up") => Shuffle::Up,
            Some("down") => Shuffle::Down,
            Some("bfly") => Shuffle::Butterfly,
            Some(_) => Shuffle::Index,
            None => return Err(form.unsupported()),
        };
        if form.ty()? != Type::B32 {
            return Err(form.unsupported());
        }
        form.operands(5, 5)?;
        let (to, valid) = self.destination_pair(Self::at(form, 0)?, Type::B32)?;
        Ok(WarpOp::Shuffle {
            mode,
            to,
            valid,
            value: self.source(Self::at(form, 1)?, Type::B32)?,
            lane: self.source(Self::at(form, 2)?, Type::B32)?,
            clamp: self.source(Self::at(form, 3)?, Type::B32)?,
            mask: self.source(Self::at(form, 4)?, Type::B32)?,
        })
    }

    fn vote(&mut self, form: &mut Form<'_, 'a>) -> Parsed<WarpOp> {
        let mode = match form.one_of(&["all", "any", "uni", "ballot"]) {
            Some("all") => Vote::All,
            Some("any") => Vote::Any,
            Some("uni") => Vote::Uniform,
            Some(_) => Vote::Ballot,
            None => return Err(form.unsupported()),
        };
        let ty = form.ty()?;
        let wanted = if mode == Vote::Ballot { Type::B32 } else { Type::Pred };
        if ty != wanted {
            return Err(form.unsupported());
        }
        form.operands(3, 3)?;
        let to = self.destination(Self::at(form, 0)?, ty)?;
        let predicate = self.predicate(Self::at(form, 1)?)?;
        Ok(WarpOp::Vote { mode, to, predicate, mask: self.source(Self::at(form, 2)?, Type::B32)? })
    }
}

/// The functions that can be reached from one by direct calls, itself among them.
pub(crate) fn reachable(start: u32, calls: impl Fn(u32) -> Vec<u32>) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([start]);
    let mut open = vec![start];
    while let Some(function) = open.pop() {
        for callee in calls(function) {
            if found.insert(callee) {
                open.push(callee);
            }
        }
    }
    found
}
