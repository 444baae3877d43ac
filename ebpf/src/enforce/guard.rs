//! Guards on tenants' network interfaces, for frames that no packet program sees.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::maps::{HashMap, MapData, MapError};
use aya_obj::generated::bpf_attach_type::{self, BPF_TCX_EGRESS, BPF_TCX_INGRESS};
use headgate_ebpf_records::maps;

use crate::{
    enforce::{
        border::{Border, load_program, map_of},
        pins::Pins,
    },
    error::{Error, chain},
    probes::absent_is_fine,
    status::Part,
};

/// On which end of a tenant's virtual cable a guard sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The host's end, as frames come in: out of the tenant's reach, and behind every way of sending. Prefer it.
    HostIngress,
    /// The interface itself, as frames go out. A sender with `PACKET_QDISC_BYPASS` goes around it.
    Egress,
}

impl Side {
    const fn attach_type(self) -> bpf_attach_type {
        match self {
            Self::HostIngress => BPF_TCX_INGRESS,
            Self::Egress => BPF_TCX_EGRESS,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::HostIngress => "host",
            Self::Egress => "egress",
        }
    }
}

/// Guards that are up.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    links: BTreeMap<String, OwnedFd>,
    loaded: bool,
}

/// What all pins of guards begin with.
const PREFIX: &str = "guard-";

fn pin_name(interface: u32, side: Side) -> String {
    format!("{PREFIX}{interface}-{}", side.name())
}

impl Guards {
    /// Finds the guards that an earlier loader has left, puts today's program into them and drops those whose interface is gone.
    pub(crate) fn adopt(border: &mut Border, pins: &Pins) -> Result<Self, String> {
        let mut guards = Self::default();
        guards.load(border).map_err(|error| error.to_string())?;
        for name in pins.names(PREFIX).map_err(|error| error.to_string())? {
            let adopted = parse(&name).map(|(interface, side)| guards.attach(border, pins, interface, side));
            if let Some(Ok(())) = adopted {
                continue;
            }
            tracing::info!(pin = name, "a guard's interface is gone; its pin is removed");
            pins.unpin(&name).map_err(|error| error.to_string())?;
            if let Some((interface, _)) = parse(&name) {
                forget(border, interface).map_err(|error| chain(&error))?;
            }
        }
        Ok(guards)
    }

    pub(crate) fn count(&self) -> usize {
        self.links.len()
    }

    /// Guards an interface for a tenant. The tenant is named before the program comes.
    pub(crate) fn set(
        &mut self,
        border: &mut Border,
        pins: &Pins,
        interface: u32,
        side: Side,
        row: u32,
    ) -> Result<(), Error> {
        table(border)
            .and_then(|mut table| table.insert(interface, row, 0))
            .map_err(|error| refused(chain(&error)))?;
        self.load(border)?;
        self.attach(border, pins, interface, side)
    }

    pub(crate) fn remove(
        &mut self,
        border: &mut Border,
        pins: &Pins,
        interface: u32,
        side: Side,
    ) -> Result<(), Error> {
        let name = pin_name(interface, side);
        pins.unpin(&name).map_err(refused)?;
        self.links.remove(&name);
        let other = match side {
            Side::HostIngress => Side::Egress,
            Side::Egress => Side::HostIngress,
        };
        if !self.links.contains_key(&pin_name(interface, other)) {
            forget(border, interface).map_err(|error| refused(chain(&error)))?;
        }
        Ok(())
    }

    fn load(&mut self, border: &mut Border) -> Result<(), Error> {
        if !self.loaded {
            let program = border
                .ebpf
                .program_mut(maps::BORDER_FRAME)
                .ok_or_else(|| refused("the object holds no such program"))?;
            load_program(program).map_err(|error| refused(chain(&error)))?;
            self.loaded = true;
        }
        Ok(())
    }

    fn attach(&mut self, border: &Border, pins: &Pins, interface: u32, side: Side) -> Result<(), Error> {
        let program = border
            .ebpf
            .program(maps::BORDER_FRAME)
            .ok_or_else(|| refused("the object holds no such program"))?;
        let fd = program.fd().map_err(|error| refused(chain(&error)))?;
        let name = pin_name(interface, side);
        let link = pins.link_interface(&name, fd.as_fd(), interface, side.attach_type()).map_err(refused)?;
        self.links.insert(name, link);
        Ok(())
    }
}

fn refused(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::part(Part::RawFrameGuard, "guarding a network interface", source)
}

fn parse(pin: &str) -> Option<(u32, Side)> {
    let (number, side) = pin.strip_prefix(PREFIX)?.split_once('-')?;
    let side = [Side::HostIngress, Side::Egress].into_iter().find(|known| known.name() == side)?;
    Some((number.parse().ok()?, side))
}

fn table(border: &mut Border) -> Result<HashMap<&mut MapData, u32, u32>, MapError> {
    map_of(&mut border.ebpf, maps::GUARDED)?.try_into()
}

fn forget(border: &mut Border, interface: u32) -> Result<(), MapError> {
    absent_is_fine(table(border)?.remove(&interface))
}
