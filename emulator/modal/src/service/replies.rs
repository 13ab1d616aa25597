//! Calls that may come twice: a client repeats a call whose answer it lost under the same idempotency key.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use modal_proto::prost::Message;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tonic::Status;

/// Answers kept; a client repeats within seconds, so the newest few thousand are plenty.
const KEPT: usize = 4096;

/// Answers by method and key.
#[derive(Debug, Default)]
pub struct Replies {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    cells: HashMap<String, Arc<OnceCell<Bytes>>>,
    order: VecDeque<String>,
}

impl Replies {
    /// The answer to this call: a kept one, or that of `call`, which is made once however often the key comes. Failures
    /// are not kept.
    pub async fn once<T, F>(&self, method: &str, key: Option<&str>, call: F) -> Result<T, Status>
    where
        T: Message + Default,
        F: Future<Output = Result<T, Status>>,
    {
        let Some(key) = key.filter(|key| !key.is_empty()) else { return call.await };
        let cell = self.cell(format!("{method} {key}"));
        let bytes =
            cell.get_or_try_init(|| async { call.await.map(|reply| Bytes::from(reply.encode_to_vec())) }).await?;
        T::decode(bytes.clone()).map_err(|e| Status::internal(e.to_string()))
    }

    fn cell(&self, key: String) -> Arc<OnceCell<Bytes>> {
        let mut kept = self.kept.lock();
        if let Some(cell) = kept.cells.get(&key) {
            return cell.clone();
        }
        while kept.order.len() >= KEPT {
            if let Some(oldest) = kept.order.pop_front() {
                kept.cells.remove(&oldest);
            }
        }
        let cell = Arc::<OnceCell<Bytes>>::default();
        kept.cells.insert(key.clone(), cell.clone());
        kept.order.push_back(key);
        cell
    }
}
