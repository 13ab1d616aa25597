//! Responses to calls that clients repeat: a client that lost the response repeats the call with the same idempotency key.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use modal_proto::prost::Message;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tonic::Status;

/// Number of responses that are kept. Clients repeat a call within seconds, so the newest few thousand suffice.
const KEPT: usize = 4096;

/// Responses by method and idempotency key.
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
    /// Returns the stored response of a call. If there is none, carries `call` out, once for all concurrent attempts, and
    /// stores its response. Failures are not stored. Calls without a key are always carried out.
    ///
    /// # Errors
    ///
    /// Returns the error of `call`, and INTERNAL if a stored response cannot be decoded.
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
