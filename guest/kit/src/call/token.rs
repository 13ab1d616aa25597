//! A short-lived token that is fetched before it is needed.

use std::time::Duration;

use base64::Engine as _;

use super::json::Value;

/// Life that is assumed of a token that does not say when it ends.
const DEFAULT_LIFE: Duration = Duration::from_secs(20 * 60);

/// After a failed refresh of a token that still works: the first pause, doubling to [`RETRY_CAP`].
const RETRY_BASE: Duration = Duration::from_millis(500);
const RETRY_CAP: Duration = Duration::from_secs(60);

/// A token and when to get the next. Times are since the Unix epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// The JWT.
    pub token: String,
    /// When it ends.
    pub expires: Duration,
    /// When to fetch the next one.
    pub refresh: Duration,
    /// Failed refreshes since.
    pub failures: u32,
}

impl Token {
    /// Takes a token that has just been fetched. `chance` in 0..1 spreads the refreshes of many clients: the next comes
    /// after 50 to 60 % of its life.
    #[must_use]
    pub fn new(token: String, now: Duration, chance: f64) -> Token {
        let expires = expiry(&token).unwrap_or(now + DEFAULT_LIFE);
        let life = expires.saturating_sub(now);
        Token { token, expires, refresh: now + life.mul_f64(0.5 + 0.1 * chance.clamp(0.0, 1.0)), failures: 0 }
    }

    /// It can still be sent.
    #[must_use]
    pub fn is_usable(&self, now: Duration) -> bool {
        now < self.expires
    }

    /// It is time for the next one.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        now >= self.refresh
    }

    /// A refresh failed: keep the token, try again later.
    pub fn postpone(&mut self, now: Duration) {
        self.refresh = now + RETRY_BASE.saturating_mul(1 << self.failures.min(16)).min(RETRY_CAP);
        self.failures += 1;
    }
}

/// The `exp` claim of a JWT, read without verification: the token is opaque to us but for its end.
#[must_use]
pub fn expiry(jwt: &str) -> Option<Duration> {
    let payload = jwt.split('.').nth(1)?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims = Value::parse(std::str::from_utf8(&bytes).ok()?)?;
    claims.get("exp").thousandths().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(payload: &str) -> String {
        format!("e30.{}.x", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(payload))
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
