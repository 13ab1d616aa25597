//! Texts in JSON documents that a rule of the manifest names by a pointer (RFC 6901). A step `*` stands for all elements of
//! an array and all members of an object.

use serde_json::Value;

/// Calls `see` for each text at the pointer, until it returns false.
pub(crate) fn visit(value: &mut Value, pointer: &str, see: &mut dyn FnMut(&mut String) -> bool) -> bool {
    let Some(rest) = pointer.strip_prefix('/') else {
        // The end of the pointer. The manifest permits no other pointer without a slash.
        return match value {
            Value::String(text) => see(text),
            _ => true,
        };
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (step, rest) = rest.split_at(end);
    match value {
        Value::Array(items) if step == "*" => items.iter_mut().all(|item| visit(item, rest, see)),
        Value::Object(members) if step == "*" => members.values_mut().all(|item| visit(item, rest, see)),
        Value::Array(items) => {
            let item = step.parse().ok().and_then(|index: usize| items.get_mut(index));
            item.is_none_or(|item| visit(item, rest, see))
        }
        Value::Object(members) => {
            let item = members.get_mut(&step.replace("~1", "/").replace("~0", "~"));
            item.is_none_or(|item| visit(item, rest, see))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pointer: &str) -> Vec<String> {
        let mut document = serde_json::json!({
            "data": [{ "url": "https://a" }, { "url": "https://b", "id": 7 }],
            "ports": { "80": "https://c", "81": { "x": "y" } },
            "a/b~c": "https://d",
        });
        let mut found = Vec::new();
        visit(&mut document, pointer, &mut |text| {
            found.push(text.clone());
            true
        });
        found
    }

    #[test]
    fn pointers_lead_to_texts() {
        for (pointer, wanted) in [
            ("/data/0/url", &["https://a"][..]),
            ("/data/*/url", &["https://a", "https://b"]),
            ("/ports/*", &["https://c"]),
            ("/ports/80", &["https://c"]),
            ("/a~1b~0c", &["https://d"]),
            ("/data/2/url", &[]),
            ("/data/-1/url", &[]),
            ("/data/1/id", &[]),
            ("/data", &[]),
            ("/data/0/url/x", &[]),
            ("/", &[]),
        ] {
            assert_eq!(found(pointer), wanted, "{pointer}");
        }
    }
}
