//! Certificates for tests and small installs: an authority per district, and nodes' certificates from it.
//!
//! Where an organisation has an authority of its own, it issues certificates with the same name in them, and
//! nothing here is needed.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use time::OffsetDateTime;

use crate::identity::{BadIdentity, Identity};

/// A clock that is this far behind still finds a new certificate valid.
const BACKDATED: Duration = Duration::from_secs(3_600);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A file that would be overwritten.
    #[error("{} exists already; move it away if the authority is really to be made anew", .0.display())]
    Exists(PathBuf),
    /// The names cannot be in a certificate.
    #[error(transparent)]
    Identity(#[from] BadIdentity),
    /// The library refused.
    #[error("making the certificate: {0}")]
    Library(#[from] rcgen::Error),
    /// Dates out of range.
    #[error("a certificate cannot be valid for that long")]
    Dates,
}

/// A certificate and its key.
#[derive(Debug)]
pub struct Issued {
    /// The certificate, PEM.
    pub certificate: String,
    /// The key, PEM. For the owner's eyes only.
    pub key: String,
}

/// Makes an authority for one district.
pub fn authority(district: &str, valid: Duration, now: SystemTime) -> Result<Issued, CertsError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = authority_params(district)?;
    validity(&mut params, valid, now)?;
    let certificate = params.self_signed(&key)?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Makes a node's certificate. `claims` is what it says; whether the authority may vouch for that is for those to
/// judge who are shown it.
pub fn node(
    authority_of: &str,
    authority_key: &str,
    claims: &Identity,
    valid: Duration,
    now: SystemTime,
) -> Result<Issued, CertsError> {
    let issuer = Issuer::new(authority_params(authority_of)?, KeyPair::from_pem(authority_key)?);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("Headgate node {claims}"));
    let uri = claims.uri();
    params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, valid, now)?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// The authority's own certificate follows from its district, so that issuing needs its key only.
fn authority_params(district: &str) -> Result<CertificateParams, CertsError> {
    // Only the district's name is looked at.
    Identity::new(district, "authority")?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("Headgate authority of {district}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn named(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn validity(params: &mut CertificateParams, valid: Duration, now: SystemTime) -> Result<(), CertsError> {
    let at = |time: Option<SystemTime>| time.map(OffsetDateTime::from).ok_or(CertsError::Dates);
    params.not_before = at(now.checked_sub(BACKDATED))?;
    params.not_after = at(now.checked_add(valid))?;
    Ok(())
}

/// The files `headgate certs` writes into a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key, readable by its owner only.
    pub key: PathBuf,
}

impl Files {
    /// Of a district's authority.
    #[must_use]
    pub fn of_authority(directory: &Path, district: &str) -> Self {
        Self::named(directory, &format!("{district}-ca"))
    }

    /// Of a node.
    #[must_use]
    pub fn of_node(directory: &Path, identity: &Identity) -> Self {
        Self::named(directory, identity.node().as_str())
    }

    fn named(directory: &Path, name: &str) -> Self {
        Self {
            certificate: directory.join(format!("{name}.pem")),
            key: directory.join(format!("{name}.key")),
        }
    }

    /// Writes both. With `fresh`, neither may exist.
    pub fn write(&self, issued: &Issued, fresh: bool) -> Result<(), CertsError> {
        for path in [&self.key, &self.certificate] {
            if fresh && path.exists() {
                return Err(CertsError::Exists(path.clone()));
            }
        }
        write(&self.key, &issued.key, 0o600)?;
        write(&self.certificate, &issued.certificate, 0o644)
    }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertsError> {
    let failed = |source| CertsError::File { path: path.to_owned(), source };
    // A key written over a file that anyone may read would stay readable: the old file goes first.
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}
