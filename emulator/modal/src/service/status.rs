//! Converts errors of the domain to gRPC statuses. No other module does this.

use bytes::Bytes;
use modal_proto::client::{RpcRetryPolicy, RpcStatus};
use modal_proto::prost::Message as _;
use modal_proto::prost_types::Any;
use tonic::{Code, Status};

use crate::model::error::{Error, Kind};
use crate::model::faults::Answer;

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let code = match error.kind() {
            Kind::NotFound => Code::NotFound,
            Kind::InvalidArgument => Code::InvalidArgument,
            Kind::FailedPrecondition => Code::FailedPrecondition,
            Kind::AlreadyExists => Code::AlreadyExists,
            Kind::Unimplemented => Code::Unimplemented,
            Kind::ResourceExhausted => Code::ResourceExhausted,
            Kind::DeadlineExceeded => Code::DeadlineExceeded,
            Kind::Aborted => Code::Aborted,
            Kind::DataLoss => Code::DataLoss,
            Kind::Internal => Code::Internal,
        };
        Status::new(code, error.message())
    }
}

/// Returns the status of an ordered failure, with a retry policy in its details if the fault has one.
pub fn ordered(answer: &Answer) -> Status {
    let code = Code::from_i32(answer.code);
    let Some(retry_after_secs) = answer.retry_after_secs else { return Status::new(code, answer.message.clone()) };
    let policy = Any {
        type_url: "type.modal.com/modal.client.RPCRetryPolicy".to_owned(),
        value: RpcRetryPolicy { retry_after_secs }.encode_to_vec(),
    };
    let details = RpcStatus { code: answer.code, message: answer.message.clone(), details: vec![policy] };
    Status::with_details(code, answer.message.clone(), Bytes::from(details.encode_to_vec()))
}
