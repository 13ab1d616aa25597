//! A short-lived token that is renewed before it expires.

use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};

use super::json::Value;

/// Assumed lifetime of a token that does not contain its expiry time.
const DEFAULT_LIFE: Duration = Duration::from_secs(20 * 60);

/// First pause after a failed renewal of a token that is still valid. Doubles up to [`RETRY_CAP`].
const RETRY_BASE: Duration = Duration::from_millis(500);
const RETRY_CAP: Duration = Duration::from_secs(60);

/// A token with its expiry and renewal times, which are since the Unix epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// The JWT.
    pub token: String,
    /// When it expires.
    pub expires: Duration,
    /// When to fetch its successor.
    pub refresh: Duration,
    /// Number of failed renewals.
    pub failures: u32,
}

impl Token {
    /// Makes a token that was fetched at `now`. `chance`, between 0 and 1, spreads the renewals of many clients over 50
    /// to 60 % of the token's lifetime.
    #[must_use]
    pub fn new(token: String, now: Duration, chance: f64) -> Token {
        let expires = expiry(&token).unwrap_or(now + DEFAULT_LIFE);
        let life = expires.saturating_sub(now);
        Token { token, expires, refresh: now + life.mul_f64(0.5 + 0.1 * chance.clamp(0.0, 1.0)), failures: 0 }
    }

    /// Returns whether the token has not expired.
    #[must_use]
    pub fn is_usable(&self, now: Duration) -> bool {
        now < self.expires
    }

    /// Returns whether the successor should be fetched.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        now >= self.refresh
    }

    /// Keeps the token after a failed renewal and sets a later time for the next one.
    pub fn postpone(&mut self, now: Duration) {
        self.refresh = now + RETRY_BASE.saturating_mul(1 << self.failures.min(16)).min(RETRY_CAP);
        self.failures += 1;
    }
}

/// Returns the `exp` claim of a JWT as time since the Unix epoch, or `None` if it cannot be read. Does not verify the
/// token.
#[must_use]
pub fn expiry(jwt: &str) -> Option<Duration> {
    let payload = jwt.split('.').nth(1)?;
    let bytes = Base64UrlUnpadded::decode_vec(payload.trim_end_matches('=')).ok()?;
    let claims = Value::parse(std::str::from_utf8(&bytes).ok()?)?;
    claims.get("exp").thousandths().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(payload: &str) -> String {
        format!("e30.{}.x", Base64UrlUnpadded::encode_string(payload.as_bytes()))
    }

    #[test]
    fn refresh_lies_past_the_middle_of_its_life() {
        let now = Duration::from_secs(1000);
        for chance in [0.0, 0.5, 1.0] {
            let token = Token::new(jwt(r#"{"exp":2000}"#), now, chance);
            assert_eq!(token.expires, Duration::from_secs(2000));
            assert!((1500..=1600).contains(&token.refresh.as_secs()), "{token:?}");
            assert!(token.is_usable(Duration::from_secs(1999)));
            assert!(!token.is_usable(Duration::from_secs(2000)));
        }
    }

    #[test]
    fn strange_tokens_live_twenty_minutes() {
        for text in
            ["", "a", "a.b", "a.!!.c", &jwt("{}"), &jwt(r#"{"exp":-1}"#), &jwt(r#"{"exp":1e400}"#), &jwt("null")]
        {
            let token = Token::new(text.to_string(), Duration::ZERO, 0.0);
            assert_eq!(token.expires, DEFAULT_LIFE, "{text}");
        }
    }

    #[test]
    fn failed_refreshes_are_spaced() {
        let mut token = Token::new(jwt(r#"{"exp":2000}"#), Duration::ZERO, 0.0);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            token.postpone(Duration::ZERO);
            pauses.push(token.refresh.as_millis());
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]);
    }
}
