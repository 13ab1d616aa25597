//! Tokens: JSON Web Tokens that are signed with a key that lives as long as the emulator.
//!
//! Clients read `exp` without verifying the token, and use it to decide whether to refresh the token after a rejection, so
//! `exp` must be correct (docs/modal-protocol.md, section 7.2). There is one kind per caller for the control plane and one per
//! task for the router.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use parking_lot::Mutex;
use rand::RngCore as _;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Makes and checks tokens.
pub struct Signer {
    key: [u8; 32],
    /// Number of the next token.
    next: AtomicU64,
    /// Numbers of tokens that are rejected before their `exp`.
    refused: Mutex<HashSet<u64>>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

/// The content of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// What the token is valid for: [`CONTROL`], or a task id.
    pub sub: String,
    /// Time of issue, in Unix seconds.
    pub iat: u64,
    /// Time of expiry, in Unix seconds.
    pub exp: u64,
    /// Number of the token.
    pub jti: u64,
}

/// `sub` of control-plane tokens.
pub const CONTROL: &str = "control-plane";

/// Why a token is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The token does not have three base64url parts, or its signature is not valid.
    #[error("the token was not issued by this server")]
    Forged,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
}

impl Signer {
    /// Creates a signer with a random key. Tokens of an earlier emulator are therefore rejected.
    pub fn new() -> Signer {
        let mut key = [0; 32];
        rand::rng().fill_bytes(&mut key);
        Signer { key, next: AtomicU64::new(0), refused: Mutex::default() }
    }

    /// Rejects a token from now on, whatever its `exp` says.
    pub fn expire(&self, token: &str) {
        if let Ok(claims) = self.check(token) {
            self.refused.lock().insert(claims.jti);
        }
    }

    /// Issues a token for `sub` with the lifetime `life`, which is cut to whole seconds and is at least 1 second.
    pub fn sign(&self, sub: &str, life: Duration) -> String {
        let iat = now();
        let jti = self.next.fetch_add(1, Ordering::Relaxed);
        let claims = Claims { sub: sub.to_owned(), iat, exp: iat + life.as_secs().max(1), jti };
        let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).unwrap_or_default());
        let signed = format!("{head}.{body}");
        let signature = URL_SAFE_NO_PAD.encode(self.mac(&signed).finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    /// Verifies a token and returns its content.
    ///
    /// # Errors
    ///
    /// Fails with [`Refused::Forged`] if the token is malformed or its signature is not valid, and with [`Refused::Expired`] if
    /// it has expired or was expired early.
    pub fn check(&self, token: &str) -> Result<Claims, Refused> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Refused::Forged)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Refused::Forged)?;
        self.mac(signed).verify_slice(&signature).map_err(|_| Refused::Forged)?;
        let (_, body) = signed.split_once('.').ok_or(Refused::Forged)?;
        let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| Refused::Forged)?;
        let claims: Claims = serde_json::from_slice(&body).map_err(|_| Refused::Forged)?;
        if claims.exp <= now() || self.refused.lock().contains(&claims.jti) {
            return Err(Refused::Expired);
        }
        Ok(claims)
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(text.as_bytes());
        mac
    }
}

impl Default for Signer {
    fn default() -> Self {
        Self::new()
    }
}

/// Checks the claims of an OAuth client assertion (docs/modal-protocol.md, section 1.3). Does not verify the signature.
///
/// # Errors
///
/// Returns a text that says what is wrong.
pub fn check_assertion(token: &str, client: &str) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Head {
        alg: String,
        kid: String,
    }
    #[derive(Deserialize)]
    struct Says {
        iss: String,
        sub: String,
        aud: String,
        iat: u64,
        exp: u64,
        jti: String,
    }
    fn read<T: for<'a> Deserialize<'a>>(part: &str) -> Result<T, String> {
        let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|error| format!("the assertion is not a token: {error}"))?;
        serde_json::from_slice(&bytes).map_err(|error| format!("the assertion is not complete: {error}"))
    }
    let [head, says, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        return Err("the assertion is not a token".into());
    };
    let (head, says): (Head, Says) = (read(head)?, read(says)?);
    let now = now();
    let fits = [
        (head.alg == "RS256", "its algorithm is not RS256"),
        (head.kid.len() == 43, "it does not contain the thumbprint of a key"),
        (URL_SAFE_NO_PAD.decode(signature).is_ok_and(|mark| mark.len() >= 256), "its key has fewer than 2048 bits"),
        (says.iss == client && says.sub == client, "it is not about this client"),
        (says.aud == "modal-server", "it is for another audience"),
        (says.exp > now && says.iat <= now + 60, "it has expired or is not valid yet"),
        (says.exp.saturating_sub(says.iat) <= 300, "its lifetime is too long"),
        (!says.jti.is_empty(), "it has no id (jti)"),
    ];
    match fits.iter().find(|(fits, _)| !fits) {
        Some((_, why)) => Err(format!("the assertion is not acceptable: {why}")),
        None => Ok(()),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_and_unchanged_tokens_pass() {
        let signer = Signer::new();
        let token = signer.sign("ta-1", Duration::from_secs(60));
        assert_eq!(signer.check(&token).unwrap().sub, "ta-1");
        assert_eq!(Signer::new().check(&token), Err(Refused::Forged));
        let (head, rest) = token.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let body = URL_SAFE_NO_PAD.encode(r#"{"sub":"ta-2","iat":0,"exp":99999999999,"jti":0}"#);
        assert_eq!(signer.check(&format!("{head}.{body}.{signature}")), Err(Refused::Forged));
        for garbage in ["", ".", "..", "a.b.c", "Bearer"] {
            assert_eq!(signer.check(garbage), Err(Refused::Forged));
        }
    }

    #[test]
    fn a_token_expires_early_alone() {
        let signer = Signer::new();
        let minute = Duration::from_secs(60);
        let tokens = [signer.sign("ta-1", minute), signer.sign("ta-1", minute)];
        signer.expire(&tokens[0]);
        assert_eq!(signer.check(&tokens[0]), Err(Refused::Expired));
        assert!(signer.check(&tokens[1]).is_ok());
    }
}
