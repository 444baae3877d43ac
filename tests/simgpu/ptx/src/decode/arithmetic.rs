//! Instructions that compute: integers, floats, comparisons, conversions, bits.

use super::Decoder;
use super::data::extension;
use super::form::{Form, Parsed};
use super::operand::Fit;
use crate::alu::{self, Comparison, Conversion, FloatOp, Operation, Rounding};
use crate::code::{Binary, Carry, Combine, Compare, Op, Predicate, Src, Ternary, Unary};
use crate::text::syntax::Operand;
use crate::types::Type;

impl<'a> Decoder<'a, '_> {
    pub(super) fn arithmetic(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Option<Op>> {
        Ok(Some(match form.name {
            "add" | "sub" | "mul" | "mad" | "fma" | "div" | "min" | "max" | "abs" | "neg" | "rcp"
            | "sqrt" => self.number(form)?,
            "rem" | "and" | "or" | "xor" | "shl" | "shr" | "szext" | "bmsk" => self.integer_pair(form)?,
            "not" | "cnot" | "popc" | "clz" | "brev" | "bfind" => self.integer_single(form)?,
            "mul24" | "mad24" | "bfe" | "sad" => self.integer_special(form)?,
            "addc" | "subc" | "madc" => self.carry(form)?,
            "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" => self.approximate(form)?,
            "bfi" | "lop3" | "shf" | "prmt" | "dp4a" | "dp2a" => self.bits(form)?,
            "setp" | "set" => self.compare(form)?,
            "selp" | "slct" => self.select(form)?,
            "testp" => self.test(form)?,
            "copysign" => {
                let ty = form.ty()?;
                let apply: Binary = match ty {
                    Type::F32 => |a, b| a & 0x8000_0000 | b & 0x7fff_ffff,
                    Type::F64 => |a, b| a & 1 << 63 | b & !(1 << 63),
                    _ => return Err(form.unsupported()),
                };
                self.binary_op(form, apply, ty)?
            }
            "cvt" => self.convert(form)?,
            _ => return Ok(None),
        }))
    }

    fn unary_op(&mut self, form: &Form<'_, 'a>, apply: Unary, to: Type, from: Type) -> Parsed<Op> {
        form.operands(2, 2)?;
        let to = self.destination(Self::at(form, 0)?, to)?;
        Ok(Op::Unary { apply, to, a: self.source(Self::at(form, 1)?, from)? })
    }

    fn binary_op(&mut self, form: &Form<'_, 'a>, apply: Binary, ty: Type) -> Parsed<Op> {
        self.binary_types(form, apply, ty, ty, ty)
    }

    fn binary_types(&mut self, form: &Form<'_, 'a>, apply: Binary, to: Type, a: Type, b: Type) -> Parsed<Op> {
        form.operands(3, 3)?;
        let to = self.destination(Self::at(form, 0)?, to)?;
        let a = self.source(Self::at(form, 1)?, a)?;
        Ok(Op::Binary { apply, to, a, b: self.source(Self::at(form, 2)?, b)? })
    }

    fn ternary_types(&mut self, form: &Form<'_, 'a>, apply: Ternary, types: [Type; 4]) -> Parsed<Op> {
        form.operands(4, 4)?;
        let [to, a, b, c] = types;
        let to = self.destination(Self::at(form, 0)?, to)?;
        let a = self.source(Self::at(form, 1)?, a)?;
        let b = self.source(Self::at(form, 2)?, b)?;
        Ok(Op::Ternary { apply, to, a, b, c: self.source(Self::at(form, 3)?, c)? })
    }

    /// Opcodes that integers and floats share.
    fn number(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        if form.flag("cc") {
            return self.carry_out(form, false);
        }
        let ty = form.ty()?;
        if ty.is_float() {
            return self.float(form, ty);
        }
        let mut key = form.name.to_owned();
        if let Some(half) = form.one_of(&["lo", "hi", "wide"]) {
            key = format!("{key}.{half}");
        }
        if form.flag("sat") {
            key = format!("{key}.sat");
        }
        let unknown = || form.place.invalid(format!("`{}` does not exist for this type", form.opcode));
        if !ty.is_integer() {
            return Err(unknown());
        }
        match form.name {
            "abs" | "neg" => {
                let apply = alu::integer_unary(&key, ty).ok_or_else(unknown)?;
                self.unary_op(form, apply, ty, ty)
            }
            "mad" => {
                let apply = alu::integer_ternary(&key, ty).ok_or_else(unknown)?;
                let wide = if key == "mad.wide" { double_width(ty) } else { ty };
                self.ternary_types(form, apply, [wide, ty, ty, wide])
            }
            "mul" if key == "mul.wide" => {
                let apply = alu::integer_wide(ty).ok_or_else(unknown)?;
                self.binary_types(form, apply, double_width(ty), ty, ty)
            }
            _ => {
                let apply = alu::integer_binary(&key, ty).ok_or_else(unknown)?;
                self.binary_op(form, apply, ty)
            }
        }
    }

    fn integer_pair(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        let mut key = form.name.to_owned();
        if let Some(mode) = form.one_of(&["clamp", "wrap"]) {
            key = format!("{key}.{mode}");
        }
        let ty = form.ty()?;
        let apply = alu::integer_binary(&key, ty)
            .ok_or_else(|| form.place.invalid(format!("`{}` does not exist for this type", form.opcode)))?;
        let count = match form.name {
            "shl" | "shr" | "szext" => Type::U32,
            _ => ty,
        };
        self.binary_types(form, apply, ty, ty, count)
    }

    fn integer_single(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        let mut key = form.name.to_owned();
        if form.flag("shiftamt") {
            key = format!("{key}.shiftamt");
        }
        let ty = form.ty()?;
        let apply = alu::integer_unary(&key, ty)
            .ok_or_else(|| form.place.invalid(format!("`{}` does not exist for this type", form.opcode)))?;
        let to = match form.name {
            "popc" | "clz" | "bfind" => Type::U32,
            _ => ty,
        };
        self.unary_op(form, apply, to, ty)
    }

    fn integer_special(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        let mut key = form.name.to_owned();
        if let Some(half) = form.one_of(&["lo", "hi"]) {
            key = format!("{key}.{half}");
        }
        let ty = form.ty()?;
        let unknown = || form.place.invalid(format!("`{}` does not exist for this type", form.opcode));
        match form.name {
            "mul24" => {
                let apply = alu::integer_binary(&key, ty).ok_or_else(unknown)?;
                self.binary_op(form, apply, ty)
            }
            "bfe" => {
                let apply = alu::integer_ternary(&key, ty).ok_or_else(unknown)?;
                self.ternary_types(form, apply, [ty, ty, Type::U32, Type::U32])
            }
            "sad" => {
                let apply = alu::sad(ty).ok_or_else(unknown)?;
                self.ternary_types(form, apply, [ty; 4])
            }
            _ => {
                let apply = alu::integer_ternary(&key, ty).ok_or_else(unknown)?;
                self.ternary_types(form, apply, [ty; 4])
            }
        }
    }

    /// `addc`, `subc` and `madc`, which read the carry.
    fn carry(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        let writes = form.flag("cc");
        self.with_carry(form, true, writes)
    }

    /// `add.cc` and its like, which only write it.
    fn carry_out(&mut self, form: &mut Form<'_, 'a>, reads: bool) -> Parsed<Op> {
        self.with_carry(form, reads, true)
    }

    fn with_carry(&mut self, form: &mut Form<'_, 'a>, reads: bool, writes: bool) -> Parsed<Op> {
        let half = form.one_of(&["lo", "hi"]);
        let ty = form.ty()?;
        if !ty.is_integer() || ty.bits() < 32 {
            return Err(form.place.invalid(format!("`{}` works on 32 or 64 bits", form.opcode)));
        }
        let carry = Carry { wide: ty.bits() == 64, reads, writes };
        let multiply = matches!(form.name, "mad" | "madc");
        let count = if multiply { 4 } else { 3 };
        form.operands(count, count)?;
        let to = self.destination(Self::at(form, 0)?, ty)?;
        let a = self.source(Self::at(form, 1)?, ty)?;
        let b = self.source(Self::at(form, 2)?, ty)?;
        match (form.name, half) {
            ("add" | "addc", None) => Ok(Op::AddCarry { carry, to, a, b }),
            ("sub" | "subc", None) => Ok(Op::SubtractCarry { carry, to, a, b }),
            ("mad" | "madc", Some(half)) => {
                let key = format!("mul.{half}");
                let product = alu::integer_binary(&key, ty).ok_or_else(|| form.unsupported())?;
                let c = self.source(Self::at(form, 3)?, ty)?;
                Ok(Op::MultiplyAddCarry { product, carry, to, a, b, c })
            }
            _ => Err(form.unsupported()),
        }
    }

    fn float(&mut self, form: &mut Form<'_, 'a>, ty: Type) -> Parsed<Op> {
        let approximate = form.one_of(&["approx", "full"]).is_some();
        let rounding = form.rounding();
        let flush = form.flag("ftz");
        let saturate = form.flag("sat");
        let relu = form.flag("relu");
        let nan = form.flag("NaN");
        if approximate && matches!(form.name, "rcp" | "sqrt") {
            let apply = alu::approximate(form.name, ty, flush).ok_or_else(|| form.unsupported())?;
            return self.unary_op(form, apply, ty, ty);
        }
        let operation = match form.name {
            "add" => Operation::Add,
            "sub" => Operation::Subtract,
            "mul" => Operation::Multiply,
            "fma" | "mad" => Operation::FusedMultiplyAdd,
            "div" => Operation::Divide,
            "rcp" => Operation::Reciprocal,
            "sqrt" => Operation::SquareRoot,
            "min" if nan => Operation::MinimumNan,
            "max" if nan => Operation::MaximumNan,
            "min" => Operation::Minimum,
            "max" => Operation::Maximum,
            "abs" => Operation::Absolute,
            _ => Operation::Negate,
        };
        // These have no default; a driver refuses them without a rounding.
        let needs_rounding = matches!(form.name, "fma" | "mad" | "div" | "rcp" | "sqrt");
        if needs_rounding && rounding.is_none() && !approximate {
            return Err(form.place.invalid(format!("`{}` names no rounding", form.opcode)));
        }
        let rounding = rounding.unwrap_or(Rounding::NearestEven);
        let op = FloatOp { operation, ty, rounding, flush, saturate, relu };
        let count = match operation {
            Operation::FusedMultiplyAdd => 4,
            Operation::Reciprocal | Operation::SquareRoot | Operation::Absolute | Operation::Negate => 2,
            _ => 3,
        };
        form.operands(count, count)?;
        let to = self.destination(Self::at(form, 0)?, ty)?;
        let mut source = [Src::Immediate(0); 3];
        for (index, source) in source.iter_mut().take(count - 1).enumerate() {
            *source = self.source(Self::at(form, index + 1)?, ty)?;
        }
        let [a, b, c] = source;
        Ok(match alu::plain_float(op) {
            Some(alu::Plain::Unary(apply)) => Op::Unary { apply, to, a },
            Some(alu::Plain::Binary(apply)) => Op::Binary { apply, to, a, b },
            Some(alu::Plain::Ternary(apply)) => Op::Ternary { apply, to, a, b, c },
            None => Op::Float { apply: op, to, a, b, c },
        })
    }

    fn approximate(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        if !form.flag("approx") {
            return Err(form.place.invalid(format!("`{}` exists only as `.approx`", form.opcode)));
        }
        let flush = form.flag("ftz");
        let ty = form.ty()?;
        let apply = alu::approximate(form.name, ty, flush).ok_or_else(|| form.unsupported())?;
        self.unary_op(form, apply, ty, ty)
    }

    fn bits(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        match form.name {
            "bfi" => {
                let ty = form.ty()?;
                if !matches!(ty, Type::B32 | Type::B64) {
                    return Err(form.unsupported());
                }
                form.operands(5, 5)?;
                Ok(Op::BitInsert {
                    to: self.destination(Self::at(form, 0)?, ty)?,
                    a: self.source(Self::at(form, 1)?, ty)?,
                    b: self.source(Self::at(form, 2)?, ty)?,
                    position: self.source(Self::at(form, 3)?, Type::U32)?,
                    length: self.source(Self::at(form, 4)?, Type::U32)?,
                    wide: ty == Type::B64,
                })
            }
            "lop3" => {
                let ty = form.ty()?;
                form.operands(5, 5)?;
                let table = Self::at(form, 4)?;
                let Src::Immediate(bits) = self.source(table, Type::U32)? else {
                    return Err(table.place.invalid("the table of `lop3` is a number"));
                };
                let table = u8::try_from(bits)
                    .map_err(|_| table.place.invalid(format!("{bits} is not a table of 8 bits")))?;
                if ty != Type::B32 {
                    return Err(form.unsupported());
                }
                Ok(Op::Lop3 {
                    to: self.destination(Self::at(form, 0)?, ty)?,
                    a: self.source(Self::at(form, 1)?, ty)?,
                    b: self.source(Self::at(form, 2)?, ty)?,
                    c: self.source(Self::at(form, 3)?, ty)?,
                    table,
                })
            }
            "shf" => {
                let left = form.one_of(&["l", "r"]).ok_or_else(|| form.unsupported())? == "l";
                let wrap = form.one_of(&["wrap", "clamp"]).ok_or_else(|| form.unsupported())? == "wrap";
                let ty = form.ty()?;
                if ty != Type::B32 {
                    return Err(form.unsupported());
                }
                self.ternary_types(form, alu::funnel_shift(left, wrap), [ty, ty, ty, Type::U32])
            }
            "prmt" => {
                let ty = form.ty()?;
                let mode = form.one_of(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]).unwrap_or_default();
                let apply = alu::byte_permute(mode).ok_or_else(|| form.unsupported())?;
                if ty != Type::B32 {
                    return Err(form.unsupported());
                }
                self.ternary_types(form, apply, [ty; 4])
            }
            _ => {
                let half = form.one_of(&["lo", "hi"]);
                let key = half.map_or_else(|| form.name.to_owned(), |half| format!("{}.{half}", form.name));
                let (a, b) = (form.ty()?, form.ty()?);
                let apply = alu::dot_product(&key, a, b).ok_or_else(|| form.unsupported())?;
                let sum = if a.is_signed() || b.is_signed() { Type::S32 } else { Type::U32 };
                self.ternary_types(form, apply, [sum, a, b, sum])
            }
        }
    }

    fn compare(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        let names = [
            "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu",
            "geu", "num", "nan",
        ];
        let name = form
            .one_of(&names)
            .ok_or_else(|| form.place.invalid(format!("`{}` names no comparison", form.opcode)))?;
        let combine = form.one_of(&["and", "or", "xor"]).map(|word| match word {
            "and" => Combine::And,
            "or" => Combine::Or,
            _ => Combine::Xor,
        });
        let flush = form.flag("ftz");
        let sets = form.name == "set";
        let result = if sets { form.ty()? } else { Type::Pred };
        let ty = form.ty()?;
        let compare = comparison(name, ty, flush)
            .ok_or_else(|| form.place.invalid(format!("`{}` does not exist for this type", form.opcode)))?;
        let count = if combine.is_some() { 4 } else { 3 };
        form.operands(count, count)?;
        let first = Self::at(form, 0)?;
        let a = self.source(Self::at(form, 1)?, ty)?;
        let b = self.source(Self::at(form, 2)?, ty)?;
        let combine: Option<(Combine, Predicate)> = match combine {
            Some(how) => Some((how, self.predicate(Self::at(form, 3)?)?)),
            None => None,
        };
        if sets {
            let yes = match result {
                Type::U32 | Type::S32 => 0xffff_ffff,
                Type::F32 => 0x3f80_0000,
                _ => return Err(form.unsupported()),
            };
            return Ok(Op::Set { compare, combine, to: self.destination(first, result)?, yes, a, b });
        }
        let (to, other) = self.destination_pair(first, Type::Pred)?;
        Ok(Op::Compare { compare, combine, to, other, a, b })
    }

    fn select(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        let flush = form.flag("ftz");
        let ty = form.ty()?;
        form.operands(4, 4)?;
        let to = self.destination(Self::at(form, 0)?, ty)?;
        let a = self.source(Self::at(form, 1)?, ty)?;
        let b = self.source(Self::at(form, 2)?, ty)?;
        let third: &Operand<'a> = Self::at(form, 3)?;
        if form.name == "selp" {
            if flush || ty.bits() < 16 {
                return Err(form.unsupported());
            }
            return Ok(Op::Select { to, a, b, predicate: self.predicate(third)? });
        }
        let chooser = form.ty()?;
        let keeps: fn(u64) -> bool = match (chooser, flush) {
            (Type::S32, false) => |c| c >> 31 & 1 == 0,
            // -0 is not below zero, NaN is not above; flushed subnormals are zeros.
            (Type::F32, false) => |c| c & 0x7fff_ffff == 0 || c <= 0x7f80_0000,
            (Type::F32, true) => |c| c & 0x7f80_0000 == 0 || c <= 0x7f80_0000,
            _ => return Err(form.unsupported()),
        };
        Ok(Op::SelectBy { keeps, to, a, b, c: self.source(third, chooser)? })
    }

    fn test(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        let kinds = ["finite", "infinite", "number", "notanumber", "normal", "subnormal"];
        let kind = form.one_of(&kinds).ok_or_else(|| form.unsupported())?;
        let ty = form.ty()?;
        macro_rules! test {
            (|$a:ident| $body:expr) => {
                match ty {
                    Type::F32 => {
                        (|x| {
                            #[expect(clippy::cast_possible_truncation, reason = "the register holds 32 bits")]
                            let $a = f32::from_bits(x as u32);
                            u64::from($body)
                        }) as Unary
                    }
                    Type::F64 => |x| {
                        let $a = f64::from_bits(x);
                        u64::from($body)
                    },
                    _ => return Err(form.unsupported()),
                }
            };
        }
        let apply = match kind {
            "finite" => test!(|a| a.is_finite()),
            "infinite" => test!(|a| a.is_infinite()),
            "number" => test!(|a| !a.is_nan()),
            "notanumber" => test!(|a| a.is_nan()),
            "normal" => test!(|a| a.is_normal()),
            _ => test!(|a| a.is_subnormal()),
        };
        self.unary_op(form, apply, Type::Pred, ty)
    }

    fn convert(&mut self, form: &mut Form<'_, 'a>) -> Parsed<Op> {
        let integral = form.integral_rounding();
        let rounding = form.rounding();
        let flush = form.flag("ftz");
        let saturate = form.flag("sat");
        let (to, from) = (form.ty()?, form.ty()?);
        if matches!(to, Type::F16x2 | Type::Bf16x2) {
            let apply = alu::narrowing(to, rounding.unwrap_or(Rounding::NearestEven))
                .filter(|_| from == Type::F32 && rounding.is_some() && !saturate && !flush)
                .ok_or_else(|| form.unsupported())?;
            return self.binary_types(form, apply, to, from, from);
        }
        form.operands(2, 2)?;
        let shapes = matches!(to, Type::Pred) || matches!(from, Type::Pred | Type::F16x2 | Type::Bf16x2);
        if shapes || to.is_untyped() || from.is_untyped() {
            return Err(form.place.invalid(format!("`{}` is not a conversion", form.opcode)));
        }
        let to_float = to.is_float();
        let chosen = match (to_float, from.is_float()) {
            (false, false) => Some(Rounding::Zero),
            (false, true) => integral,
            (true, false) => rounding,
            // Widening is exact and takes no rounding; narrowing needs one.
            (true, true) if to.bits() > from.bits() => rounding.or(Some(Rounding::NearestEven)),
            (true, true) if to == from => integral.or(rounding).or(Some(Rounding::NearestEven)),
            (true, true) => rounding.or(integral),
        };
        let Some(chosen) = chosen else {
            return Err(form.place.invalid(format!("`{}` names no rounding", form.opcode)));
        };
        let convert = Conversion {
            from,
            to,
            rounding: chosen,
            integral: integral.is_some() && to_float,
            saturate,
            flush,
        };
        let (slot, bits) = self.destination_register(Self::at(form, 0)?, to, Fit::Wider)?;
        let a = self.source_fitting(Self::at(form, 1)?, from, Fit::Wider)?;
        Ok(Op::Convert { convert, extend: extension(to, bits), to: slot, a })
    }
}

fn double_width(ty: Type) -> Type {
    match ty {
        Type::U16 => Type::U32,
        Type::S16 => Type::S32,
        Type::U32 => Type::U64,
        _ => Type::S64,
    }
}

/// A comparison by its name. The unsigned names work on unsigned and untyped integers alone.
fn comparison(name: &str, ty: Type, flush: bool) -> Option<Compare> {
    if ty.is_float() {
        return if flush { alu::compare_float_flushed(name, ty) } else { alu::compare_float(name, ty) };
    }
    let unsigned = matches!(ty, Type::U16 | Type::U32 | Type::U64);
    let comparison = match name {
        "eq" => Comparison::Equal,
        "ne" => Comparison::NotEqual,
        "lt" => Comparison::Less,
        "le" => Comparison::LessEqual,
        "gt" => Comparison::Greater,
        "ge" => Comparison::GreaterEqual,
        "lo" if unsigned => Comparison::Less,
        "ls" if unsigned => Comparison::LessEqual,
        "hi" if unsigned => Comparison::Greater,
        "hs" if unsigned => Comparison::GreaterEqual,
        _ => return None,
    };
    alu::compare_integer(comparison, ty)
}
