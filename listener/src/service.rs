//! What is served, and what it learns of and says to its connection.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::body::RequestBody;

/// What a listener serves. It is implemented by every cloneable [`Service`] of these types: one clone serves one
/// connection, and its `poll_ready` is not called.
pub trait HttpService:
    Service<
        Request<RequestBody>,
        Response = Response<Self::ResponseBody>,
        Error = Infallible,
        Future: Future<Output = Result<Response<Self::ResponseBody>, Infallible>> + Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
    /// The body of its responses.
    type ResponseBody: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + Send + 'static;
}

impl<S, B> HttpService for S
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + Send + 'static,
{
    type ResponseBody = B;
}

/// The address of the connection's other end; every request has it in its extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// In a response's extensions: the connection closes instead of sending it.
#[derive(Clone, Copy, Debug)]
pub struct CloseConnection;
