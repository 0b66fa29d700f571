//! What the application holds: [`Client`] for commands, [`EventStream`] for what comes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mqtt::ReasonCode;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::driver::{self, Command, Reply};
use crate::error::{ConnectError, Disconnected, PublishError, RequestError};
use crate::machine::{Goodbye, SubscribeRequest, UnsubscribeRequest};
use crate::message::{Connected, Granted, Message, Received, Subscription, Unsubscribed};
use crate::options::Options;

/// Something that the application should know.
#[derive(Debug)]
pub enum Event {
    /// A connection is up. Without `session_present` the broker knows no subscriptions: subscribe (again).
    Connected(Connected),
    /// A message came. It is acknowledged already: at QoS 2 it comes once, at QoS 1 at least once.
    Message(Received),
    /// A connection ended or did not come about.
    Disconnected {
        /// Why.
        why: Disconnected,
        /// When it is tried again; `None`: this was the last event.
        retry_in: Option<Duration>,
    },
}

/// The handle of a running client; clones steer the same one. When the last clone is dropped, what was commanded before
/// is still done and the client says good-bye.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    abort: Arc<Notify>,
    close_timeout: Duration,
}

impl Client {
    /// Starts a client on the current tokio runtime and waits for its first connection, which is the first event of
    /// the stream.
    ///
    /// # Errors
    /// The first connection did not come about. Nothing is tried again then, whatever the reconnect policy says.
    pub async fn connect(options: Options) -> Result<(Self, EventStream), ConnectError> {
        let (client, mut events) = Self::start(options);
        match events.next().await {
            Some(Event::Disconnected { why, .. }) => {
                client.abort();
                Err(ConnectError(why))
            }
            Some(first) => {
                events.first = Some(first);
                Ok((client, events))
            }
            None => Err(ConnectError(Disconnected::ByUs)),
        }
    }

    /// Starts a client on the current tokio runtime; everything else, failures too, comes as events.
    pub fn start(options: Options) -> (Self, EventStream) {
        let (commands, command_queue) = mpsc::channel(options.command_capacity.max(1));
        let (event_queue, events) = mpsc::channel(options.event_capacity.max(1));
        let abort = Arc::new(Notify::new());
        let close_timeout = options.close_timeout;
        driver::spawn(options, command_queue, event_queue, Arc::clone(&abort));
        (Self { commands, abort, close_timeout }, EventStream { first: None, queue: events })
    }

    /// Sends a message and waits until it is written (QoS 0) or acknowledged (QoS 1: PUBACK, QoS 2: PUBCOMP).
    ///
    /// While the connection is down, or as many messages are under way as the broker takes, it waits for its turn.
    /// Acknowledgements come the same way as messages: an application that takes no events while it waits here waits
    /// for ever once the event queue is full.
    ///
    /// # Errors
    /// The message was not acknowledged; see [`PublishError`].
    pub async fn publish(&self, message: Message) -> Result<ReasonCode, PublishError> {
        self.submit(message).await?.await
    }

    /// Waits until there is room for the message and gives back its [`Delivery`]: messages submitted one after the
    /// other go out in that order, without waiting for each acknowledgement.
    ///
    /// # Errors
    /// The client has ended.
    pub async fn submit(&self, message: Message) -> Result<Delivery, PublishError> {
        let (reply, delivery) = oneshot::channel();
        let command = Command::Publish(message, Reply::Publish(Some(reply)));
        self.commands.send(command).await.map_err(|_| PublishError::Closed)?;
        Ok(Delivery(delivery))
    }

    /// Queues a message and does not wait for anything; what becomes of it is not told.
    ///
    /// # Errors
    /// `QueueFull` if too many commands wait, `Closed` if the client has ended.
    pub fn publish_nowait(&self, message: Message) -> Result<(), PublishError> {
        self.commands.try_send(Command::Publish(message, Reply::Publish(None))).map_err(|error| match error {
            TrySendError::Full(_) => PublishError::QueueFull,
            TrySendError::Closed(_) => PublishError::Closed,
        })
    }

    /// Subscribes; the reasons in the answer tell which filters were granted with which QoS.
    ///
    /// Retained messages may come before the answer: take events while it is awaited.
    ///
    /// # Errors
    /// There was no answer; see [`RequestError`].
    pub async fn subscribe(
        &self,
        subscriptions: impl IntoIterator<Item = Subscription>,
    ) -> Result<Granted, RequestError> {
        let subscriptions = subscriptions.into_iter().collect();
        self.subscribe_with(SubscribeRequest { subscriptions, ..SubscribeRequest::default() }).await
    }

    /// Subscribes, with the properties of version 5.
    ///
    /// # Errors
    /// As [`Client::subscribe`].
    pub async fn subscribe_with(&self, request: SubscribeRequest) -> Result<Granted, RequestError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Subscribe(request, Reply::Subscribe(reply));
        self.commands.send(command).await.map_err(|_| RequestError::Closed)?;
        answer.await.unwrap_or(Err(RequestError::Closed))
    }

    /// Unsubscribes.
    ///
    /// # Errors
    /// There was no answer; see [`RequestError`].
    pub async fn unsubscribe(
        &self,
        filters: impl IntoIterator<Item = String>,
    ) -> Result<Unsubscribed, RequestError> {
        let filters = filters.into_iter().collect();
        self.unsubscribe_with(UnsubscribeRequest { filters, ..UnsubscribeRequest::default() }).await
    }

    /// Unsubscribes, with the properties of version 5.
    ///
    /// # Errors
    /// As [`Client::unsubscribe`].
    pub async fn unsubscribe_with(&self, request: UnsubscribeRequest) -> Result<Unsubscribed, RequestError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Unsubscribe(request, Reply::Unsubscribe(reply));
        self.commands.send(command).await.map_err(|_| RequestError::Closed)?;
        answer.await.unwrap_or(Err(RequestError::Closed))
    }

    /// Says good-bye after everything that was commanded before, and waits until the connection is closed. The client
    /// is finished then. What takes longer than `close_timeout` is cut off.
    pub async fn disconnect(&self, goodbye: Goodbye) {
        let (reply, done) = oneshot::channel();
        let all = async {
            if self.commands.send(Command::Disconnect(goodbye, reply)).await.is_ok() {
                // An error means that the client ended by itself; that is what was wanted.
                let _ = done.await;
            }
        };
        if tokio::time::timeout(self.close_timeout, all).await.is_err() {
            self.abort();
        }
    }

    /// Closes the connection at once and without a good-bye, so that the broker publishes the will; the client is
    /// finished.
    pub fn abort(&self) {
        self.abort.notify_one();
    }
}

/// The answer to a message that was submitted: ready when it is written (QoS 0) or acknowledged. It may be dropped; the
/// message is delivered all the same.
#[derive(Debug)]
pub struct Delivery(oneshot::Receiver<Result<ReasonCode, PublishError>>);

impl Future for Delivery {
    type Output = Result<ReasonCode, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(PublishError::Closed)))
    }
}

/// What happens, in order. As many events wait here as `event_capacity` says; at the bound nothing more is read from
/// the broker. When the stream is dropped, the client goes on and messages go nowhere.
#[derive(Debug)]
pub struct EventStream {
    first: Option<Event>,
    queue: mpsc::Receiver<Event>,
}

impl EventStream {
    /// The next event; `None` when the client is finished.
    pub async fn next(&mut self) -> Option<Event> {
        match self.first.take() {
            Some(first) => Some(first),
            None => self.queue.recv().await,
        }
    }

    /// The next event if it is there already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.first.take().or_else(|| self.queue.try_recv().ok())
    }
}
