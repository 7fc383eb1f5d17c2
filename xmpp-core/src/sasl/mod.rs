//! Stand-in for SCRAM until the real module is merged: it only has the signatures, and refuses everyone.

/// What the server keeps of a password, for one hash (RFC 5802 3).
#[derive(Clone)]
pub struct ScramCredentials {
    /// Salt.
    pub salt: Vec<u8>,
    /// PBKDF2 rounds.
    pub iterations: u32,
    /// StoredKey.
    pub stored_key: Vec<u8>,
    /// ServerKey.
    pub server_key: Vec<u8>,
}

/// SASL mechanisms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mechanism {
    /// RFC 7677.
    ScramSha256,
    /// RFC 5802.
    ScramSha1,
}

impl Mechanism {
    /// Name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha1 => "SCRAM-SHA-1",
        }
    }

    /// The mechanism with this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Mechanism::ScramSha256, Mechanism::ScramSha1].into_iter().find(|m| m.name() == name)
    }
}

/// Server side of one exchange.
pub struct ScramServer {
    user: String,
}

impl ScramServer {
    /// Reads the client-first message.
    pub fn start(_mech: Mechanism, client_first: &[u8]) -> Result<ScramServer, SaslError> {
        let text = std::str::from_utf8(client_first).map_err(|_| SaslError::Malformed)?;
        let user = text.split(',').find_map(|f| f.strip_prefix("n=")).ok_or(SaslError::Malformed)?;
        Ok(ScramServer { user: user.to_owned() })
    }

    /// The user name, prepared.
    pub fn username(&self) -> &str {
        &self.user
    }

    /// The server-first message.
    pub fn challenge(&mut self, _cred: &ScramCredentials, _nonce_entropy: [u8; 18]) -> Vec<u8> {
        b"r=stub,s=c3R1Yg==,i=4096".to_vec()
    }

    /// The server-final message, if the proof is good.
    pub fn finish(self, _client_final: &[u8]) -> Result<Vec<u8>, SaslError> {
        Err(SaslError::NotAuthorized)
    }
}

/// Why an exchange failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SaslError {
    /// Not SCRAM.
    Malformed,
    /// Wrong password or unknown user.
    NotAuthorized,
    /// Authorization identity that differs.
    InvalidAuthzid,
    /// Channel binding that is not offered.
    UnsupportedChannelBinding,
}
