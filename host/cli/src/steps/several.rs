//! Does something to several sandboxes, and collects lists that arrive in pages.

use anyhow::Result;
use sandbox_host::Sandbox;

use crate::output::FAILED;
use crate::session::Session;

/// Number of items that are requested at a time.
const PAGE: usize = 200;

/// Calls `act` for all these sandboxes at the same time, and then `show` for each success, in the order of the ids. A
/// failure is reported, and does not affect the other sandboxes. Returns the exit code.
pub async fn each<T, F>(
    session: &Session,
    step: &str,
    ids: &[String],
    act: impl Fn(Sandbox) -> F,
    show: impl Fn(&str, T) -> Result<()>,
) -> Result<i32>
where
    F: Future<Output = sandbox_host::Result<T>>,
{
    let provider = session.provider().await?;
    let step = session.voice.step(step);
    let results = futures_util::future::join_all(ids.iter().map(|id| act(provider.sandbox(id)))).await;
    drop(step);
    let mut code = 0;
    for (id, result) in ids.iter().zip(results) {
        match result {
            Ok(value) => show(id, value)?,
            Err(error) => {
                session.voice.fail(&error.into());
                code = FAILED;
            }
        }
    }
    Ok(code)
}

/// Returns the first `limit` items of a list that arrives in pages. `page` returns the page that begins at a cursor,
/// with at most as many items as its second argument, and the cursor of the next page.
pub async fn pages<T, F>(limit: usize, page: impl Fn(Option<String>, u32) -> F) -> sandbox_host::Result<Vec<T>>
where
    F: Future<Output = sandbox_host::Result<(Vec<T>, Option<String>)>>,
{
    let (mut found, mut cursor) = (Vec::new(), None);
    while found.len() < limit {
        let (items, next) = page(cursor, (limit - found.len()).min(PAGE) as u32).await?;
        found.extend(items);
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    found.truncate(limit);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::pages;

    /// Returns the first `limit` of the numbers below `count`, and the requested pages. Every second page is empty.
    async fn numbers(count: usize, limit: usize) -> (Vec<usize>, Vec<(Option<String>, u32)>) {
        let asked = RefCell::new(Vec::new());
        let found = pages(limit, |cursor, max| {
            asked.borrow_mut().push((cursor.clone(), max));
            async move {
                let cursor = cursor.unwrap_or_default();
                if let Some(from) = cursor.strip_prefix("after ") {
                    return Ok((Vec::new(), Some(from.to_owned())));
                }
                let from: usize = cursor.parse().unwrap_or_default();
                let to = (from + max as usize).min(count);
                Ok(((from..to).collect(), (to < count).then(|| format!("after {to}"))))
            }
        });
        let found = found.await.expect("no call fails");
        (found, asked.into_inner())
    }

    #[tokio::test]
    async fn pages_are_joined_up_to_the_limit() {
        for (count, limit) in [(0, 5), (3, 5), (5, 5), (7, 5), (450, 1000), (450, 401), (200, 1000)] {
            let (found, _) = numbers(count, limit).await;
            assert_eq!(found, (0..count.min(limit)).collect::<Vec<_>>(), "{count} {limit}");
        }
    }

    #[tokio::test]
    async fn no_page_is_requested_in_vain() {
        assert!(numbers(7, 0).await.1.is_empty());
        assert_eq!(numbers(7, 5).await.1, [(None, 5)]);
        let asked = numbers(450, 401).await.1;
        assert_eq!(asked.iter().map(|(_, max)| *max).collect::<Vec<_>>(), [200, 200, 200, 1, 1]);
        assert_eq!(asked[1].0.as_deref(), Some("after 200"));
    }
}
