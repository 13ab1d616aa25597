//! Doors: paths that cannot be guessed, each of which leads to an origin that was handed out.

use std::collections::HashMap;

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::access::policy::Origin;
use crate::digest::hex;

/// Doors that are open, as many as origins that a policy learns. One more closes the one that has not been used for longest.
const MAX_DOORS: usize = 4096;

/// What the path of every door begins with.
pub(super) const DOOR: &str = "/door/";

/// By the secret in their paths.
#[derive(Default)]
pub(super) struct Doors {
    open: HashMap<String, Door>,
    clock: u64,
}

struct Door {
    origin: Origin,
    /// When it was used last.
    used: u64,
}

impl Doors {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The secret of the door to an origin; opened at the first need.
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

    /// Where a path leads, and what of it goes on. None for one that is no door's, or not any more.
    pub(super) fn behind<'a>(&mut self, path: &'a str) -> Option<(Origin, &'a str)> {
        let path = path.strip_prefix(DOOR)?;
        let (secret, rest) = path.split_at(path.find(['/', '?']).unwrap_or(path.len()));
        let now = self.tick();
        let door = self.open.get_mut(secret)?;
        door.used = now;
        Some((door.origin.clone(), rest))
    }
}

/// 256 random bits of the system's generator.
pub(super) fn fresh_secret() -> String {
    let mut bytes = [0; 32];
    // It fails only on systems without a generator, and there nothing here is to go on.
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
        // Each digit takes several values, each of its bits both: by chance one in 2^55 runs fails.
        for at in 0..64 {
            let digits = secrets.iter().map(|secret| (secret[at] as char).to_digit(16).unwrap());
            let (all, any) = digits.fold((0xf, 0), |(all, any), digit| (all & digit, any | digit));
            assert_eq!((all, any), (0, 0xf), "digit {at}");
        }
    }
}
