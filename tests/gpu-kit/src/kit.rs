//! The kit's folder, and the node that parts start from it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use headgate_harness::{Node, NodeOptions, Program, TenantSpec, workspace};
use serde_json::{Value, json};

/// Where the kit lies and what it runs on.
#[derive(Clone, Debug)]
pub struct Kit {
    /// The folder: `bin`, `python`, `kernels`, `kit.json`.
    pub root: PathBuf,
    /// On the simulated device instead of this machine's driver.
    pub simulated: bool,
}

/// How a program on the GPU is run.
#[derive(Clone, Copy, Debug)]
pub enum How<'a> {
    /// Headgate has no part in it.
    Native,
    /// As a tenant, by `headgate run`.
    Tenant(&'a str),
}

impl Kit {
    /// The kit that this program is part of: the folder above `bin`.
    ///
    /// # Errors
    /// When the program does not lie in a kit.
    pub fn of_this_program(simulated: bool) -> Result<Self> {
        let program = std::env::current_exe().context("asking where this program is")?;
        let root = program.ancestors().nth(2).context("the kit's programs lie in its bin folder")?.to_owned();
        ensure!(
            root.join("kit.json").exists(),
            "{} is not a kit: it has no kit.json; `cargo xtask gpu-kit` makes one",
            root.display()
        );
        workspace::use_folder(root.join("bin"));
        Ok(Self { root, simulated })
    }

    /// What the kit was made of: version, commit, contents.
    ///
    /// # Errors
    /// When `kit.json` cannot be read.
    pub fn facts(&self) -> Result<Value> {
        let path = self.root.join("kit.json");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// A node with these tenants on the device.
    ///
    /// # Errors
    /// When the daemon does not come up; its log is in the error.
    pub fn node(&self, tenants: Vec<TenantSpec>) -> Result<Node> {
        self.node_with(tenants, Vec::new())
    }

    /// The same, with these lines in its configuration.
    ///
    /// # Errors
    /// When the daemon does not come up; its log is in the error.
    pub fn node_with(&self, tenants: Vec<TenantSpec>, spec: Vec<String>) -> Result<Node> {
        // On the simulated device a block of `work` takes a microsecond; see `Kit::work`.
        let device = self.simulated.then(|| {
            json!({ "kernels": {
                "work": { "block_ns": 1_000, "execute": false },
                "nothing": { "base_ns": 2_000, "execute": false },
            } })
        });
        Node::start(NodeOptions { device, spec, ..NodeOptions::simulated(tenants) })
    }

    /// The kit's measuring program.
    ///
    /// # Errors
    /// When the kit has none.
    pub fn gpu(&self, node: &Node, how: How<'_>, words: &[&str]) -> Result<Command> {
        let program = workspace::program("kit-gpu")?;
        self.command(node, how, &program, words)
    }

    /// A Python script of the kit's.
    ///
    /// # Errors
    /// When `headgate` is not there.
    pub fn python(&self, node: &Node, how: How<'_>, script: &str, words: &[&str]) -> Result<Command> {
        let script = self.root.join("python").join(script);
        let mut all = vec![script.to_str().context("the kit's path is not UTF-8")?];
        all.extend(words);
        self.command(node, how, Path::new("python3"), &all)
    }

    /// Any program.
    ///
    /// # Errors
    /// When `headgate` is not there.
    pub fn command(&self, node: &Node, how: How<'_>, program: &Path, words: &[&str]) -> Result<Command> {
        let mut command = match how {
            How::Native => node.native_command(program),
            How::Tenant(tenant) => node.command(tenant, program)?,
        };
        command.args(words);
        Ok(command)
    }

    /// Words that make one launch of the `work` kernel take so many microseconds, by what `kit-gpu calibrate` found.
    #[must_use]
    pub fn work(&self, calibration: &Calibration, us: u32) -> Vec<String> {
        let (steps, blocks) = if self.simulated { (1, us) } else { (calibration.steps(us), 1) };
        ["--steps", &steps.to_string(), "--blocks", &blocks.to_string()].map(str::to_owned).to_vec()
    }
}

/// Steps of the `work` kernel by microseconds.
#[derive(Clone, Debug, Default)]
pub struct Calibration(Vec<(f64, f64)>);

impl Calibration {
    /// Measures it, natively.
    ///
    /// # Errors
    /// When the measuring program fails.
    pub fn measure(kit: &Kit, node: &Node) -> Result<Self> {
        let found = lines(kit.gpu(node, How::Native, &["calibrate"])?, Duration::from_secs(60))?;
        let points = found.iter().filter_map(|line| {
            let us = line["fact"].as_str()?.strip_prefix("steps_for_")?.strip_suffix("_us")?.parse().ok()?;
            Some((us, line["value"].as_f64()?))
        });
        Ok(Self(points.collect()))
    }

    /// Steps for so many microseconds: those of the nearest length that was measured, in proportion.
    fn steps(&self, us: u32) -> u32 {
        let us = f64::from(us);
        let nearest = self.0.iter().min_by(|a, b| (a.0 / us).ln().abs().total_cmp(&(b.0 / us).ln().abs()));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
        nearest.map_or(1, |(at, steps)| (steps * us / at).clamp(1.0, 4e9) as u32)
    }
}

/// Runs a program to its end and reads its output as JSON, one value a line.
///
/// # Errors
/// When it fails, does not end within `patience`, or prints something else; what it said is in the error.
pub fn lines(mut command: Command, patience: Duration) -> Result<Vec<Value>> {
    let outcome = Program::start("a program of the kit", &mut command)?.finish(patience)?;
    parse(&outcome).with_context(|| format!("{command:?}"))
}

/// The JSON lines of a program that has ended.
///
/// # Errors
/// When it failed or printed something else.
pub fn parse(outcome: &headgate_harness::process::Outcome) -> Result<Vec<Value>> {
    if !outcome.status.success() {
        bail!("{}\n{}\n{}", outcome.status, tail(&outcome.stdout), tail(&outcome.stderr));
    }
    outcome
        .stdout
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
        .collect()
}

/// The value of a fact among JSON lines.
///
/// # Errors
/// When it was not printed.
pub fn fact<'a>(lines: &'a [Value], name: &str) -> Result<&'a Value> {
    let found = lines.iter().rev().find(|line| line["fact"] == name);
    found.map(|line| &line["value"]).with_context(|| format!("the program did not print {name}"))
}

/// The end of a long text.
#[must_use]
pub fn tail(text: &str) -> &str {
    const KEPT: usize = 4_000;
    let start = (text.len().saturating_sub(KEPT)..text.len()).find(|&at| text.is_char_boundary(at));
    &text[start.unwrap_or(0)..]
}
