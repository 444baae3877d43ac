//! The command line.

pub mod audit;
pub mod audit_log;
pub mod certs;
pub mod check;
pub mod client;
pub mod daemon;
pub mod event;
pub mod exec;
pub mod loans;
pub mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::model::defaults;
use crate::telemetry::LogFormat;

/// Meters each tenant's share of a node's GPUs.
#[derive(Debug, Parser)]
#[command(name = "headgate", version, about, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve this node: hand out seats, open and close gates, expose metrics.
    #[command(
        after_help = "Exit codes:\n  0  stopped by SIGTERM or SIGINT\n  1  the configuration is wrong\n  \
                            2  the configuration cannot be read\n  3  the daemon cannot run (socket, state \
                            directory, port)\n\nSIGHUP reads the configuration again. RUST_LOG chooses what is \
                            logged (default: info)."
    )]
    Daemon(DaemonArgs),
    /// Run a command as a tenant.
    #[command(after_help = "Exit codes:\n  125  the daemon does not answer or refuses, or there is no hook \
                            library\n  126  COMMAND cannot be started\n  127  COMMAND is not found\n  otherwise \
                            COMMAND's own: headgate becomes COMMAND, so signals and status pass through")]
    Run(RunArgs),
    /// Show tenants, their quotas and what they use.
    #[command(after_help = "Exit codes:\n  0  printed\n  3  no daemon answers")]
    Status(StatusArgs),
    /// Raise tenants' classes for a time.
    #[command(after_help = "Exit codes:\n  0  done\n  3  no daemon answers, or it refuses")]
    Event(EventArgs),
    /// Watch something for a while that is too dear to watch always, or check what was written down.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Show what is lent and borrowed, or why.
    #[command(
        after_help = "Exit codes:\n  0  printed\n  1  nothing was decided about the tenant lately\n  3  no daemon \
                            answers, or the node has no loans"
    )]
    Loans(LoansArgs),
    /// Show the other nodes this one knows.
    #[command(after_help = "Exit codes:\n  0  printed\n  3  no daemon answers, or the node has no loans")]
    Peers(PeersArgs),
    /// Make certificates for test and small installs.
    Certs(CertsArgs),
    /// Check a configuration file without using it.
    #[command(
        after_help = "Exit codes:\n  0  the configuration is right\n  1  it is wrong; every problem is \
                            printed as file:line:column\n  2  it cannot be read"
    )]
    CheckConfig(CheckArgs),
}

#[derive(Debug, Args)]
struct DaemonArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Form of the log on standard error.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The tenant.
    #[arg(long, value_name = "NAME")]
    tenant: String,
    /// Use a borrowed device of another node instead of this node's own.
    #[arg(long)]
    remote: bool,
    /// Use this node's own device, even where the tenant's `borrow.programs` is `next` and it holds a loan.
    #[arg(long, conflicts_with = "remote")]
    local: bool,
    /// The district that shall lend it; this node's own for its own device, without the network.
    #[arg(long, value_name = "DISTRICT", requires = "remote")]
    lender: Option<String>,
    /// Where the program finds the borrowed device; otherwise beside this node's driver if it has one (libcuda.so.1), and
    /// in a driver's place if not.
    #[arg(long, value_enum, value_name = "WAY", requires = "remote")]
    way: Option<Way>,
    #[command(flatten)]
    socket: SocketArgs,
    /// The device to be on, where several are shared by space: its UUID.
    #[arg(long, value_name = "UUID", conflicts_with = "remote")]
    gpu: Option<String>,
    /// The hook library; otherwise the one the daemon names, or the one beside this binary.
    #[arg(long, env = "HEADGATE_HOOK", value_name = "FILE")]
    hook: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<std::ffi::OsString>,
}

/// Where a program finds a borrowed device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Way {
    /// In the place of this node's own device, beside its driver: for programs on the CUDA runtime, too.
    Redirect,
    /// In the place of a driver: for programs on the driver API, where there is no driver.
    StandIn,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// Print the whole status as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: SocketArgs,
}

#[derive(Debug, Args)]
struct EventArgs {
    #[command(subcommand)]
    what: EventCommand,
}

#[derive(Debug, Subcommand)]
enum EventCommand {
    /// Tenants go in a higher class until the event ends; they fall back by themselves.
    Start {
        /// What to call it. One of the same name that this district has under way gives way.
        #[arg(value_name = "NAME")]
        name: String,
        /// Whom it raises: tenants of this node by name, any other as DISTRICT/NAME.
        #[arg(long, value_delimiter = ',', required = true, value_name = "NAMES")]
        tenants: Vec<String>,
        /// Into which class; nobody is lowered.
        #[arg(long, default_value = "express", value_name = "CLASS")]
        class: String,
        /// For how long: a number and s, m, h or d.
        #[arg(long = "for", value_name = "SPAN", value_parser = event::span)]
        span: std::time::Duration,
        /// Call back at once what these tenants have lent, before they need it.
        #[arg(long)]
        reclaim: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Tenants fall back to their own class now.
    End {
        /// Which event of this district.
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Events under way.
    List {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// The GPU driver's ioctls: how often, how long, by tenant. Every system call of the node costs some tens of
    /// nanoseconds more meanwhile.
    #[command(after_help = "Exit codes:\n  0  printed\n  3  no daemon answers, or the kernel refuses")]
    Ioctl(AuditArgs),
    /// Follow the chain of a loans' audit log from the first line to the last, through all its files.
    #[command(after_help = "Exit codes:\n  0  the log is whole\n  1  it is not\n  2  it cannot be read")]
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
struct AuditArgs {
    /// For how long, such as 60s.
    #[arg(long = "for", value_name = "SPAN", default_value = "60s", value_parser = audit::span)]
    span: std::time::Duration,
    /// Print what was seen as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: SocketArgs,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The configuration.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
struct LoansArgs {
    #[command(subcommand)]
    command: Option<LoansCommand>,
    /// Print everything as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Print again every second.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    socket: SocketArgs,
}

#[derive(Debug, Subcommand)]
enum LoansCommand {
    /// The last decisions about a tenant, each with its reason.
    Why {
        /// The tenant: NAME of this node's district, or DISTRICT/NAME.
        tenant: String,
    },
}

#[derive(Debug, Args)]
struct PeersArgs {
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: SocketArgs,
}

#[derive(Debug, Args)]
struct CertsArgs {
    #[command(subcommand)]
    command: CertsCommand,
}

#[derive(Debug, Subcommand)]
enum CertsCommand {
    /// Make a district's authority.
    Init {
        /// The district it may vouch for.
        #[arg(long)]
        district: String,
        /// Where to write DISTRICT-ca.pem and DISTRICT-ca.key.
        #[arg(long, default_value = ".", value_name = "DIRECTORY")]
        dir: PathBuf,
        /// For how long it is valid.
        #[arg(long, default_value_t = 3650)]
        days: u32,
    },
    /// Make a node's certificate.
    Issue {
        /// The node's district.
        #[arg(long)]
        district: String,
        /// The node's name, as its configuration has it.
        #[arg(long)]
        node: String,
        /// Where the authority is, and where to write DISTRICT.NODE.pem and DISTRICT.NODE.key.
        #[arg(long, default_value = ".", value_name = "DIRECTORY")]
        dir: PathBuf,
        /// For how long it is valid.
        #[arg(long, default_value_t = 90)]
        days: u32,
    },
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The log, audit.log; the full files beside it are read with it. A full file is checked by itself.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where the log must go on from, if its oldest files were archived: SEQUENCE:DIGEST.
    #[arg(long, value_name = "HEAD")]
    from: Option<String>,
    /// Where the log must end, as noted elsewhere: SEQUENCE:DIGEST.
    #[arg(long, value_name = "HEAD")]
    head: Option<String>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// How to find the daemon.
#[derive(Debug, Args)]
struct SocketArgs {
    /// The daemon's admin socket.
    #[arg(long, env = "HEADGATE_ADMIN_SOCKET", value_name = "SOCKET")]
    admin_socket: Option<PathBuf>,
    /// Take the admin socket from this configuration.
    #[arg(long, value_name = "FILE", conflicts_with = "admin_socket")]
    config: Option<PathBuf>,
}

impl SocketArgs {
    fn path(&self) -> Result<PathBuf, crate::config::ConfigError> {
        match (&self.admin_socket, &self.config) {
            (Some(path), _) => Ok(path.clone()),
            (None, Some(file)) => Ok(crate::config::load(file)?.config.sockets.admin),
            (None, None) => Ok(defaults::ADMIN_SOCKET.into()),
        }
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Daemon(args) => daemon::main(&args.config, args.log_format),
        Command::Run(args) => exec::main(&args),
        Command::Status(args) => status::main(&args),
        Command::Event(args) => event::main(&args.what),
        Command::Audit(AuditCommand::Ioctl(args)) => audit::main(&args),
        Command::Loans(args) => loans::loans(&args),
        Command::Peers(args) => loans::peers(&args),
        Command::Certs(args) => certs::main(&args),
        Command::Audit(AuditCommand::Verify(args)) => audit_log::main(&args),
        Command::CheckConfig(args) => check::main(&args.file),
    }
}

/// The hook library as it is installed or built: beside the binary, or in `../lib/headgate`.
#[must_use]
pub fn hook_beside_binary() -> Option<PathBuf> {
    const NAME: &str = "libheadgate_hook.so";
    let binary = std::env::current_exe().ok()?;
    let beside = binary.parent()?;
    let places = [beside.join(NAME), beside.join("../lib/headgate").join(NAME)];
    places.into_iter().find(|path| path.is_file())
}

/// One line to standard error.
#[expect(clippy::print_stderr, reason = "the command line's own voice; it has no log")]
fn complain(text: impl std::fmt::Display) {
    eprintln!("headgate: {text}");
}
