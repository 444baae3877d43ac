//! `headgate run`: ask to be placed, then become the command.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::{RunArgs, Way, client, complain, hook_beside_binary};
use crate::admin::{Place, Request, SpacePlace};
use crate::remote::RemotePlace;
use crate::sys;

/// Headgate's own failures, as env(1) and timeout(1) number them.
const FAILED: u8 = 125;
const CANNOT_START: u8 = 126;
const NOT_FOUND: u8 = 127;

pub(super) fn main(args: &RunArgs) -> ExitCode {
    match prepare(args) {
        Ok(mut command) => {
            let error = command.exec();
            complain(format_args!("{}: {error}", command.get_program().display()));
            ExitCode::from(if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { CANNOT_START })
        }
        Err(text) => {
            complain(text);
            ExitCode::from(FAILED)
        }
    }
}

fn prepare(args: &RunArgs) -> Result<Command, String> {
    let [program, arguments @ ..] = args.command.as_slice() else {
        return Err("no command; write it after --".to_owned());
    };
    let socket = args.socket.path().map_err(|error| error.to_string())?;
    // Found before anything is asked, so that a missing library moves nobody.
    let own = args.hook.clone().or_else(hook_beside_binary);
    let place: Place =
        client::ask(&socket, &Request::Place { tenant: args.tenant.clone(), gpu: args.gpu.clone() })
            .map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(arguments);
    let next = place.remote.as_ref().and_then(|remote| remote.next.as_deref());
    let next = next.filter(|_| !args.remote && !args.local && args.gpu.is_none());
    if let Some(district) = next {
        let tenant = &place.tenant;
        complain(format_args!(
            "tenant `{tenant}` borrows in {district}, and this starts there; --local starts it here"
        ));
    }
    if args.remote || next.is_some() {
        far(&mut command, &place, args, own.or_else(|| place.hook.clone()))?;
    } else {
        side_by_side(&mut command, &place)?;
        let preload = preload(own.or_else(|| place.hook.clone()))?;
        command.env("LD_PRELOAD", preload).env("HEADGATE_SOCKET", &place.socket);
    }
    note(&place);
    Ok(command)
}

/// On a device that is shared by space a program says by its environment which part is its own. What it said itself does
/// not count.
fn side_by_side(command: &mut Command, place: &Place) -> Result<(), String> {
    match &place.space {
        SpacePlace::None => Ok(()),
        SpacePlace::Missing(why) => Err(why.clone()),
        SpacePlace::Environment(variables) => {
            for name in headgate_abi::space::VARIABLES {
                command.env_remove(name);
            }
            command.envs(variables);
            Ok(())
        }
    }
}

/// Puts the client in the place of the driver, or of the device beside it. The hook stands in front of the worker, where the
/// device is; beside a driver also in front of that one, which the program starts but does not compute with.
fn far(command: &mut Command, place: &Place, args: &RunArgs, hook: Option<PathBuf>) -> Result<(), String> {
    let remote = place.remote.as_ref().ok_or("the daemon carries no remote sessions; is it an older one?")?;
    let mut address = OsString::from("daemon:");
    if let Some(lender) = args.lender.as_deref() {
        address.push(lender);
        address.push("@");
    }
    address.push(&remote.socket);
    command.env("HEADGATE_REMOTE", address);
    let way = args.way.unwrap_or_else(|| {
        if remote.redirect.is_some() && sys::loads(c"libcuda.so.1") { Way::Redirect } else { Way::StandIn }
    });
    match way {
        Way::Redirect => beside(command, place, remote, hook),
        Way::StandIn => instead(command, remote),
    }
}

/// Beside this node's driver.
fn beside(
    command: &mut Command,
    place: &Place,
    remote: &RemotePlace,
    hook: Option<PathBuf>,
) -> Result<(), String> {
    let redirect = remote.redirect.as_ref().ok_or(
        "the daemon found no libheadgate_redirect.so beside its binary; install it there or in ../lib/headgate",
    )?;
    // In front of the hook, which so stands in front of the driver alone.
    let preload = in_front(redirect, Some(preload(hook)?))?;
    command.env("LD_PRELOAD", preload).env("HEADGATE_SOCKET", &place.socket);
    Ok(())
}

/// In the place of a driver.
fn instead(command: &mut Command, remote: &RemotePlace) -> Result<(), String> {
    let libraries = remote.libraries.as_ref().ok_or(
        "the daemon found no libheadgate_remote.so beside its binary; install it there or in ../lib/headgate",
    )?;
    let mut path = libraries.clone().into_os_string();
    if let Some(before) = std::env::var_os("LD_LIBRARY_PATH").filter(|before| !before.is_empty()) {
        path.push(":");
        path.push(before);
    }
    command.env("LD_LIBRARY_PATH", path);
    Ok(())
}

/// The hook in front of whatever is preloaded already.
fn preload(hook: Option<PathBuf>) -> Result<OsString, String> {
    let hook = hook.ok_or(
        "no libheadgate_hook.so beside this binary; name it with --hook or HEADGATE_HOOK, or build it with \
         `cargo build -p headgate-hook`",
    )?;
    let hook = std::path::absolute(&hook).map_err(|error| format!("{}: {error}", hook.display()))?;
    if !hook.is_file() {
        return Err(format!("there is no hook library at {}", hook.display()));
    }
    in_front(&hook, std::env::var_os("LD_PRELOAD").filter(|before| !before.is_empty()))
}

/// A library in front of what else is preloaded.
fn in_front(library: &Path, others: Option<OsString>) -> Result<OsString, String> {
    if splits(library) {
        return Err(format!(
            "the loader splits LD_PRELOAD at blanks and colons, so {} cannot be preloaded; move it",
            library.display()
        ));
    }
    let mut preload = library.as_os_str().to_owned();
    if let Some(others) = others {
        preload.push(OsStr::new(":"));
        preload.push(others);
    }
    Ok(preload)
}

fn splits(path: &Path) -> bool {
    path.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b':' | b' ' | b'\t' | b'\n'))
}

/// Says once where identity is the weaker kind: a user would otherwise not know.
fn note(place: &Place) {
    if place.cgroup.is_none() {
        let note = place.note.as_deref().map(|note| format!(": {note}")).unwrap_or_default();
        complain(format_args!("tenant `{}` is known by process tree, not by cgroup{note}", place.tenant));
    }
}
