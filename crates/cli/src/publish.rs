//! `tidegate pub`: publishes messages, with the flags of mosquitto_pub.

use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use client::{
    Backoff, Client, Delivery, Disconnected, Event, EventStream, Goodbye, Message, PublishError, Reconnect,
};
use mqtt::QoS;
use tokio::sync::mpsc;

use crate::connection::{Connection, ConnectionArgs, Failure, Voice, block_on, qos};

/// Lines of standard input read ahead, and messages whose acknowledgement is awaited.
const AHEAD: usize = 64;

/// Bytes of the largest payload that MQTT can carry, about.
const LARGEST_PAYLOAD: u64 = 268_435_455;

/// Publish messages on a topic.
#[derive(Clone, Debug, clap::Args)]
#[command(version, disable_help_flag = true, disable_version_flag = true, args_override_self = true)]
pub struct Args {
    /// Topic to publish to
    #[arg(short, long, allow_hyphen_values = true)]
    topic: Option<String>,
    #[command(flatten)]
    source: SourceArgs,
    /// Quality of service: 0, 1 or 2
    #[arg(short, long, value_parser = qos, default_value = "0")]
    qos: QoS,
    /// Make it the topic's retained message
    #[arg(short, long)]
    retain: bool,
    /// Publish the message of -f, -m, -n or -s this many times
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    repeat: u64,
    /// Seconds to wait between repeated messages
    #[arg(long, default_value = "0", value_parser = seconds)]
    repeat_delay: Duration,
    /// How many messages of QoS 1 and 2 may wait for their acknowledgements
    #[arg(short = 'M', long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    max_inflight: u16,
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Print the version
    #[arg(long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

/// What is published.
#[derive(Clone, Debug, clap::Args)]
#[group(multiple = false)]
struct SourceArgs {
    /// The message
    #[arg(short, long, allow_hyphen_values = true)]
    message: Option<String>,
    /// The contents of a file
    #[arg(short, long, allow_hyphen_values = true)]
    file: Option<PathBuf>,
    /// An empty message
    #[arg(short, long)]
    null_message: bool,
    /// Standard input as one message
    #[arg(short = 's', long)]
    stdin_file: bool,
    /// Standard input, one message for each line
    #[arg(short = 'l', long)]
    stdin_line: bool,
}

enum Source {
    Once(Bytes),
    Lines,
}

impl SourceArgs {
    fn open(&self) -> Result<Source, String> {
        let payload = if let Some(text) = &self.message {
            Bytes::from(text.clone())
        } else if let Some(path) = &self.file {
            let shown = path.display();
            let file = std::fs::File::open(path).map_err(|error| format!("cannot open {shown}: {error}"))?;
            read_all(file).map_err(|error| format!("cannot read {shown}: {error}"))?
        } else if self.null_message {
            Bytes::new()
        } else if self.stdin_file {
            read_all(std::io::stdin().lock())
                .map_err(|error| format!("cannot read standard input: {error}"))?
        } else if self.stdin_line {
            return Ok(Source::Lines);
        } else {
            return Err("what to publish is missing: -m, -f, -l, -n or -s".to_owned());
        };
        Ok(Source::Once(payload))
    }
}

fn read_all(input: impl Read) -> std::io::Result<Bytes> {
    let mut bytes = Vec::new();
    input.take(LARGEST_PAYLOAD + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_PAYLOAD {
        return Err(std::io::Error::other(format!("more than {LARGEST_PAYLOAD} bytes fit into no message")));
    }
    Ok(bytes.into())
}

/// A number of seconds with a fraction.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "a number of seconds is expected, for example 0.5".to_owned();
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// Runs `tidegate pub`; the exit code is that of mosquitto_pub.
pub fn run(args: Args) -> ExitCode {
    let voice = args.connection.voice();
    let done = args.prepare().map_err(Failure::Local).and_then(|job| block_on(job.run()));
    done.map_or_else(|failure| failure.report(voice), |()| ExitCode::SUCCESS)
}

impl Args {
    fn prepare(self) -> Result<Job, String> {
        let mut connection = self.connection.connection("tidegate-pub")?;
        let topic = self.topic.or_else(|| connection.topic.take());
        let topic = topic.ok_or("the topic is missing: -t, or -L with one")?;
        mqtt::topic::validate(&topic).map_err(|error| format!("-t {topic}: {error}"))?;
        let template = Message {
            qos: self.qos,
            retain: self.retain,
            properties: connection.properties.publish.clone(),
            ..Message::new(topic, Bytes::new())
        };
        let source = self.source.open()?;
        connection.options.max_inflight = self.max_inflight;
        if matches!(source, Source::Lines) {
            // A pipe may run for days; a single message is better told to have failed.
            connection.options.reconnect =
                Reconnect::WithBackoff(Backoff { first: Duration::from_secs(1), ..Backoff::default() });
        }
        Ok(Job { connection, template, source, repeat: self.repeat, delay: self.repeat_delay })
    }
}

/// The command line, checked.
struct Job {
    connection: Connection,
    template: Message,
    source: Source,
    repeat: u64,
    delay: Duration,
}

impl Job {
    async fn run(self) -> Result<(), Failure> {
        let voice = self.connection.voice;
        let (version, qos) = (self.connection.options.version, self.template.qos);
        voice.debug(|| format!("connecting to {}", self.connection.options.server));
        let connected = Client::connect(self.connection.options).await;
        let (client, events) = connected.map_err(|error| Failure::Connection(error.0, version))?;
        let end = tokio::spawn(watch(events, voice));
        // Acknowledgements are awaited beside the sending, in order.
        let (sent, deliveries) = mpsc::channel(AHEAD);
        let collector = tokio::spawn(collect(deliveries, voice));
        let submitted = match self.source {
            Source::Once(payload) => {
                let message = Message { payload, ..self.template };
                repeat(&client, &message, self.repeat, self.delay, &sent, voice).await
            }
            Source::Lines => lines(&client, &self.template, &sent, voice).await,
        };
        drop(sent);
        let outcome = collector.await.unwrap_or(Outcome::Failed);
        let goodbye = Goodbye {
            session_expiry_interval: self.connection.properties.disconnect_session_expiry,
            user_properties: self.connection.properties.disconnect_user.clone(),
            ..Goodbye::default()
        };
        client.disconnect(goodbye).await;
        let end = end.await.unwrap_or(Disconnected::ByUs);
        submitted?;
        match (outcome, end) {
            (Outcome::Cut, end) => Err(Failure::Connection(end, version)),
            (Outcome::Failed, _) => Err(Failure::Local("not every message was published".to_owned())),
            (Outcome::Well, Disconnected::ByUs) => Ok(()),
            // Every message was answered; what came after that does not matter.
            (Outcome::Well, _) if qos > QoS::AtMostOnce => Ok(()),
            // The connection ended before our good-bye: nobody knows what became of the last messages.
            (Outcome::Well, end) => Err(Failure::Connection(end, version)),
        }
    }
}

/// Takes the events, so that the connection is never held up; gives back why it ended for good.
async fn watch(mut events: EventStream, voice: Voice) -> Disconnected {
    let mut last = Disconnected::ByUs;
    while let Some(event) = events.next().await {
        match event {
            Event::Connected(connected) => {
                voice.debug(|| format!("connected, session present: {}", connected.session_present));
            }
            Event::Message(received) => {
                voice.debug(|| format!("received a message on {}", received.message.topic));
            }
            Event::Disconnected { why, retry_in } => {
                voice.debug(|| match retry_in {
                    Some(pause) => format!("{why}; trying again in {} ms", pause.as_millis()),
                    None => why.to_string(),
                });
                last = why;
            }
        }
    }
    last
}

/// What became of all messages.
enum Outcome {
    /// Acknowledged, or refused by the broker's rules, which is a warning as with mosquitto_pub.
    Well,
    /// One could not be sent, or was lost with its session.
    Failed,
    /// The client ended first.
    Cut,
}

async fn collect(mut deliveries: mpsc::Receiver<Delivery>, voice: Voice) -> Outcome {
    let mut outcome = Outcome::Well;
    let mut number = 0_u64;
    while let Some(delivery) = deliveries.recv().await {
        number += 1;
        match delivery.await {
            Ok(reason) => voice.debug(|| format!("message {number}: {reason}")),
            Err(PublishError::Refused { reason, .. }) => {
                voice.error(&format!("Warning: Publish {number} failed: {reason}."));
            }
            Err(PublishError::Closed) => outcome = Outcome::Cut,
            Err(error) => {
                voice.error(&format!("Error: message {number}: {error}"));
                if matches!(outcome, Outcome::Well) {
                    outcome = Outcome::Failed;
                }
            }
        }
    }
    outcome
}

async fn repeat(
    client: &Client,
    message: &Message,
    times: u64,
    delay: Duration,
    sent: &mpsc::Sender<Delivery>,
    voice: Voice,
) -> Result<(), Failure> {
    for time in 0..times {
        if time > 0 && !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if !submit(client, message.clone(), sent, voice).await {
            break;
        }
    }
    Ok(())
}

/// `false`: the client has ended, which its last event explains.
async fn submit(client: &Client, message: Message, sent: &mpsc::Sender<Delivery>, voice: Voice) -> bool {
    voice.debug(|| format!("publishing {} bytes on {}", message.payload.len(), message.topic));
    match client.submit(message).await {
        Ok(delivery) => sent.send(delivery).await.is_ok(),
        Err(_) => false,
    }
}

async fn lines(
    client: &Client,
    template: &Message,
    sent: &mpsc::Sender<Delivery>,
    voice: Voice,
) -> Result<(), Failure> {
    let (line, mut read) = mpsc::channel(AHEAD);
    let reader = tokio::task::spawn_blocking(move || read_lines(std::io::stdin().lock(), &line));
    while let Some(payload) = read.recv().await {
        let message = Message { payload, ..template.clone() };
        if !submit(client, message, sent, voice).await {
            // The reader may wait for input that never comes; the runtime does not wait for it.
            return Ok(());
        }
    }
    match reader.await {
        Ok(Err(error)) => Err(Failure::Local(format!("cannot read standard input: {error}"))),
        _ => Ok(()),
    }
}

/// Each line without its line feed; ends when nobody takes them any more.
fn read_lines(mut input: impl BufRead, lines: &mpsc::Sender<Bytes>) -> std::io::Result<()> {
    loop {
        let mut line = Vec::new();
        if input.by_ref().take(LARGEST_PAYLOAD).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if lines.blocking_send(line.into()).is_err() {
            return Ok(());
        }
    }
}
