//! `headgate certs init` and `headgate certs issue`.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use headgate_loans::certs::{self, CertsError, Files};
use headgate_loans::identity::Identity;

use super::{CertsArgs, CertsCommand, complain};
use crate::clock;

const DAY: Duration = Duration::from_secs(24 * 3_600);

pub(super) fn main(args: &CertsArgs) -> ExitCode {
    match made(&args.command) {
        Ok(text) => {
            // A closed pipe is the reader's choice.
            let _unread = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

fn made(command: &CertsCommand) -> Result<String, CertsError> {
    let now = std::time::SystemTime::UNIX_EPOCH + clock::wall();
    let valid = |days: u32| DAY.saturating_mul(days);
    match command {
        CertsCommand::Init { district, dir, days } => {
            let authority = certs::authority(district, valid(*days), now)?;
            let files = Files::of_authority(dir, district);
            files.write(&authority, true)?;
            Ok(format!(
                "{}\n{}\nGive the first to every node that is to trust district {district}; keep the second away \
                 from all of them.\n",
                files.certificate.display(),
                files.key.display()
            ))
        }
        CertsCommand::Issue { district, node, dir, days } => {
            let identity = Identity::new(district, node)?;
            let path = Files::of_authority(dir, district).key;
            let key = std::fs::read_to_string(&path).map_err(|source| CertsError::File { path, source })?;
            let issued = certs::node(district, &key, &identity, valid(*days), now)?;
            let files = Files::of_node(dir, &identity);
            files.write(&issued, false)?;
            Ok(format!("{}\n{}\n", files.certificate.display(), files.key.display()))
        }
    }
}
