//! Instructions that move data: `mov`, loads and stores, atomics, address conversions.

use super::Decoder;
use super::form::{Form, Parsed};
use super::operand::Fit;
use crate::alu;
use crate::code::{Op, SINK, Src, Ternary, Unary};
use crate::text::syntax::Shape;
use crate::types::{Space, Type};

/// Scopes and orders of the memory model. Threads of a launch run one at a time here, so each access is already
/// sequentially consistent and these change nothing.
const ORDERS: &[&str] =
    &["weak", "volatile", "relaxed", "acquire", "release", "acq_rel", "mmio", "cta", "cluster", "gpu", "sys"];
const CACHES: &[&str] = &["ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc"];
const CACHE_HINTS: &[&str] = &["L1::", "L2::", "level::"];

impl<'a> Decoder<'a, '_> {
    pub(super) fn data(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Option<Op>> {
        Ok(Some(match form.name {
            "mov" => self.mov(form)?,
            "ld" | "ldu" => self.load(form)?,
            "st" => self.store(form)?,
            "atom" | "red" => self.atomic(form)?,
            "cvta" => self.convert_address(form)?,
            "isspacep" => self.is_space(form)?,
            "prefetch" | "prefetchu" | "discard" | "applypriority" => {
                form.skip(&["global", "local", "L1", "L2"]);
                form.skip_prefixes(CACHE_HINTS);
                form.operands(1, 2)?;
                self.address(Self::at(form, 0)?, Space::Generic)?;
                Op::Nothing
            }
            // A cache policy is an opaque word whose only use is as a hint.
            "createpolicy" => {
                form.skip(&["fractional", "range", "cvt"]);
                form.skip_prefixes(CACHE_HINTS);
                let ty = form.ty()?;
                form.operands(1, 4)?;
                Op::Move { to: self.destination(Self::at(form, 0)?, ty)?, value: Src::Immediate(0) }
            }
            _ => return Ok(None),
        }))
    }

    fn mov(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        let ty = form.ty()?;
        form.operands(2, 2)?;
        let (to, from) = (Self::at(form, 0)?, Self::at(form, 1)?);
        let part = |lanes: usize| {
            let bits = u32::try_from(lanes).ok().and_then(|lanes| ty.bits().checked_div(lanes));
            let (part, bits) = match (bits, lanes) {
                (Some(16), 2 | 4) => (Type::B16, 16),
                (Some(32), 2) => (Type::B32, 32),
                _ => return Err(form.place.unsupported(format!("`{}` of {lanes} parts", form.opcode))),
            };
            Ok((part, bits))
        };
        if let Shape::Vector(parts) = &to.shape {
            let (part, bits) = part(parts.len())?;
            let slots = parts.iter().map(|operand| self.destination(operand, part)).collect::<Parsed<_>>()?;
            return Ok(Op::Unpack { to: slots, value: self.source(from, ty)?, bits });
        }
        let slot = self.destination(to, ty)?;
        if let Shape::Vector(parts) = &from.shape {
            let (part, bits) = part(parts.len())?;
            let parts = parts.iter().map(|operand| self.source(operand, part)).collect::<Parsed<_>>()?;
            return Ok(Op::Pack { to: slot, parts, bits });
        }
        if ty == Type::Pred && matches!(from.shape, Shape::Not(_)) {
            return Ok(Op::Not { to: slot, predicate: self.predicate(from)? });
        }
        Ok(match self.source(from, ty)? {
            Src::Special(clock) if clock.is_clock() => Op::ReadClock { to: slot, clock },
            value => Op::Move { to: slot, value },
        })
    }

    /// The state space among the modifiers, generic when there is none.
    fn space(form: &mut Form<'_, 'a>) -> Space {
        let choices =
            ["global", "shared", "shared::cta", "local", "const", "param", "param::entry", "param::func"];
        match form.one_of(&choices) {
            Some("global") => Space::Global,
            Some("shared" | "shared::cta") => Space::Shared,
            Some("local") => Space::Local,
            Some("const") => Space::Const,
            Some(_) => Space::FrameParam,
            None => Space::Generic,
        }
    }

    fn lanes(form: &mut Form<'_, 'a>) -> u8 {
        match form.one_of(&["v2", "v4"]) {
            Some("v2") => 2,
            Some(_) => 4,
            None => 1,
        }
    }

    /// Element type and lanes of a load or store, at most 16 bytes together.
    fn element(form: &mut Form<'_, 'a>, lanes: u8) -> Parsed<Type> {
        let element = form.ty()?;
        if element == Type::Pred || element.bytes() * u32::from(lanes) > 16 {
            return Err(form
                .place
                .invalid(format!("`{}` is wider than 16 bytes or has no width", form.opcode)));
        }
        Ok(element)
    }

    fn load(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        form.skip(ORDERS);
        form.skip(CACHES);
        let hinted = form.flag("L2::cache_hint");
        form.skip_prefixes(CACHE_HINTS);
        let space = Self::space(form);
        let lanes = Self::lanes(form);
        let element = Self::element(form, lanes)?;
        form.operands(2, if hinted { 3 } else { 2 })?;
        let parts = self.vector_parts(Self::at(form, 0)?, usize::from(lanes))?;
        let mut to = [SINK; 4];
        let mut width = None;
        for (slot, part) in to.iter_mut().zip(parts) {
            let (register, bits) = self.destination_register(part, element, Fit::Wider)?;
            *slot = register;
            if register != SINK && *width.get_or_insert(bits) != bits {
                return Err(part.place.invalid("the registers of a vector have different widths"));
            }
        }
        let extend = extension(element, width.unwrap_or(64));
        let (address, space) = self.address(Self::at(form, 1)?, space)?;
        Ok(Op::Load { space, element, extend, to, lanes, address })
    }

    fn store(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        form.skip(ORDERS);
        form.skip(CACHES);
        let hinted = form.flag("L2::cache_hint");
        form.skip_prefixes(CACHE_HINTS);
        let space = Self::space(form);
        let lanes = Self::lanes(form);
        let element = Self::element(form, lanes)?;
        form.operands(2, if hinted { 3 } else { 2 })?;
        if space == Space::Const {
            return Err(form.place.invalid("constant memory cannot be stored to"));
        }
        let (address, space) = self.address(Self::at(form, 0)?, space)?;
        if space == Space::KernelParam {
            return Err(form.place.invalid("the parameters of a kernel cannot be stored to"));
        }
        let parts = self.vector_parts(Self::at(form, 1)?, usize::from(lanes))?;
        let mut from = [Src::Immediate(0); 4];
        for (src, part) in from.iter_mut().zip(parts) {
            *src = self.source_fitting(part, element, Fit::Wider)?;
        }
        Ok(Op::Store { space, element, from, lanes, address })
    }

    fn atomic(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        form.skip(ORDERS);
        form.skip(&["noftz"]);
        let hinted = form.flag("L2::cache_hint");
        let space = Self::space(form);
        let operations = ["add", "exch", "min", "max", "and", "or", "xor", "inc", "dec", "cas"];
        let operation = form
            .one_of(&operations)
            .ok_or_else(|| form.place.unsupported(format!("the atomic operation of `{}`", form.opcode)))?;
        let element = form.ty()?;
        let change = atomic_change(operation, element, space)
            .ok_or_else(|| form.place.unsupported(format!("`{}` on this type", form.opcode)))?;
        if matches!(space, Space::Local | Space::Const | Space::FrameParam) {
            return Err(form.place.invalid("atomics work on global and shared memory"));
        }
        let reads = usize::from(operation == "cas") + 2;
        let skip = usize::from(form.name == "atom");
        let count = reads + skip;
        form.operands(count, count + usize::from(hinted))?;
        let to = if skip == 1 { self.destination(Self::at(form, 0)?, element)? } else { SINK };
        let (address, space) = self.address(Self::at(form, skip)?, space)?;
        let b = self.source(Self::at(form, skip + 1)?, element)?;
        let c = match operation {
            "cas" => self.source(Self::at(form, skip + 2)?, element)?,
            _ => Src::Immediate(0),
        };
        Ok(Op::Atomic { space, element, change, to, address, b, c })
    }

    fn convert_address(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        let to_space = form.flag("to");
        let space = match Self::space(form) {
            Space::FrameParam => Space::KernelParam,
            Space::Generic => {
                return Err(form.place.invalid("`cvta` names the space it converts from or to"));
            }
            space => space,
        };
        let ty = form.ty()?;
        if ty != Type::U64 {
            return Err(form.place.unsupported("addresses of less than 64 bits in `cvta`"));
        }
        form.operands(2, 2)?;
        let to = self.destination(Self::at(form, 0)?, ty)?;
        let a = self.source(Self::at(form, 1)?, ty)?;
        Ok(if to_space { Op::ToSpace { space, to, a } } else { Op::ToGeneric { space, to, a } })
    }

    fn is_space(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        let space = match Self::space(form) {
            Space::FrameParam => Space::KernelParam,
            Space::Generic => return Err(form.place.invalid("`isspacep` names a space")),
            space => space,
        };
        form.operands(2, 2)?;
        let to = self.destination(Self::at(form, 0)?, Type::Pred)?;
        Ok(Op::IsSpace { space, to, a: self.source(Self::at(form, 1)?, Type::B64)? })
    }
}

/// How a value of a type fills a register of so many bits.
pub(super) fn extension(from: Type, register_bits: u32) -> Unary {
    macro_rules! extend {
        ($signed:ty, $unsigned:ty) => {
            |x| {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "sign extension reinterprets the bits"
                )]
                let wide = i64::from(x as $signed) as $unsigned;
                u64::from(wide)
            }
        };
    }
    match (from, register_bits) {
        (Type::S8, 16) => extend!(i8, u16),
        (Type::S8, 32) => extend!(i8, u32),
        (Type::S8, 64) => extend!(i8, u64),
        (Type::S16, 32) => extend!(i16, u32),
        (Type::S16, 64) => extend!(i16, u64),
        (Type::S32, 64) => extend!(i32, u64),
        _ => |x| x,
    }
}

/// The new value of an atomic from the old one and the operands.
fn atomic_change(operation: &str, ty: Type, space: Space) -> Option<Ternary> {
    macro_rules! integer {
        (|$old:ident, $new:ident| $body:expr) => {
            match ty {
                Type::U32 => Some(on!(u32, u32, |$old, $new| $body)),
                Type::S32 => Some(on!(i32, u32, |$old, $new| $body)),
                Type::U64 => Some(on!(u64, u64, |$old, $new| $body)),
                Type::S64 => Some(on!(i64, u64, |$old, $new| $body)),
                _ => None,
            }
        };
    }
    macro_rules! on {
        ($value:ty, $bits:ty, |$old:ident, $new:ident| $body:expr) => {
            (|old, new, _| {
                #[expect(
                    clippy::allow_attributes,
                    reason = "which of the casts below lose anything depends on the type"
                )]
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_possible_wrap,
                    clippy::cast_sign_loss,
                    clippy::unnecessary_cast,
                    reason = "registers are bit patterns"
                )]
                let result = {
                    let ($old, $new) = (old as $value, new as $value);
                    ($body) as $bits
                };
                u64::from(result)
            }) as Ternary
        };
    }
    match operation {
        "exch" if matches!(ty, Type::B32 | Type::B64) => Some(|_, new, _| new),
        "cas" if matches!(ty, Type::B16 | Type::B32 | Type::B64) => {
            Some(|old, expected, new| if old == expected { new } else { old })
        }
        "and" if matches!(ty, Type::B32 | Type::B64) => Some(|old, new, _| old & new),
        "or" if matches!(ty, Type::B32 | Type::B64) => Some(|old, new, _| old | new),
        "xor" if matches!(ty, Type::B32 | Type::B64) => Some(|old, new, _| old ^ new),
        "inc" if ty == Type::U32 => Some(|old, limit, _| if old >= limit { 0 } else { old + 1 }),
        "dec" if ty == Type::U32 => {
            Some(|old, limit, _| if old == 0 || old > limit { limit } else { old - 1 })
        }
        "add" => match (ty, space) {
            // In global memory `f32` additions flush subnormals, in shared memory they do not (PTX ISA, "atom").
            (Type::F32, Space::Shared) => Some(|old, new, _| alu::add_f32(old, new, false)),
            (Type::F32, _) => Some(|old, new, _| alu::add_f32(old, new, true)),
            (Type::F64, _) => Some(|old, new, _| (f64::from_bits(old) + f64::from_bits(new)).to_bits()),
            (Type::F16 | Type::F16x2, _) | (Type::Bf16 | Type::Bf16x2, _) => alu::add_half(ty),
            _ => integer!(|old, new| old.wrapping_add(new)),
        },
        "min" => integer!(|old, new| old.min(new)),
        "max" => integer!(|old, new| old.max(new)),
        _ => None,
    }
}
