//! What the hook reads from the environment, once: where the daemon's socket is and whether to log. Nothing
//! here can change a quota.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;

/// Where a daemon listens unless told otherwise.
const SOCKET_DEFAULT: &str = "/run/headgate/control.sock";

/// The environment, as far as it concerns the hook.
#[derive(Debug)]
pub(crate) struct Config {
    /// Path of the daemon's control socket.
    pub(crate) socket: Vec<u8>,
    /// Whether to write one line per event to standard error.
    pub(crate) log: bool,
}

pub(crate) fn config() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(|| Config {
        socket: std::env::var_os("HEADGATE_SOCKET")
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| OsString::from(SOCKET_DEFAULT))
            .into_vec(),
        log: std::env::var_os("HEADGATE_HOOK_LOG").is_some_and(|value| value != "0"),
    })
}
