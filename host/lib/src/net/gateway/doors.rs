//! Doors: unguessable paths of the gateway, each of which leads to an origin that the service named.

use std::collections::HashMap;

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::access::policy::Origin;
use crate::digest::hex;

/// Most open doors, equal to the number of origins that a policy learns. Beyond it, the least recently used door is
/// closed.
const MAX_DOORS: usize = 4096;

/// The prefix of the paths of all doors.
pub(super) const DOOR: &str = "/door/";

/// The open doors, by the secret in their paths.
#[derive(Default)]
pub(super) struct Doors {
    open: HashMap<String, Door>,
    clock: u64,
}

struct Door {
    origin: Origin,
    /// The value of the clock at the last use.
    used: u64,
}

impl Doors {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Returns the secret of the door to an origin. Opens the door if necessary.
    pub(super) fn to(&mut self, origin: &Origin) -> String {
        let now = self.tick();
        if let Some((secret, door)) = self.open.iter_mut().find(|(_, door)| door.origin == *origin) {
            door.used = now;
            return secret.clone();
        }
        if self.open.len() >= MAX_DOORS
            && let Some(oldest) = self.open.iter().min_by_key(|(_, door)| door.used).map(|(secret, _)| secret.clone())
        {
            self.open.remove(&oldest);
        }
        let secret = fresh_secret();
        self.open.insert(secret.clone(), Door { origin: origin.clone(), used: now });
        secret
    }

    /// Returns the origin behind a path, and the rest of the path. Returns `None` if the path has no open door.
    pub(super) fn behind<'a>(&mut self, path: &'a str) -> Option<(Origin, &'a str)> {
        let path = path.strip_prefix(DOOR)?;
        let (secret, rest) = path.split_at(path.find(['/', '?']).unwrap_or(path.len()));
        let now = self.tick();
        let door = self.open.get_mut(secret)?;
        door.used = now;
        Some((door.origin.clone(), rest))
    }
}

/// Returns 256 bits of the system's random generator as hexadecimal digits.
pub(super) fn fresh_secret() -> String {
    let mut bytes = [0; 32];
    // Fails only on systems without a random generator, where the gateway must not run.
    SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
    hex(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_256_random_bits() {
        let secrets: Vec<Vec<u8>> = (0..64).map(|_| fresh_secret().into_bytes()).collect();
        assert!(secrets.iter().all(|secret| secret.len() == 64));
        // Each digit takes several values, and each of its bits takes both values. This fails by chance in one of 2^55
        // runs.
        for at in 0..64 {
            let digits = secrets.iter().map(|secret| (secret[at] as char).to_digit(16).unwrap());
            let (all, any) = digits.fold((0xf, 0), |(all, any), digit| (all & digit, any | digit));
            assert_eq!((all, any), (0, 0xf), "digit {at}");
        }
    }
}
