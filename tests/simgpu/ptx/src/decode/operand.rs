//! Operands: registers, literals, addresses, each held against the type that the instruction gives it.

use super::Decoder;
use super::form::{Form, Parsed};
use super::names::{Global, Local, Register};
use crate::alu::{Format, Rounding};
use crate::code::{Address, Predicate, SINK, Slot, Special, Src};
use crate::error::Place;
use crate::text::syntax::{Operand, Shape};
use crate::text::token::Number;
use crate::types::{Space, Type};

/// How a register must fit a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// The same width.
    Exact,
    /// At least the width: loads, stores and conversions take wider registers.
    Wider,
}

impl<'a> Decoder<'a, '_> {
    fn register(&mut self, name: &str, place: Place) -> Parsed<Register> {
        match self.scopes.register(name, place)? {
            Some(register) => Ok(register),
            None => Err(place.invalid(format!("`{name}` is not a register of this function"))),
        }
    }

    pub(crate) fn predicate_slot(&mut self, name: &str, place: Place) -> Parsed<Slot> {
        let register = self.register(name, place)?;
        if register.register != Type::Pred {
            return Err(place.invalid(format!("`{name}` is not a predicate register")));
        }
        Ok(register.slot)
    }

    /// A predicate that may be negated.
    pub(crate) fn predicate(&mut self, operand: &Operand<'a>) -> Parsed<Predicate> {
        let (name, negated) = match operand.shape {
            Shape::Name(name, 0) => (name, false),
            Shape::Not(name) => (name, true),
            _ => return Err(operand.place.invalid("expected a predicate register")),
        };
        Ok(Predicate { slot: self.predicate_slot(name, operand.place)?, negated })
    }

    /// The slot of a destination, or the sink for `_`.
    pub(crate) fn destination(&mut self, operand: &Operand<'a>, ty: Type) -> Parsed<Slot> {
        Ok(self.destination_register(operand, ty, Fit::Exact)?.0)
    }

    /// A destination with the width of its register in bits.
    pub(crate) fn destination_register(
        &mut self,
        operand: &Operand<'a>,
        ty: Type,
        fit: Fit,
    ) -> Parsed<(Slot, u32)> {
        let Shape::Name(name, 0) = operand.shape else {
            return Err(operand.place.invalid("expected a register to write to"));
        };
        self.destination_named(name, ty, fit, operand.place)
    }

    pub(crate) fn destination_named(
        &mut self,
        name: &str,
        ty: Type,
        fit: Fit,
        place: Place,
    ) -> Parsed<(Slot, u32)> {
        if name == "_" {
            return Ok((SINK, ty.bits().max(32)));
        }
        let register = self.register(name, place)?;
        check_fit(name, register.register, ty, fit, place)?;
        Ok((register.slot, register.register.bits()))
    }

    pub(crate) fn source(&mut self, operand: &Operand<'a>, ty: Type) -> Parsed<Src> {
        self.source_fitting(operand, ty, Fit::Exact)
    }

    pub(crate) fn source_fitting(&mut self, operand: &Operand<'a>, ty: Type, fit: Fit) -> Parsed<Src> {
        let place = operand.place;
        match operand.shape {
            Shape::Number(number, negative) => Ok(Src::Immediate(literal(number, negative, ty, place)?)),
            Shape::Name(name, addend) => {
                if let Some(register) = self.scopes.register(name, place)? {
                    if addend != 0 {
                        return Err(place.invalid("a register plus a number stands only in an address"));
                    }
                    check_fit(name, register.register, ty, fit, place)?;
                    return Ok(Src::Slot(register.slot));
                }
                if name == "WARP_SZ" {
                    return Ok(Src::Immediate(32));
                }
                if let Some((special, width)) = special(name, place)? {
                    if ty.bits() != width {
                        return Err(place.invalid(format!("`{name}` has {width} bits, not {}", ty.bits())));
                    }
                    return Ok(Src::Special(special));
                }
                let (src, space) = self.variable_address(name, addend, place)?;
                let wide = matches!(space, Some(Space::Global | Space::Const) | None);
                if ty.is_float() || ty.bits() < 32 || (wide && ty.bits() < 64) {
                    return Err(place.invalid(format!("the address of `{name}` does not fit this type")));
                }
                Ok(src)
            }
            _ => Err(place.invalid("expected a register or a number")),
        }
    }

    /// The address of a variable in its own space, or a function's handle, which has no space.
    fn variable_address(&mut self, name: &str, addend: i64, place: Place) -> Parsed<(Src, Option<Space>)> {
        if let Some(local) = self.scopes.find(name) {
            let Local::Memory { space, offset, .. } = *local else {
                return Err(place.invalid(format!("`{name}` is neither a register nor a variable")));
            };
            let at = i64::from(offset).wrapping_add(addend);
            let src = match space {
                Space::Local => Src::Local(at),
                Space::KernelParam => Src::Immediate(at.cast_unsigned()),
                Space::FrameParam => Src::Param(at),
                _ => {
                    self.shared_used.insert(offset);
                    Src::Shared(offset, addend)
                }
            };
            return Ok((src, Some(space)));
        }
        match self.outside.names.get(name) {
            Some(&Global::Variable(index, space)) => Ok((Src::Variable(index, addend), Some(space))),
            Some(&Global::Shared(index)) => {
                self.shared_used.insert(index);
                Ok((Src::Shared(index, addend), Some(Space::Shared)))
            }
            Some(&Global::Function(index)) if addend == 0 => {
                self.require_body(index, place)?;
                Ok((Src::Immediate(crate::module::function_handle(index)), None))
            }
            _ => Err(place.invalid(format!("`{name}` is not declared"))),
        }
    }

    pub(crate) fn require_body(&self, index: u32, place: Place) -> Parsed<()> {
        match self.outside.signatures.get(index as usize) {
            Some(Some(signature)) if signature.has_body => Ok(()),
            Some(Some(signature)) => Err(place.unsupported(format!(
                "`{}` is declared but not defined, and the simulated device does not provide it",
                signature.name
            ))),
            _ => Err(place.unsupported("the address of a kernel")),
        }
    }

    /// An address operand for an access to `space`; `.param` resolves to the kernel's or the frame's.
    pub(crate) fn address(&mut self, operand: &Operand<'a>, space: Space) -> Parsed<(Address, Space)> {
        let Shape::Address(inner) = &operand.shape else {
            return Err(operand.place.invalid("expected an address in brackets"));
        };
        let place = inner.place;
        let wanted_param = matches!(space, Space::KernelParam | Space::FrameParam);
        match inner.shape {
            Shape::Name(name, offset) => {
                if let Some(register) = self.scopes.register(name, place)? {
                    if register.register.is_float() || register.register.bits() < 32 {
                        return Err(place.invalid(format!("`{name}` cannot hold an address")));
                    }
                    let space = match (wanted_param, self.is_entry) {
                        (true, true) => Space::KernelParam,
                        (true, false) => Space::FrameParam,
                        _ => space,
                    };
                    return Ok((Address { base: Src::Slot(register.slot), offset }, space));
                }
                let (base, found) = self.variable_address(name, 0, place)?;
                let space = match found {
                    Some(found @ (Space::KernelParam | Space::FrameParam)) if wanted_param => found,
                    Some(found) if found == space => space,
                    Some(Space::Global) if space == Space::Generic => space,
                    _ => {
                        return Err(
                            place.invalid(format!("`{name}` does not lie in the space of the access"))
                        );
                    }
                };
                Ok((Address { base, offset }, space))
            }
            Shape::Number(number, negative) => {
                let base = Src::Immediate(literal(number, negative, Type::U64, place)?);
                if wanted_param {
                    return Err(place.invalid("a parameter is named, not numbered"));
                }
                Ok((Address { base, offset: 0 }, space))
            }
            _ => Err(place.invalid("expected a register or a variable in an address")),
        }
    }

    /// `{a, b}` or a single register, as loads write them.
    pub(crate) fn vector_parts<'o>(
        &self,
        operand: &'o Operand<'a>,
        lanes: usize,
    ) -> Parsed<Vec<&'o Operand<'a>>> {
        match &operand.shape {
            Shape::Vector(parts) if parts.len() == lanes => Ok(parts.iter().collect()),
            Shape::Vector(parts) => {
                Err(operand.place.invalid(format!("expected {lanes} elements, found {}", parts.len())))
            }
            _ if lanes == 1 => Ok(vec![operand]),
            _ => Err(operand.place.invalid(format!("expected a vector of {lanes} elements"))),
        }
    }

    /// `d` or `d|p`: the second is the sink when it is not there.
    pub(crate) fn destination_pair(&mut self, operand: &Operand<'a>, ty: Type) -> Parsed<(Slot, Slot)> {
        match operand.shape {
            Shape::Pair(first, second) => {
                let to = self.destination_named(first, ty, Fit::Exact, operand.place)?.0;
                let other = self.destination_named(second, Type::Pred, Fit::Exact, operand.place)?.0;
                Ok((to, other))
            }
            _ => Ok((self.destination(operand, ty)?, SINK)),
        }
    }

    /// The operand at an index, which [`Form::operands`] has shown to exist.
    pub(crate) fn at<'i>(form: &Form<'i, 'a>, index: usize) -> Parsed<&'i Operand<'a>> {
        form.operands
            .get(index)
            .ok_or_else(|| form.place.invalid(format!("`{}` lacks an operand", form.opcode)))
    }
}

fn check_fit(name: &str, register: Type, ty: Type, fit: Fit, place: Place) -> Parsed<()> {
    let (have, want) = (register.bits(), ty.bits());
    let predicates = (register == Type::Pred) == (ty == Type::Pred);
    let width = match fit {
        Fit::Exact => have == want,
        Fit::Wider => have >= want,
    };
    let host_float = |ty| matches!(ty, Type::F32 | Type::F64);
    let class = if host_float(register) {
        register == ty || ty.is_untyped() || (ty.is_float() && fit == Fit::Wider && have > want)
    } else {
        !host_float(ty) || register.is_untyped()
    };
    if predicates && width && class {
        return Ok(());
    }
    Err(place.invalid(format!("register `{name}` is {register:?}, the instruction works on {ty:?}")))
}

/// The bits of a literal seen as a type.
pub(crate) fn literal(number: Number, negative: bool, ty: Type, place: Place) -> Parsed<u64> {
    match (number, ty) {
        (Number::Integer(value), Type::Pred) => Ok(u64::from(value != 0)),
        (Number::Integer(_), Type::F32 | Type::F64 | Type::F16 | Type::Bf16) => {
            Err(place.invalid("expected a floating-point literal such as 0f3F800000"))
        }
        (Number::Integer(value), _) => Ok((if negative { value.wrapping_neg() } else { value }) & ty.mask()),
        (Number::Single(bits), Type::F32 | Type::B32) => {
            Ok(u64::from(if negative { bits ^ 0x8000_0000 } else { bits }))
        }
        (Number::Single(bits), Type::F64) => {
            let wide =
                crate::alu::soft_convert(Format::F32, Format::F64, Rounding::NearestEven, u64::from(bits));
            Ok(if negative { wide ^ 1 << 63 } else { wide })
        }
        (Number::Double(bits), Type::F64 | Type::B64) => Ok(if negative { bits ^ 1 << 63 } else { bits }),
        (Number::Double(bits), Type::F32) => {
            let bits = if negative { bits ^ 1 << 63 } else { bits };
            Ok(crate::alu::soft_convert(Format::F64, Format::F32, Rounding::NearestEven, bits))
        }
        _ => Err(place.invalid(format!("a floating-point literal does not fit {ty:?}"))),
    }
}

/// A special register and its width. Clusters are of one block, as in launches without a cluster dimension.
fn special(name: &str, place: Place) -> Parsed<Option<(Special, u32)>> {
    let Some(name) = name.strip_prefix('%') else { return Ok(None) };
    let (base, axis) = match name.split_once('.') {
        Some((base, "x")) => (base, Some(0)),
        Some((base, "y")) => (base, Some(1)),
        Some((base, "z")) => (base, Some(2)),
        Some(_) => (name, None),
        None => (name, None),
    };
    if let Some(axis) = axis {
        return Ok(Some(match base {
            "tid" => (Special::Tid(axis), 32),
            "ntid" => (Special::Ntid(axis), 32),
            "ctaid" | "clusterid" => (Special::Ctaid(axis), 32),
            "nctaid" | "nclusterid" => (Special::Nctaid(axis), 32),
            _ => return Err(place.unsupported(format!("the special register `%{name}`"))),
        }));
    }
    Ok(Some(match name {
        "laneid" => (Special::LaneId, 32),
        "warpid" => (Special::WarpId, 32),
        "nwarpid" => (Special::WarpCount, 32),
        "smid" => (Special::SmId, 32),
        "nsmid" => (Special::SmCount, 32),
        "gridid" => (Special::GridId, 64),
        "lanemask_eq" => (Special::LaneMaskEq, 32),
        "lanemask_le" => (Special::LaneMaskLe, 32),
        "lanemask_lt" => (Special::LaneMaskLt, 32),
        "lanemask_ge" => (Special::LaneMaskGe, 32),
        "lanemask_gt" => (Special::LaneMaskGt, 32),
        "clock" | "clock_lo" => (Special::Clock, 32),
        "clock_hi" => (Special::ClockHigh, 32),
        "clock64" => (Special::Clock64, 64),
        "globaltimer" => (Special::GlobalTimer, 64),
        "globaltimer_lo" => (Special::GlobalTimerLow, 32),
        "globaltimer_hi" => (Special::GlobalTimerHigh, 32),
        "dynamic_smem_size" => (Special::DynamicShared, 32),
        "total_smem_size" => (Special::TotalShared, 32),
        _ => return Ok(None),
    }))
}
