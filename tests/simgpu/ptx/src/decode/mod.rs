//! From statements to code: names are resolved, types checked, opcodes understood. An instruction or modifier that is
//! not known is an error here, so that a kernel that loads is one that can run.
//!
//! `form` holds one instruction, `names` the scopes, `operand` turns operands into sources and destinations, and the
//! three families `arithmetic`, `data` and `control` know the opcodes.

mod arithmetic;
mod control;
mod data;
mod form;
mod names;
mod operand;

use std::collections::{BTreeSet, HashMap};

use crate::code::{FrameRange, Instruction, Op, Predicate};
use crate::error::ParseError;
use crate::limits;
use crate::module::{Entry, Function, Param};
use crate::text::syntax::{Routine, Statement, Variable};
use crate::types::Space;

pub(crate) use control::reachable;
use form::Form;
pub(crate) use form::Parsed;
pub(crate) use names::{Global, same_signature};
use names::{Layout, Local, Scopes};
pub(crate) use operand::literal;

/// What a function can see of its module.
#[derive(Debug)]
pub(crate) struct Outside<'a> {
    pub(crate) names: HashMap<&'a str, Global>,
    /// Offsets and sizes of parameters and returns, by function; `None` for an entry.
    pub(crate) signatures: Vec<Option<Signature>>,
    /// Shared variables of the module, and then those of functions as they are met.
    pub(crate) shared: Vec<crate::module::SharedVariable>,
}

#[derive(Debug, Clone)]
pub(crate) struct Signature {
    pub(crate) name: String,
    pub(crate) params: Vec<u32>,
    pub(crate) returns: Vec<u32>,
    pub(crate) has_body: bool,
}

/// The state of decoding one function.
pub(crate) struct Decoder<'a, 'o> {
    scopes: Scopes<'a>,
    outside: &'o mut Outside<'a>,
    is_entry: bool,
    local: Layout,
    params: Layout,
    shared_used: BTreeSet<u32>,
    calls: BTreeSet<u32>,
    calls_pointers: bool,
}

/// Decodes a function with a body.
pub(crate) fn function<'a>(
    routine: &Routine<'a>,
    body: &[Statement<'a>],
    outside: &mut Outside<'a>,
) -> Parsed<Function> {
    let mut decoder = Decoder {
        scopes: Scopes::new(labels(body)?),
        outside,
        is_entry: routine.is_entry,
        local: Layout::default(),
        params: Layout::default(),
        shared_used: BTreeSet::new(),
        calls: BTreeSet::new(),
        calls_pointers: false,
    };
    decoder.scopes.open();
    let (entry, returns, params) = decoder.signature(routine)?;
    let mut code = Vec::new();
    for statement in body {
        decoder.statement(statement, &mut code)?;
    }
    // Whoever runs off the end returns; a label at the end needs something to point at.
    code.push(Instruction { guard: None, op: Op::Return, line: routine.place.line });
    let registers = decoder.scopes.slots();
    Ok(Function {
        name: routine.name.to_owned(),
        line: routine.place.line,
        code,
        registers,
        local_bytes: u32::try_from(decoder.local.bytes.next_multiple_of(16)).unwrap_or(u32::MAX),
        local_align: decoder.local.align.max(16),
        param_bytes: u32::try_from(decoder.params.bytes.next_multiple_of(16)).unwrap_or(u32::MAX),
        params,
        returns,
        shared_used: decoder.shared_used,
        calls: decoder.calls,
        calls_pointers: decoder.calls_pointers,
        entry,
    })
}

/// Where every label points, by scope.
fn labels<'a>(body: &[Statement<'a>]) -> Parsed<HashMap<(u32, &'a str), u32>> {
    let mut found = HashMap::new();
    let mut open = vec![0u32];
    let (mut scopes, mut at) = (1u32, 0u32);
    for statement in body {
        match statement {
            Statement::Open => {
                open.push(scopes);
                scopes += 1;
            }
            Statement::Close => {
                open.pop();
            }
            Statement::Instruction(_) => at += 1,
            Statement::Label(name, place) => {
                let scope = open.last().copied().unwrap_or(0);
                if found.insert((scope, *name), at).is_some() {
                    return Err(place.invalid(format!("the label `{name}` stands twice")));
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

impl<'a> Decoder<'a, '_> {
    fn signature(
        &mut self,
        routine: &Routine<'a>,
    ) -> Parsed<(Option<Entry>, Vec<FrameRange>, Vec<FrameRange>)> {
        if routine.is_entry {
            let mut layout = Layout::default();
            let mut params = Vec::new();
            for variable in &routine.params {
                let offset = layout.place(variable, limits::KERNEL_PARAM_BYTES_MAX, "kernel parameters")?;
                let bytes = size(variable)?;
                let memory = Local::Memory { space: Space::KernelParam, offset, bytes };
                self.scopes.declare(variable.name, memory, variable.place)?;
                params.push(Param { offset, bytes, align: narrow(variable.align) });
            }
            let entry = Entry {
                params,
                param_bytes: narrow(layout.bytes),
                max_threads: routine.max_threads,
                required_threads: routine.required_threads,
            };
            return Ok((Some(entry), Vec::new(), Vec::new()));
        }
        let mut ranges = |list: &[Variable<'a>]| {
            list.iter().map(|variable| self.frame_param(variable)).collect::<Parsed<Vec<_>>>()
        };
        let returns = ranges(&routine.returns)?;
        let params = ranges(&routine.params)?;
        Ok((None, returns, params))
    }

    fn frame_param(&mut self, variable: &Variable<'a>) -> Parsed<FrameRange> {
        let offset = self.params.place(variable, limits::FUNCTION_PARAM_BYTES_MAX, "parameters")?;
        let bytes = size(variable)?;
        let memory = Local::Memory { space: Space::FrameParam, offset, bytes };
        self.scopes.declare(variable.name, memory, variable.place)?;
        Ok(FrameRange { offset, bytes })
    }

    fn statement(&mut self, statement: &Statement<'a>, code: &mut Vec<Instruction>) -> Parsed<()> {
        match statement {
            Statement::Open => self.scopes.open(),
            Statement::Close => self.scopes.close(),
            Statement::Register { name, count, register, place } => {
                self.scopes.declare_registers(name, *count, *register, *place)?;
            }
            Statement::Variable(variable) => self.variable(variable)?,
            Statement::Label(..) => {}
            Statement::Targets(name, targets, place) => {
                self.scopes.declare(name, Local::Targets(targets.clone()), *place)?;
            }
            Statement::Prototype(name, returns, params, place) => {
                let prototype = Local::Prototype { returns: returns.clone(), params: params.clone() };
                self.scopes.declare(name, prototype, *place)?;
            }
            Statement::Instruction(instruction) => {
                let guard = match instruction.guard {
                    Some((name, negated)) => {
                        let slot = self.predicate_slot(name, instruction.place)?;
                        Some(Predicate { slot, negated })
                    }
                    None => None,
                };
                let mut form = Form::new(instruction);
                let op = self.op(&mut form)?;
                form.finish()?;
                code.push(Instruction { guard, op, line: instruction.place.line });
            }
        }
        Ok(())
    }

    fn op(&mut self, form: &mut Form<'_, 'a>) -> Result<Op, ParseError> {
        if let Some(op) = self.data(form)? {
            return Ok(op);
        }
        if let Some(op) = self.arithmetic(form)? {
            return Ok(op);
        }
        if let Some(op) = self.control(form)? {
            return Ok(op);
        }
        Err(form.unsupported())
    }

    fn variable(&mut self, variable: &Variable<'a>) -> Parsed<()> {
        match variable.space {
            Space::Local => {
                let offset = self.local.place(variable, limits::LOCAL_BYTES_MAX, "local memory")?;
                let memory = Local::Memory { space: Space::Local, offset, bytes: size(variable)? };
                self.scopes.declare(variable.name, memory, variable.place)
            }
            Space::Shared => {
                let offset = self.outside.add_shared(variable)?;
                let memory = Local::Memory { space: Space::Shared, offset, bytes: 0 };
                self.scopes.declare(variable.name, memory, variable.place)
            }
            Space::FrameParam => self.frame_param(variable).map(drop),
            _ => Err(variable
                .place
                .unsupported(format!("`{}`: .global and .const variables inside a function", variable.name))),
        }
    }
}

impl Outside<'_> {
    /// Notes a shared variable and returns its index.
    pub(crate) fn add_shared(&mut self, variable: &Variable<'_>) -> Parsed<u32> {
        if variable.bytes > limits::SHARED_BYTES_MAX {
            let message = format!(
                "`{}` has {} bytes of shared memory; a block has at most {}",
                variable.name,
                variable.bytes,
                limits::SHARED_BYTES_MAX
            );
            return Err(variable.place.limit(message));
        }
        let index = u32::try_from(self.shared.len())
            .map_err(|_| variable.place.limit("more shared variables than can be counted"))?;
        self.shared.push(crate::module::SharedVariable {
            bytes: narrow(variable.bytes),
            align: narrow(variable.align),
        });
        Ok(index)
    }
}

fn size(variable: &Variable<'_>) -> Parsed<u32> {
    if variable.bytes == 0 {
        return Err(variable.place.invalid(format!("`{}` has no size", variable.name)));
    }
    u32::try_from(variable.bytes)
        .map_err(|_| variable.place.limit(format!("`{}` is larger than 4 GiB", variable.name)))
}

/// For sizes that a limit already keeps below 32 bits.
pub(crate) fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
