//! The machine on a tokio task: socket, queues, reconnects. Decides nothing about the protocol.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mqtt::ReasonCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::backoff::{Pauses, Reconnect};
use crate::error::{Disconnected, PublishError, RequestError};
use crate::handle::Event;
use crate::machine::{
    self, Completion, Goodbye, Machine, OUTPUT_LIMIT, SubscribeRequest, UnsubscribeRequest,
};
use crate::message::{Connected, Granted, Message, Unsubscribed};
use crate::options::Options;
use crate::transport::Transport;

/// Bytes read from the socket at once.
const READ_SIZE: usize = 16 * 1024;

/// Commands carried out before bytes move again.
const COMMANDS_PER_TURN: usize = 64;

/// What a handle asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Publish(Message, Reply),
    Subscribe(SubscribeRequest, Reply),
    Unsubscribe(UnsubscribeRequest, Reply),
    Disconnect(Goodbye, oneshot::Sender<()>),
}

/// Who waits for the answer.
#[derive(Debug)]
pub(crate) enum Reply {
    Publish(Option<oneshot::Sender<Result<ReasonCode, PublishError>>>),
    Subscribe(oneshot::Sender<Result<Granted, RequestError>>),
    Unsubscribe(oneshot::Sender<Result<Unsubscribed, RequestError>>),
}

pub(crate) fn spawn(
    options: Options,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    abort: Arc<Notify>,
) {
    let pauses = match &options.reconnect {
        Reconnect::Never => None,
        Reconnect::WithBackoff(policy) => Some(Pauses::new(policy.clone())),
    };
    let machine = Machine::new(options);
    let driver = Driver {
        machine,
        commands,
        waiting: None,
        events,
        abort,
        local_address: None,
        pauses,
        goodbye: None,
        finished: false,
        aborted: false,
    };
    tokio::spawn(driver.run());
}

struct Driver {
    machine: Machine<Reply>,
    commands: mpsc::Receiver<Command>,
    /// A command whose turn has not come; no others are taken meanwhile.
    waiting: Option<Command>,
    events: mpsc::Sender<Event>,
    abort: Arc<Notify>,
    /// Of the connection that is up.
    local_address: Option<SocketAddr>,
    pauses: Option<Pauses>,
    /// Who waits for the end; told by being dropped.
    goodbye: Option<oneshot::Sender<()>>,
    /// The application wants no further connection.
    finished: bool,
    /// ... and does not wait for anything.
    aborted: bool,
}

/// What woke the driver.
enum Wake {
    Abort,
    Event,
    Read(io::Result<usize>),
    Written(io::Result<usize>),
    Command(Option<Command>),
    Deadline,
}

impl Driver {
    async fn run(mut self) {
        loop {
            let began = self.now();
            let connections = self.machine.connections();
            let why = self.connection(began).await;
            self.complete();
            if let Some(pauses) = &mut self.pauses
                && self.machine.connections() > connections
            {
                pauses.connection_lived(self.machine.options().clock.now().saturating_duration_since(began));
            }
            self.deliver_rest().await;
            let retry_in = match &mut self.pauses {
                Some(pauses) if !self.finished && !why.is_final() => Some(pauses.next()),
                _ => None,
            };
            self.tell(Event::Disconnected { why, retry_in }).await;
            match retry_in {
                Some(pause) if self.pause(pause).await => {}
                _ => break,
            }
        }
        self.machine.finish();
        self.complete();
        // Whoever waits for the end, or still stands in the queue, sees their channel close.
        drop(self.goodbye.take());
    }

    fn now(&self) -> Instant {
        self.machine.options().clock.now()
    }

    /// One connection from the first SYN to the last FIN.
    async fn connection(&mut self, began: Instant) -> Disconnected {
        let options = self.machine.options();
        let deadline = began + options.connect_timeout;
        let connect = Transport::connect(options);
        let transport = tokio::select! {
            () = self.abort.notified() => None,
            result = tokio::time::timeout_at(deadline.into(), connect) => Some(result),
        };
        match transport {
            None => self.give_up(),
            Some(Err(_)) => return Disconnected::ConnectTimeout,
            Some(Ok(Err(error))) => return Disconnected::Unreachable(error),
            Some(Ok(Ok(transport))) => {
                self.local_address = transport.local_address();
                let now = self.now();
                self.machine.start(now, deadline);
                let (reader, writer) = tokio::io::split(transport);
                self.serve(reader, writer).await;
            }
        }
        self.machine.take_end().unwrap_or(Disconnected::ByUs)
    }

    /// Moves bytes, commands and events until the connection is over.
    async fn serve(&mut self, mut reader: ReadHalf<Transport>, mut writer: WriteHalf<Transport>) {
        let mut buffer = vec![0; READ_SIZE];
        // A broker that closed its side may have said why before: after a failed write only reading goes on.
        let mut write_error = None;
        while !self.aborted {
            self.advance();
            self.complete();
            if self.machine.wants_close() {
                self.close(&mut buffer, reader, writer).await;
                break;
            }
            if !self.machine.is_open() {
                break;
            }
            let wake = self.wait(&mut buffer, &mut reader, &mut writer, write_error.is_none()).await;
            let now = self.now();
            match wake {
                Wake::Abort => self.give_up(),
                Wake::Event => {}
                Wake::Read(Ok(0)) => self.machine.lost(write_error.take()),
                Wake::Read(Ok(len)) => self.machine.receive(buffer.get(..len).unwrap_or_default(), now),
                Wake::Read(Err(error)) => self.machine.lost(Some(error)),
                Wake::Written(Ok(len)) => self.machine.written(len, now),
                Wake::Written(Err(error)) => write_error = Some(error),
                Wake::Command(Some(command)) => self.waiting = Some(command),
                Wake::Command(None) => {
                    self.finished = true;
                    self.machine.disconnect(Goodbye::default());
                }
                Wake::Deadline => self.machine.tick(now),
            }
        }
        if self.aborted {
            self.machine.abandon();
        }
        self.machine.lost(None);
    }

    /// Waits for the next thing to do. Every branch may be cancelled without loss.
    async fn wait(
        &mut self,
        buffer: &mut [u8],
        reader: &mut ReadHalf<Transport>,
        writer: &mut WriteHalf<Transport>,
        writable: bool,
    ) -> Wake {
        let events_wait = self.machine.has_event();
        let now = self.now();
        self.machine.set_paused(events_wait, now);
        let output = self.machine.output();
        let deadline = self.machine.deadline();
        tokio::select! {
            () = self.abort.notified() => Wake::Abort,
            permit = self.events.reserve(), if events_wait => {
                // Without a permit nobody listens any more: messages go nowhere.
                let event = self.machine.poll_event();
                if let (Some(event), Ok(permit)) = (event, permit) {
                    permit.send(outward(event, self.local_address));
                }
                Wake::Event
            }
            result = writer.write(output), if writable && !output.is_empty() => Wake::Written(result),
            result = reader.read(buffer), if !events_wait && output.len() < OUTPUT_LIMIT => Wake::Read(result),
            command = self.commands.recv(), if self.waiting.is_none() && self.machine.is_connected() => {
                Wake::Command(command)
            }
            () = sleep_until(deadline), if deadline.is_some() => Wake::Deadline,
        }
    }

    /// Carries out commands as long as their turn has come.
    fn advance(&mut self) {
        for _ in 0..COMMANDS_PER_TURN {
            let Some(command) = self.waiting.take().or_else(|| self.commands.try_recv().ok()) else { break };
            self.waiting = self.execute(command);
            if self.waiting.is_some() {
                break;
            }
        }
    }

    /// Carries out a command, or gives it back if its turn has not come.
    fn execute(&mut self, command: Command) -> Option<Command> {
        match command {
            Command::Publish(message, reply) if self.machine.can_publish(message.qos) => {
                self.machine.publish(message, reply);
            }
            Command::Subscribe(request, reply) if self.machine.can_request() => {
                self.machine.subscribe(request, reply);
            }
            Command::Unsubscribe(request, reply) if self.machine.can_request() => {
                self.machine.unsubscribe(request, reply);
            }
            Command::Disconnect(goodbye, done) => {
                self.finished = true;
                self.goodbye = Some(done);
                self.machine.disconnect(goodbye);
            }
            not_yet => return Some(not_yet),
        }
        None
    }

    /// Tells those who wait. A caller that went away does not matter.
    fn complete(&mut self) {
        while let Some(completion) = self.machine.poll_completion() {
            match completion {
                Completion::Published(Reply::Publish(Some(reply)), result) => drop(reply.send(result)),
                Completion::Subscribed(Reply::Subscribe(reply), result) => drop(reply.send(result)),
                Completion::Unsubscribed(Reply::Unsubscribe(reply), result) => drop(reply.send(result)),
                // A message that nobody waits for. Other pairs are not made.
                Completion::Published(..) | Completion::Subscribed(..) | Completion::Unsubscribed(..) => {}
            }
        }
    }

    /// Writes what is left, says that no more comes, and reads to the end: closing with unread bytes would make the
    /// kernel reset the connection, and a reset may overtake our last message.
    async fn close(
        &mut self,
        buffer: &mut [u8],
        mut reader: ReadHalf<Transport>,
        mut writer: WriteHalf<Transport>,
    ) {
        let output = self.machine.output();
        if output.is_empty() {
            return;
        }
        let farewell = async {
            writer.write_all(output).await?;
            writer.shutdown().await?;
            while reader.read(buffer).await? > 0 {}
            io::Result::Ok(())
        };
        let limit = self.machine.options().close_timeout;
        tokio::select! {
            () = self.abort.notified() => self.give_up(),
            // Whether it came through or not, the connection is over.
            _ = tokio::time::timeout(limit, farewell) => {}
        }
    }

    fn give_up(&mut self) {
        self.finished = true;
        self.aborted = true;
    }

    /// Hands on what came before the connection ended.
    async fn deliver_rest(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            self.tell(outward(event, self.local_address)).await;
        }
    }

    /// Waits until the application has room for the event, unless it gives up.
    async fn tell(&mut self, event: Event) {
        if self.aborted {
            // No room or nobody there: whoever aborts does not count on it.
            let _ = self.events.try_send(event);
            return;
        }
        tokio::select! {
            () = self.abort.notified() => {
                self.finished = true;
                self.aborted = true;
            }
            // An error is a stream that nobody reads any more.
            _ = self.events.send(event) => {}
        }
    }

    /// Waits before the next connection; `false` if there shall be none.
    async fn pause(&mut self, pause: Duration) -> bool {
        let sleep = tokio::time::sleep(pause);
        tokio::pin!(sleep);
        loop {
            if self.aborted || (self.commands.is_closed() && self.events.is_closed()) {
                return false;
            }
            tokio::select! {
                () = self.abort.notified() => self.give_up(),
                () = &mut sleep => return true,
                command = self.commands.recv(), if self.waiting.is_none() => match command {
                    None => return false,
                    Some(command) => {
                        self.waiting = self.execute(command);
                        if self.finished {
                            return false;
                        }
                    }
                },
            }
        }
    }
}

/// A machine's event as the application sees it.
fn outward(event: machine::Event, local_address: Option<SocketAddr>) -> Event {
    match event {
        machine::Event::Connected(connected) => Event::Connected(Connected { local_address, ..connected }),
        machine::Event::Message(received) => Event::Message(received),
    }
}

/// Never ready without a deadline.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
