//! What names mean: the module's symbols, and the nested scopes of a function with its registers.

use std::collections::HashMap;

use crate::code::Slot;
use crate::error::Place;
use crate::limits;
use crate::text::syntax::{Routine, Variable};
use crate::types::{Space, Type};

use super::form::Parsed;

/// A name of the module.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Global {
    /// A `.global` or `.const` variable.
    Variable(u32, Space),
    /// A `.shared` variable.
    Shared(u32),
    Function(u32),
}

/// A name within a function.
#[derive(Debug, Clone)]
pub(crate) enum Local<'a> {
    /// `%r<n>` or a single register; the identity of the declaration and its type.
    Registers {
        declaration: u32,
        count: Option<u32>,
        register: Type,
    },
    /// A variable in local, parameter or shared space: its offset or index.
    Memory {
        space: Space,
        offset: u32,
        bytes: u32,
    },
    Targets(Vec<(&'a str, Place)>),
    Prototype {
        returns: Vec<u64>,
        params: Vec<u64>,
    },
}

/// A register that a name stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Register {
    pub(crate) slot: Slot,
    pub(crate) register: Type,
}

/// The scopes that are open at a point of a function.
#[derive(Debug, Default)]
pub(crate) struct Scopes<'a> {
    open: Vec<(u32, HashMap<&'a str, Local<'a>>)>,
    declarations: u32,
    scopes: u32,
    slots: HashMap<(u32, u32), Slot>,
    labels: HashMap<(u32, &'a str), u32>,
}

impl<'a> Scopes<'a> {
    pub(crate) fn new(labels: HashMap<(u32, &'a str), u32>) -> Self {
        Self { labels, ..Self::default() }
    }

    /// Opens a scope. Scopes are numbered in the order of their opening, which the label pass shares.
    pub(crate) fn open(&mut self) {
        self.open.push((self.scopes, HashMap::new()));
        self.scopes += 1;
    }

    pub(crate) fn close(&mut self) {
        self.open.pop();
    }

    pub(crate) fn declare(&mut self, name: &'a str, local: Local<'a>, place: Place) -> Parsed<()> {
        let Some((_, names)) = self.open.last_mut() else { return Ok(()) };
        if names.insert(name, local).is_some() {
            return Err(place.invalid(format!("`{name}` is declared twice")));
        }
        Ok(())
    }

    pub(crate) fn declare_registers(
        &mut self,
        name: &'a str,
        count: Option<u32>,
        register: Type,
        place: Place,
    ) -> Parsed<()> {
        let declaration = self.declarations;
        self.declarations += 1;
        self.declare(name, Local::Registers { declaration, count, register }, place)
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Local<'a>> {
        self.open.iter().rev().find_map(|(_, names)| names.get(name))
    }

    pub(crate) fn label(&self, name: &str) -> Option<u32> {
        self.open.iter().rev().find_map(|(scope, _)| self.labels.get(&(*scope, name)).copied())
    }

    /// Slots handed out so far, the sink among them.
    pub(crate) fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// The register of a name: one declared so, or the n-th of a `%r<count>`. A register gets its slot when it is first
    /// mentioned, since compilers declare more than they use.
    pub(crate) fn register(&mut self, name: &str, place: Place) -> Parsed<Option<Register>> {
        let Some((key, register)) = self.register_key(name) else { return Ok(None) };
        let next = self.slots();
        if !self.slots.contains_key(&key) && next >= limits::REGISTERS_MAX {
            return Err(place.limit(format!("more than {} registers in one function", limits::REGISTERS_MAX)));
        }
        let slot = *self.slots.entry(key).or_insert(next);
        Ok(Some(Register { slot, register }))
    }

    fn register_key(&self, name: &str) -> Option<((u32, u32), Type)> {
        if let Some(Local::Registers { declaration, count: None, register }) = self.find(name) {
            return Some(((*declaration, 0), *register));
        }
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
        (name.len() - digits..name.len()).find_map(|split| {
            let (prefix, digits) = name.split_at(split);
            let index: u32 = digits.parse().ok()?;
            let canonical = digits.len() == 1 || !digits.starts_with('0');
            match self.find(prefix) {
                Some(Local::Registers { declaration, count: Some(count), register })
                    if index < *count && canonical =>
                {
                    Some(((*declaration, index), *register))
                }
                _ => None,
            }
        })
    }
}

/// A growing region of memory with aligned variables.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) bytes: u64,
    pub(crate) align: u64,
}

impl Layout {
    /// Places a variable and returns its offset.
    pub(crate) fn place(&mut self, variable: &Variable<'_>, limit: u64, what: &str) -> Parsed<u32> {
        let offset = self.bytes.next_multiple_of(variable.align.max(1));
        let end = offset.saturating_add(variable.bytes);
        if end > limit {
            return Err(variable
                .place
                .limit(format!("`{}` takes {what} beyond {limit} bytes", variable.name)));
        }
        self.bytes = end;
        self.align = self.align.max(variable.align);
        u32::try_from(offset).map_err(|_| variable.place.limit("an offset beyond 32 bits"))
    }
}

/// Whether two declarations of a function agree.
pub(crate) fn same_signature(a: &Routine<'_>, b: &Routine<'_>) -> bool {
    let sizes = |list: &[Variable<'_>]| list.iter().map(|v| v.bytes).collect::<Vec<_>>();
    a.is_entry == b.is_entry && sizes(&a.params) == sizes(&b.params) && sizes(&a.returns) == sizes(&b.returns)
}
