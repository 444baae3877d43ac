//! One device's `nvidia-cuda-mps-control`: started, asked, ended.
//!
//! It runs in the background, in a directory of its own, and outlives this daemon. Commands are given as its documentation
//! says: to the same program, on standard input, with the same directory in the environment.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::timeout;

use super::answers;
use crate::config::model::DeviceUuid;
use crate::limits::{MPS_ANSWER_BYTES_MAX, MPS_COMMAND_WAIT};

/// Its name, as NVIDIA installs it.
pub const PROGRAM: &str = "nvidia-cuda-mps-control";

/// What the program says that finds nobody to hand a command to; whether it also fails then is not documented.
const NOBODY: &str = "Cannot find MPS control daemon";

/// Why a control program does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is none. The operator is at fault.
    #[error(
        "no {PROGRAM} in PATH; install NVIDIA's MPS (it comes with the driver's compute utilities), or name it in \
         spec.mps.control"
    )]
    Missing,
    /// The kernel refuses something.
    #[error("kernel: {step}: {source}")]
    Kernel {
        /// Which step.
        step: String,
        /// What it said.
        source: io::Error,
    },
    /// It takes too long. The driver is at fault, as a rule.
    #[error("{PROGRAM} did not answer within {} s; look at dmesg and at its log in {}", MPS_COMMAND_WAIT.as_secs(), .0.display())]
    Slow(PathBuf),
    /// It says no.
    #[error("{PROGRAM} refuses `{command}`: {answer}")]
    Refused {
        /// What it was told to do.
        command: String,
        /// What it said.
        answer: String,
    },
}

/// A device's control program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Control {
    program: Option<PathBuf>,
    /// The device.
    pub gpu: DeviceUuid,
    /// Its pipes.
    pub pipe: PathBuf,
}

impl Control {
    /// That of a device, in a directory for all of them. Nothing is started.
    #[must_use]
    pub fn new(program: Option<PathBuf>, directory: &Path, gpu: DeviceUuid) -> Self {
        Self { program, gpu, pipe: directory.join(gpu.to_string()) }
    }

    /// Starts it in the background.
    ///
    /// # Errors
    /// When it is not there or does not start.
    pub async fn start(&self, partitioned: bool) -> Result<(), ControlError> {
        let log = self.pipe.join("log");
        let kernel = |step: String| move |source| ControlError::Kernel { step, source };
        std::fs::create_dir_all(&log).map_err(kernel(format!("making {}", log.display())))?;
        // Tenants' programs of any user come through the pipes.
        std::fs::set_permissions(&self.pipe, PermissionsExt::from_mode(0o755))
            .map_err(kernel(format!("opening {} to tenants", self.pipe.display())))?;
        let said = log.join("start");
        let err = std::fs::File::create(&said).map_err(kernel(format!("making {}", said.display())))?;
        let mut command = self.command()?;
        command.arg("-d").args(partitioned.then_some("-S"));
        command.env("CUDA_MPS_LOG_DIRECTORY", &log).env("CUDA_VISIBLE_DEVICES", self.gpu.to_string());
        // What goes on in the background keeps its descriptors, so that a pipe would never end.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(err);
        let status = timeout(MPS_COMMAND_WAIT, command.status()).await;
        match status.map_err(|_| ControlError::Slow(log))?.map_err(kernel(format!("starting {PROGRAM}")))? {
            status if status.success() => Ok(()),
            _ => {
                let answer = answers::complaint(&std::fs::read_to_string(said).unwrap_or_default());
                Err(ControlError::Refused { command: "-d".to_owned(), answer })
            }
        }
    }

    fn command(&self) -> Result<Command, ControlError> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => in_path().ok_or(ControlError::Missing)?,
        };
        let mut command = Command::new(program);
        command.env("CUDA_MPS_PIPE_DIRECTORY", &self.pipe).kill_on_drop(true);
        Ok(command)
    }

    /// Gives it one command and hears the answer.
    ///
    /// # Errors
    /// When nobody answers. What it answers is the caller's to judge.
    pub async fn say(&self, line: &str) -> Result<String, ControlError> {
        let kernel = |source| ControlError::Kernel { step: format!("giving `{line}` to {PROGRAM}"), source };
        let mut command = self.command()?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(kernel)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let conversation = async {
            if let Some(mut stdin) = stdin {
                stdin.write_all(format!("{line}\n").as_bytes()).await?;
            }
            let (mut answer, mut complaint) = (Vec::new(), Vec::new());
            if let (Some(stdout), Some(stderr)) = (stdout, stderr) {
                let most = MPS_ANSWER_BYTES_MAX as u64;
                let (mut stdout, mut stderr) = (stdout.take(most), stderr.take(most));
                tokio::try_join!(stdout.read_to_end(&mut answer), stderr.read_to_end(&mut complaint))?;
            }
            Ok((child.wait().await?, answer, complaint))
        };
        let (status, answer, complaint) =
            timeout(MPS_COMMAND_WAIT, conversation).await.map_err(|_| self.slow())?.map_err(kernel)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        if status.success() && !answer.contains(NOBODY) {
            return Ok(answer);
        }
        let complaint = String::from_utf8_lossy(&complaint).into_owned();
        let answer = answers::complaint(if complaint.trim().is_empty() { &answer } else { &complaint });
        Err(ControlError::Refused { command: line.to_owned(), answer })
    }

    fn slow(&self) -> ControlError {
        ControlError::Slow(self.pipe.join("log"))
    }

    /// How its device is partitioned; `None` when it answers but does not partition.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn partitions(&self) -> Result<Option<answers::Table>, ControlError> {
        Ok(answers::table(&self.say("lspart").await?, &self.gpu.to_string()))
    }

    /// Sets chunks aside; the whole name of the partition.
    ///
    /// # Errors
    /// When it does not, with what it says.
    pub async fn add(&self, chunks: u32) -> Result<String, ControlError> {
        let command = format!("sm_partition add {} {chunks}", self.gpu);
        let answer = self.say(&command).await?;
        let refused = || ControlError::Refused { command, answer: answers::complaint(&answer) };
        answers::added(&answer, &self.gpu.to_string()).ok_or_else(refused)
    }

    /// Gives a partition back. Whether it is gone, the table tells.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn remove(&self, name: &str) -> Result<(), ControlError> {
        let name = name.rsplit('/').next().unwrap_or(name);
        self.say(&format!("sm_partition rm {} {name}", self.gpu)).await.map(drop)
    }

    /// Processes that are its clients.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn clients(&self) -> Result<Vec<u32>, ControlError> {
        let mut clients = Vec::new();
        for server in answers::pids(&self.say("get_server_list").await?) {
            clients.extend(answers::pids(&self.say(&format!("get_client_list {server}")).await?));
        }
        Ok(clients)
    }

    /// Ends it, unless programs are at work in it. Whether it is gone, as far as it says.
    pub async fn end_if_idle(&self) -> bool {
        match self.clients().await {
            Ok(clients) if clients.is_empty() => self.say("quit").await.is_ok(),
            Ok(clients) => {
                tracing::info!(gpu = %self.gpu, clients = clients.len(), "programs are at work in MPS; it stays");
                false
            }
            Err(_) => true,
        }
    }
}

fn in_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(PROGRAM)).find(|program| program.is_file())
}
