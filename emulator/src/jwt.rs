//! Signed tokens: the control plane's short-lived one and the router's, one per task.
//!
//! Three parts, HMAC-SHA-256, with an `exp` that is meant: clients refresh by it, and the servers here refuse by it.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, Mac};
use rand::RngCore;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// `control-plane`, or the task id.
    pub sub: String,
    /// Unix seconds.
    pub iat: u64,
    /// Unix seconds.
    pub exp: u64,
    /// Makes each token different.
    pub jti: String,
}

/// Mints and checks.
pub(crate) struct Signer {
    key: [u8; 32],
}

impl Signer {
    /// With a key of its own.
    pub(crate) fn new() -> Signer {
        let mut key = [0; 32];
        rand::rng().fill_bytes(&mut key);
        Signer { key }
    }

    fn mac(&self, text: &str) -> Option<Hmac<Sha256>> {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.key).ok()?;
        mac.update(text.as_bytes());
        Some(mac)
    }

    /// A token for `subject` that ends `life` seconds from now.
    pub(crate) fn mint(&self, subject: &str, life: u64) -> String {
        let iat = now();
        let claims = Claims {
            sub: subject.to_owned(),
            iat,
            exp: iat + life,
            jti: uuid::Uuid::new_v4().simple().to_string(),
        };
        let head = BASE64.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let body = BASE64.encode(serde_json::to_vec(&claims).unwrap_or_default());
        let text = format!("{head}.{body}");
        let signature = self.mac(&text).map(|m| m.finalize().into_bytes().to_vec()).unwrap_or_default();
        format!("{text}.{}", BASE64.encode(signature))
    }

    /// The claims of a token that we signed and that has not ended. The error says which it was.
    pub(crate) fn check(&self, token: &str) -> Result<Claims, &'static str> {
        let (text, signature) = token.rsplit_once('.').ok_or("malformed token")?;
        let (_, body) = text.split_once('.').ok_or("malformed token")?;
        let signature = BASE64.decode(signature).map_err(|_| "malformed token")?;
        self.mac(text).ok_or("malformed token")?.verify_slice(&signature).map_err(|_| "wrong token signature")?;
        let body = BASE64.decode(body).map_err(|_| "malformed token")?;
        let claims: Claims = serde_json::from_slice(&body).map_err(|_| "malformed token")?;
        if claims.exp <= now() { Err("token has expired") } else { Ok(claims) }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::Signer;

    #[test]
    fn only_our_own_live_tokens_pass() {
        let signer = Signer::new();
        let token = signer.mint("ta-1", 60);
        assert_eq!(signer.check(&token).map(|c| c.sub), Ok("ta-1".to_owned()));
        assert_eq!(Signer::new().check(&token), Err("wrong token signature"));
        assert_eq!(signer.check(&signer.mint("ta-1", 0)), Err("token has expired"));
        assert_eq!(signer.check("a.b"), Err("malformed token"));
        assert_eq!(signer.check(""), Err("malformed token"));
    }
}
