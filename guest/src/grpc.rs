//! gRPC over the transport, in encoded messages: one code path for all methods. A generated client per method would make the
//! component three times as large; [`modal_proto::Rpc`] keeps the types right at the edges.

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::{StreamExt as _, stream::BoxStream};
use http::{Uri, uri::PathAndQuery};
use modal_proto::{MAX_MESSAGE_BYTES, prost::Message};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::transport::Channel;

/// One unary call.
///
/// # Errors
///
/// What the server answered, or why it did not.
pub async fn unary(
    channel: Channel,
    origin: Uri,
    path: &'static str,
    request: Request<Bytes>,
) -> Result<Bytes, Status> {
    let mut grpc = client(channel, origin);
    ready(&mut grpc).await?;
    Ok(grpc.unary(request, PathAndQuery::from_static(path), Encoded).await?.into_inner())
}

/// Opens a server stream; resolves when the server has begun to answer.
///
/// # Errors
///
/// As [`unary`].
pub async fn server_stream(
    channel: Channel,
    origin: Uri,
    path: &'static str,
    request: Request<Bytes>,
) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status> {
    let mut grpc = client(channel, origin);
    ready(&mut grpc).await?;
    let stream = grpc.server_streaming(request, PathAndQuery::from_static(path), Encoded).await?.into_inner();
    Ok(stream.boxed())
}

/// A message out of its encoded form.
///
/// # Errors
///
/// INTERNAL when the bytes are no such message.
pub fn decode<A: Message + Default>(bytes: Bytes) -> Result<A, Status> {
    A::decode(bytes).map_err(|error| Status::internal(format!("the answer cannot be read: {error}")))
}

fn client(channel: Channel, origin: Uri) -> Grpc<Channel> {
    Grpc::with_origin(channel, origin)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

async fn ready(grpc: &mut Grpc<Channel>) -> Result<(), Status> {
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))
}

/// The codec of messages that are encoded already.
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Encoded;
    type Decoder = Encoded;

    fn encoder(&mut self) -> Encoded {
        Encoded
    }

    fn decoder(&mut self) -> Encoded {
        Encoded
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
