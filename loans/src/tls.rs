//! Mutual TLS between nodes: who is at the other end is decided inside the handshake.
//!
//! A certificate says one identity, and only the authority of that identity's district may vouch for it. So a
//! district whose authority is lost, or whose administrator is curious, can speak for nobody but itself. The
//! dialling side also knows whom it means to reach and refuses everyone else, whatever address answered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headgate_quota::loan::District;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, TrustAnchor, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::identity::Identity;
use crate::refused::{Reason, Refusals};

/// The application protocol gRPC runs over.
const GRPC: &[u8] = b"h2";
/// That of a remote session: frames, with nothing around them.
const SESSION: &[u8] = b"headgate-session/1";
/// The same cut into chunks, so that it can go over several connections.
const BUNDLED: &[u8] = b"headgate-session/2";

/// What a connection between two nodes is for. It is agreed upon inside the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Loans and load summaries.
    Loans,
    /// One remote session.
    Session,
    /// One remote session, or a part of one, in chunks. Whoever accepts and knows no chunks takes it for [`Self::Session`].
    Bundled,
}

impl Purpose {
    /// What whoever dials offers.
    const fn protocols(self) -> &'static [&'static [u8]] {
        match self {
            Self::Loans => &[GRPC],
            Self::Session => &[SESSION],
            Self::Bundled => &[BUNDLED, SESSION],
        }
    }

    /// What a handshake agreed upon. Whoever names nothing means loans, as before there was anything else.
    #[must_use]
    pub fn of(protocol: Option<&[u8]>) -> Self {
        match protocol {
            Some(SESSION) => Self::Session,
            Some(BUNDLED) => Self::Bundled,
            _ => Self::Loans,
        }
    }
}

/// Where a node's certificate and its trust come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// This node's certificate, and what leads to its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authorities by the district they may vouch for.
    pub authorities: BTreeMap<District, PathBuf>,
}

/// Why a node cannot speak to others. The operator's files are to blame.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read as what it should be.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The certificate is another node's.
    #[error("{}: the certificate says {found}, but this node is {expected}; issue one for it", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// Who it says.
        found: String,
        /// Who this is.
        expected: Identity,
    },
    /// Nobody here can vouch for this node's own district.
    #[error("no authority for the node's own district {0}; add it to spec.loans.peers.tls.authorities")]
    NoOwnAuthority(District),
    /// rustls refused.
    #[error("TLS: {0}")]
    Library(#[from] rustls::Error),
}

/// What a node needs to speak to others.
#[derive(Clone, Debug)]
pub struct Tls {
    server: Arc<ServerConfig>,
    trust: Arc<Trust>,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
    refusals: Arc<Refusals>,
}

/// Authorities by the district they may vouch for.
#[derive(Debug)]
struct Trust {
    anchors: BTreeMap<District, Vec<TrustAnchor<'static>>>,
    provider: Arc<CryptoProvider>,
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |what: String| TlsError::File { path: path.to_owned(), what };
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?.collect();
    let certificates = certificates.map_err(|error| failed(error.to_string()))?;
    if certificates.is_empty() { Err(failed("has no certificate".to_owned())) } else { Ok(certificates) }
}

impl Tls {
    /// Reads the files and checks that they are this node's.
    pub fn load(files: &TlsFiles, own: &Identity, refusals: Arc<Refusals>) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let chain = read_certificates(&files.certificate)?;
        let failed = |path: &Path, what: String| TlsError::File { path: path.to_owned(), what };
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|error| failed(&files.key, error.to_string()))?;
        let mut anchors = BTreeMap::new();
        for (district, path) in &files.authorities {
            let trusted: Result<Vec<_>, _> = read_certificates(path)?
                .iter()
                .map(|certificate| anchor_from_trusted_cert(certificate).map(|anchor| anchor.to_owned()))
                .collect();
            anchors.insert(district.clone(), trusted.map_err(|error| failed(path, error.to_string()))?);
        }
        if !anchors.contains_key(own.district()) {
            return Err(TlsError::NoOwnAuthority(own.district().clone()));
        }
        let found = chain.first().and_then(|certificate| identity_in(certificate).ok());
        if found.as_ref() != Some(own) {
            let found = found.map_or_else(|| "no node".to_owned(), |identity| identity.to_string());
            return Err(TlsError::NotOurs { path: files.certificate.clone(), found, expected: own.clone() });
        }
        let trust = Arc::new(Trust { anchors, provider: Arc::clone(&provider) });
        let accept =
            Arc::new(Verifier { trust: Arc::clone(&trust), expected: None, refusals: Arc::clone(&refusals) });
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(accept)
            .with_single_cert(chain.clone(), key.clone_key())?;
        // Of what is offered, the first of these.
        server.alpn_protocols = [GRPC, BUNDLED, SESSION].map(<[u8]>::to_vec).to_vec();
        // A resumed session would not show its certificate again, which may have expired since.
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { server: Arc::new(server), trust, chain, key: Arc::new(key), refusals })
    }

    /// For accepting.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// For dialling one node and no other.
    pub fn client(&self, to: &Identity, purpose: Purpose) -> Result<Arc<ClientConfig>, TlsError> {
        let verifier = Verifier {
            trust: Arc::clone(&self.trust),
            expected: Some(to.clone()),
            refusals: Arc::clone(&self.refusals),
        };
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&self.trust.provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        client.alpn_protocols = purpose.protocols().iter().map(|protocol| protocol.to_vec()).collect();
        client.resumption = rustls::client::Resumption::disabled();
        client.enable_sni = false;
        Ok(Arc::new(client))
    }
}

/// Who a certificate says its bearer is. Whether that is true is another question.
pub fn identity_in(certificate: &CertificateDer<'_>) -> Result<Identity, Reason> {
    let parsed = EndEntityCert::try_from(certificate).map_err(|_| Reason::NoIdentity)?;
    let mut found = parsed.valid_uri_names().filter_map(Identity::parse);
    match (found.next(), found.next()) {
        (Some(identity), None) => Ok(identity),
        _ => Err(Reason::NoIdentity),
    }
}

/// Verifies the other end of either side.
#[derive(Debug)]
struct Verifier {
    trust: Arc<Trust>,
    /// Whom the dialling side means to reach.
    expected: Option<Identity>,
    refusals: Arc<Refusals>,
}

impl Verifier {
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), rustls::Error> {
        let claimed = identity_in(end_entity);
        let who = claimed.as_ref().map_or_else(|_| "a peer without identity".to_owned(), Identity::to_string);
        let verdict =
            claimed.and_then(|identity| self.judge(&identity, end_entity, intermediates, now, usage));
        verdict.map_err(|reason| {
            self.refusals.count(reason, &who);
            rustls::Error::General(format!("{who} was refused: {reason}"))
        })
    }

    fn judge(
        &self,
        identity: &Identity,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Reason> {
        if self.expected.as_ref().is_some_and(|expected| expected != identity) {
            return Err(Reason::WrongPeer);
        }
        let anchors = self.trust.anchors.get(identity.district()).ok_or(Reason::UnknownDistrict)?;
        let parsed = EndEntityCert::try_from(end_entity).map_err(|_| Reason::NoIdentity)?;
        let algorithms = self.trust.provider.signature_verification_algorithms.all;
        let verified = parsed.verify_for_usage(algorithms, anchors, intermediates, now, usage, None, None);
        match verified {
            Ok(_) => Ok(()),
            Err(webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }) => {
                Err(Reason::Expired)
            }
            Err(_) => Err(Reason::UntrustedIssuer),
        }
    }

    fn signed(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.trust.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.trust.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS 1.2 is not offered, so nobody asks.
fn too_old() -> rustls::Error {
    rustls::Error::General("TLS 1.2 is not spoken here".to_owned())
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
