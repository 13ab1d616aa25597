//! The differences between engines that serve the Docker Engine API. All code that depends on the engine asks this module.

use sandbox_provider_kit::call::json::Value;

use super::items;

/// The oldest version of the API that has everything that this provider uses, as major and minor number.
const OLDEST: (u32, u32) = (1, 41);

/// An engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flavor {
    /// Which program it is.
    pub product: Product,
    /// Its version, for people.
    pub version: String,
    /// The newest version of the API that it has, for people.
    pub api: String,
    /// The architecture of its machine, by Go's name, such as `amd64`.
    pub arch: String,
}

/// The programs that serve the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Docker Engine (dockerd).
    Docker,
    /// Podman's service.
    Podman,
    /// Another program. It is treated like Docker Engine.
    Other,
}

impl Flavor {
    /// Reads the answer to `GET /version`.
    #[must_use]
    pub fn of(version: &Value) -> Flavor {
        let names: Vec<_> =
            items(version.get("Components")).iter().filter_map(|part| part.get("Name").text()).collect();
        let product = if names.iter().any(|name| name.contains("Podman")) {
            Product::Podman
        } else if names.contains(&"Engine") {
            Product::Docker
        } else {
            Product::Other
        };
        let text = |name: &str| version.get(name).text().unwrap_or_default().to_string();
        Flavor { product, version: text("Version"), api: text("ApiVersion"), arch: text("Arch") }
    }

    /// Returns a warning for people about an engine that this provider was not made for.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok());
        let mut parts = self.api.split('.');
        let api = number(parts.next()).zip(number(parts.next()));
        if self.product == Product::Other {
            return Some(format!(
                "the engine is neither Docker Engine nor Podman (version {}, API {}): it is used like Docker Engine",
                self.version, self.api
            ));
        }
        (api? < OLDEST).then(|| format!("the engine's API {} is older than 1.41: some functions will fail", self.api))
    }

    /// Returns the architecture of the helper program that the engine's machine runs, or `None` if there is no program for
    /// it.
    #[must_use]
    pub fn helper_arch(&self) -> Option<&'static str> {
        match self.arch.as_str() {
            "amd64" | "x86_64" | "" => Some("x86_64"),
            "arm64" | "aarch64" => Some("aarch64"),
            _ => None,
        }
    }

    /// Returns whether builds that ask for nothing else are done by Docker's classic builder. Podman's own builder knows
    /// most of what BuildKit knows.
    #[must_use]
    pub fn has_classic_builder(&self) -> bool {
        self.product != Product::Podman
    }

    /// Returns whether its BuildKit reads more of a Dockerfile than that of Docker Engine 20.10, such as here-documents and
    /// `COPY --link`. Docker Engine 23.0 followed on 20.10.
    #[must_use]
    pub fn has_newer_buildkit(&self) -> bool {
        self.version.split('.').next().and_then(|major| major.parse().ok()).is_some_and(|major: u32| major >= 23)
    }

    /// Returns whether a build failed only because an image that it looked at was deleted meanwhile. Podman fails then; it has
    /// no code for it, only this text (seen with 4.3.1).
    #[must_use]
    pub fn is_disturbed(&self, failure: &str) -> bool {
        self.product == Product::Podman && failure.contains("layer not known")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flavor(name: &str, api: &str) -> Flavor {
        let text =
            format!(r#"{{"Version":"1","ApiVersion":"{api}","Arch":"arm64","Components":[{{"Name":"{name}"}}]}}"#);
        Flavor::of(&Value::parse(&text).expect("JSON"))
    }

    #[test]
    fn engines_are_told_apart() {
        assert_eq!(flavor("Engine", "1.41").product, Product::Docker);
        assert_eq!(flavor("Podman Engine", "1.41").product, Product::Podman);
        assert_eq!(flavor("Engine", "1.41").doubt(), None);
        assert!(flavor("Engine", "1.40").doubt().is_some_and(|text| text.contains("1.40")));
        assert!(flavor("Engine", "0.99").doubt().is_some());
        assert_eq!(flavor("Engine", "2.0").doubt(), None);
        assert!(flavor("Other", "1.41").doubt().is_some_and(|text| text.contains("neither")));
        assert_eq!(flavor("Engine", "1.41").helper_arch(), Some("aarch64"));
        assert!(
            flavor("Engine", "1.41").has_classic_builder() && !flavor("Podman Engine", "1.41").has_classic_builder()
        );
        let failure = "getting top layer info: layer not known";
        assert!(
            flavor("Podman Engine", "1.41").is_disturbed(failure) && !flavor("Engine", "1.41").is_disturbed(failure)
        );
    }
}
