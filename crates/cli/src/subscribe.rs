//! `tidegate sub`: prints the messages of topics, with the flags of mosquitto_sub.

mod format;
mod json;
mod render;

use std::collections::VecDeque;
use std::io::Write;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use client::{
    Backoff, Client, Connected, Event, EventStream, Goodbye, Granted, Message, Received, Reconnect,
    RequestError, SubscribeRequest, Subscription, UnsubscribeRequest,
};
use mqtt::filter::Filter;
use mqtt::{QoS, Version};
use runtime::clock::Clock;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::connection::{Connection, ConnectionArgs, Failure, Voice, block_on, qos};
use format::Format;
use render::{Layout, WallClock};

/// Print the messages of topics.
#[derive(Clone, Debug, clap::Args)]
#[command(version, disable_help_flag = true, disable_version_flag = true, args_override_self = true)]
pub struct Args {
    /// Topic filter to subscribe to; may be repeated
    #[arg(short, long, allow_hyphen_values = true)]
    topic: Vec<String>,
    /// Topic filter whose messages are left out; may be repeated
    #[arg(short = 'T', long, allow_hyphen_values = true)]
    filter_out: Vec<String>,
    /// Topic filter to unsubscribe from; may be repeated
    #[arg(short = 'U', long, allow_hyphen_values = true)]
    unsubscribe: Vec<String>,
    /// Highest quality of service to receive with: 0, 1 or 2
    #[arg(short, long, value_parser = qos, default_value = "0")]
    qos: QoS,
    /// End after this many messages
    #[arg(short = 'C', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this many seconds, with exit code 27
    #[arg(short = 'W', value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=u64::from(u32::MAX)))]
    timeout: Option<u64>,
    /// End once all subscriptions are acknowledged
    #[arg(short = 'E')]
    exit_after_subscribe: bool,
    /// Print no retained messages
    #[arg(short = 'R', conflicts_with = "retained_only")]
    no_retained: bool,
    /// Print only retained messages, and end at the first other one
    #[arg(long)]
    retained_only: bool,
    /// Clear each retained message that comes and is not left out by -T
    #[arg(long)]
    remove_retained: bool,
    /// MQTT 5: keep the retain flag as the publisher set it
    #[arg(long)]
    retain_as_published: bool,
    /// Print only this percentage of the messages, 0.1 to 100
    #[arg(long, value_name = "PERCENT", value_parser = percentage)]
    random_filter: Option<f64>,
    /// Print the topic before the payload
    #[arg(short, long)]
    verbose: bool,
    /// Output format: %t topic, %p payload, %x and %X payload as hex, %l its length, %q QoS, %r retained, %m packet id,
    /// %j and %J JSON, %I and %U time, %A %C %D %E %F %P %R %S properties, @X strftime, \n and friends
    #[arg(short = 'F', value_name = "FORMAT", allow_hyphen_values = true)]
    format: Option<String>,
    /// Print no end of line after a message
    #[arg(short = 'N')]
    no_newline: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Print the version
    #[arg(long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

fn percentage(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.1..=100.0).contains(number));
    number.ok_or_else(|| "allowed: 0.1 to 100.0".to_owned())
}

/// Runs `tidegate sub`; the exit code is that of mosquitto_sub.
pub fn run(args: Args) -> ExitCode {
    let voice = args.connection.voice();
    let done = args.prepare().map_err(Failure::Local).and_then(|job| block_on(job.run()));
    done.map_or_else(|failure| failure.report(voice), |()| ExitCode::SUCCESS)
}

impl Args {
    fn prepare(self) -> Result<Job, String> {
        let mut connection = self.connection.connection("tidegate-sub")?;
        let mut topics = self.topic;
        topics.extend(connection.topic.take());
        if topics.is_empty() && self.unsubscribe.is_empty() {
            return Err("the topic is missing: -t, or -L with one".to_owned());
        }
        for (flag, filters) in [("-t", &topics), ("-U", &self.unsubscribe), ("-T", &self.filter_out)] {
            for filter in filters {
                Filter::parse(filter).map_err(|error| format!("{flag} {filter}: {error}"))?;
            }
        }
        if self.retain_as_published && connection.options.version != Version::V5 {
            return Err("--retain-as-published needs MQTT 5 (-V 5)".to_owned());
        }
        let layout = match self.format {
            Some(format) => Layout::Format(Format::parse(&format).map_err(|error| format!("-F: {error}"))?),
            None if self.verbose => Layout::TopicAndPayload,
            None => Layout::Payload,
        };
        connection.options.reconnect =
            Reconnect::WithBackoff(Backoff { first: Duration::from_secs(1), ..Backoff::default() });
        Ok(Job {
            properties: SubscribeProperties {
                identifier: connection.properties.subscription_identifier,
                subscribe_user: connection.properties.subscribe_user.clone(),
                unsubscribe_user: connection.properties.unsubscribe_user.clone(),
            },
            topics,
            unsubscribe: self.unsubscribe,
            qos: self.qos,
            retain_as_published: self.retain_as_published,
            timeout: self.timeout.map(Duration::from_secs),
            exit_after_subscribe: self.exit_after_subscribe,
            sieve: Sieve {
                filter_out: self.filter_out,
                no_retained: self.no_retained,
                retained_only: self.retained_only,
                remove_retained: self.remove_retained,
                share: self.random_filter.map(|percent| percent / 100.0),
                left: self.count,
            },
            layout,
            newline: !self.no_newline,
            connection,
        })
    }
}

/// The command line, checked.
struct Job {
    connection: Connection,
    properties: SubscribeProperties,
    topics: Vec<String>,
    unsubscribe: Vec<String>,
    qos: QoS,
    retain_as_published: bool,
    timeout: Option<Duration>,
    exit_after_subscribe: bool,
    sieve: Sieve,
    layout: Layout,
    newline: bool,
}

#[derive(Clone)]
struct SubscribeProperties {
    identifier: Option<u32>,
    subscribe_user: Vec<(String, String)>,
    unsubscribe_user: Vec<(String, String)>,
}

/// Decides what to do with a message.
struct Sieve {
    filter_out: Vec<String>,
    no_retained: bool,
    retained_only: bool,
    remove_retained: bool,
    /// Of the messages that are printed, 0.0 to 1.0.
    share: Option<f64>,
    /// Messages to print before the end.
    left: Option<u64>,
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict {
    print: bool,
    clear: bool,
    end: bool,
}

impl Sieve {
    fn judge(&mut self, topic: &str, retain: bool) -> Verdict {
        let nothing = Verdict { print: false, clear: false, end: false };
        if self.retained_only && !retain {
            return Verdict { end: true, ..nothing };
        }
        if self.filter_out.iter().any(|filter| mqtt::filter::matches(filter, topic)) {
            return nothing;
        }
        let clear = self.remove_retained && retain;
        let unwanted = self.no_retained && retain || self.share.is_some_and(|share| fastrand::f64() >= share);
        if unwanted {
            return Verdict { clear, ..nothing };
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
        }
        Verdict { print: true, clear, end: self.left == Some(0) }
    }
}

/// SUBSCRIBE and every UNSUBSCRIBE under way.
type Subscribing = Pin<Box<dyn Future<Output = Result<Option<Granted>, RequestError>> + Send>>;

/// A client that has something to print.
struct Subscriber {
    client: Client,
    job: Job,
    clock: WallClock,
    subscribing: Option<Subscribing>,
    /// Topics whose retained message is to be cleared. As many as the broker keeps, in the worst case: it must not hold
    /// up the messages, by which their acknowledgements come.
    to_clear: VecDeque<String>,
    /// Acknowledgements of the newest clearings; those of older ones come before them.
    clearing: VecDeque<client::Delivery>,
}

/// Why the main loop ended.
enum End {
    /// Everything asked for was done, or a signal came.
    Done,
    TimedOut,
    Failed(Failure),
}

impl Job {
    async fn run(self) -> Result<(), Failure> {
        let (voice, version) = (self.connection.voice, self.connection.options.version);
        let mut signals = Signals::new().map_err(|error| Failure::Local(error.to_string()))?;
        voice.debug(|| format!("connecting to {}", self.connection.options.server));
        let connected = Client::connect(self.connection.options.clone()).await;
        let (client, mut events) = connected.map_err(|error| Failure::Connection(error.0, version))?;
        let goodbye = Goodbye {
            session_expiry_interval: self.connection.properties.disconnect_session_expiry,
            user_properties: self.connection.properties.disconnect_user.clone(),
            ..Goodbye::default()
        };
        let mut subscriber = Subscriber {
            client: client.clone(),
            clock: WallClock::new(Clock::system()),
            job: self,
            subscribing: None,
            to_clear: VecDeque::new(),
            clearing: VecDeque::new(),
        };
        let end = subscriber.listen(&mut events, &mut signals).await;
        // From here on messages go nowhere, so that acknowledgements still come.
        drop(events);
        if matches!(end, End::Done) {
            subscriber.finish_clearing().await;
        }
        client.disconnect(goodbye).await;
        match end {
            End::Done => Ok(()),
            End::TimedOut => Err(Failure::TimedOut),
            End::Failed(failure) => Err(failure),
        }
    }
}

impl Subscriber {
    async fn listen(&mut self, events: &mut EventStream, signals: &mut Signals) -> End {
        let timeout = tokio::time::sleep(self.job.timeout.unwrap_or(Duration::MAX));
        tokio::pin!(timeout);
        loop {
            let (event, answer) = tokio::select! {
                event = events.next() => {
                    // The answer to SUBSCRIBE is told before the messages behind it, if it is there: look first.
                    let answer = tokio::select! {
                        biased;
                        answer = answer(&mut self.subscribing), if self.subscribing.is_some() => Some(answer),
                        () = std::future::ready(()) => None,
                    };
                    (Some(event), answer)
                }
                answer = answer(&mut self.subscribing), if self.subscribing.is_some() => (None, Some(answer)),
                cleared = clear(&self.client, &self.to_clear), if !self.to_clear.is_empty() => {
                    self.to_clear.pop_front();
                    self.clearing.extend(cleared);
                    if self.clearing.len() > CLEARINGS_AWAITED {
                        self.clearing.pop_front();
                    }
                    continue;
                }
                () = &mut timeout, if self.job.timeout.is_some() => return End::TimedOut,
                () = signals.next() => return End::Done,
            };
            if let Some(answer) = answer {
                self.subscribing = None;
                if let Some(end) = self.subscribed(answer) {
                    return end;
                }
            }
            let end = match event {
                Some(Some(event)) => self.event(event, events),
                Some(None) => Some(End::Done),
                None => None,
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    fn voice(&self) -> Voice {
        self.job.connection.voice
    }

    /// Handles an event and those that wait behind it, then flushes once.
    fn event(&mut self, first: Event, events: &mut EventStream) -> Option<End> {
        let mut out = Vec::new();
        let mut next = Some(first);
        let mut end = None;
        while let Some(event) = next {
            end = self.one(event, &mut out);
            if end.is_some() || out.len() > PRINT_AT_ONCE {
                break;
            }
            next = events.try_next();
        }
        let mut stdout = std::io::stdout().lock();
        if let Err(error) = stdout.write_all(&out).and_then(|()| stdout.flush()) {
            // A reader that has had enough (`| head`) is no failure worth words.
            return Some(match error.kind() {
                std::io::ErrorKind::BrokenPipe => End::Done,
                _ => End::Failed(Failure::Local(format!("cannot write: {error}"))),
            });
        }
        end
    }

    fn one(&mut self, event: Event, out: &mut Vec<u8>) -> Option<End> {
        match event {
            Event::Connected(connected) => self.connected(&connected),
            Event::Message(received) => return self.message(&received, out).then_some(End::Done),
            Event::Disconnected { why, retry_in: None } => {
                let version = self.job.connection.options.version;
                return Some(End::Failed(Failure::Connection(why, version)));
            }
            Event::Disconnected { why, retry_in: Some(pause) } => {
                self.subscribing = None;
                self.voice().debug(|| format!("{why}; trying again in {} ms", pause.as_millis()));
            }
        }
        None
    }

    /// Subscribes on every connection, as mosquitto_sub does: harmless if the session knows the filters already.
    fn connected(&mut self, connected: &Connected) {
        self.voice().debug(|| format!("connected, session present: {}", connected.session_present));
        let options = |filter: &String| {
            let mut one = Subscription::new(filter, self.job.qos);
            one.options.retain_as_published = self.job.retain_as_published;
            one
        };
        let subscribe = SubscribeRequest {
            subscriptions: self.job.topics.iter().map(options).collect(),
            identifier: self.job.properties.identifier,
            user_properties: self.job.properties.subscribe_user.clone(),
        };
        let unsubscribe = UnsubscribeRequest {
            filters: self.job.unsubscribe.clone(),
            user_properties: self.job.properties.unsubscribe_user.clone(),
        };
        self.subscribing = Some(Box::pin(request(self.client.clone(), subscribe, unsubscribe)));
    }

    fn subscribed(&self, answer: Result<Option<Granted>, RequestError>) -> Option<End> {
        match answer {
            Ok(granted) => {
                let reasons = granted.map(|granted| granted.reasons).unwrap_or_default();
                for (topic, reason) in self.job.topics.iter().zip(&reasons) {
                    self.voice().debug(|| format!("subscribed to {topic}: {reason}"));
                    if reason.is_error() {
                        self.voice()
                            .error(&format!("Warning: the subscription to {topic} was refused: {reason}"));
                    }
                }
                if !reasons.is_empty() && reasons.iter().all(|reason| reason.is_error()) {
                    let all = "All subscription requests were denied.".to_owned();
                    return Some(End::Failed(Failure::Local(all)));
                }
                self.job.exit_after_subscribe.then_some(End::Done)
            }
            // The connection went; the next one subscribes again.
            Err(RequestError::Disconnected | RequestError::Closed) => None,
            Err(error @ RequestError::Invalid(_)) => Some(End::Failed(Failure::Local(error.to_string()))),
        }
    }

    /// Prints a message as the flags say; `true`: it was the last one.
    fn message(&mut self, received: &Received, out: &mut Vec<u8>) -> bool {
        let verdict = self.job.sieve.judge(&received.message.topic, received.message.retain);
        if verdict.clear {
            self.to_clear.push_back(received.message.topic.clone());
        }
        if verdict.print {
            let now = self.clock.now();
            if let Err(error) = self.job.layout.print(received, &now, self.job.newline, out) {
                self.voice().error(&error);
            }
        }
        verdict.end
    }

    /// Clears what is left to clear, and waits until the broker has it.
    async fn finish_clearing(&mut self) {
        let all = async {
            while !self.to_clear.is_empty() {
                self.clearing.extend(clear(&self.client, &self.to_clear).await);
                self.to_clear.pop_front();
            }
            for delivery in self.clearing.drain(..) {
                // A refused one is a message that stays, as the publisher of it may.
                let _ = delivery.await;
            }
        };
        if tokio::time::timeout(CLEARING_TIMEOUT, all).await.is_err() {
            self.voice().error("Error: not every retained message was cleared in time");
        }
    }
}

/// Bytes printed before standard output is flushed.
const PRINT_AT_ONCE: usize = 256 * 1024;

/// How long the last clearings may take.
const CLEARING_TIMEOUT: Duration = Duration::from_secs(10);

/// Acknowledgements awaited at the end.
const CLEARINGS_AWAITED: usize = 1024;

/// Sends SUBSCRIBE, then UNSUBSCRIBE, and waits for the answer to the first; without one for that to the second.
async fn request(
    client: Client,
    subscribe: SubscribeRequest,
    unsubscribe: UnsubscribeRequest,
) -> Result<Option<Granted>, RequestError> {
    let (nothing_wanted, mut unsubscribed) =
        (subscribe.subscriptions.is_empty(), unsubscribe.filters.is_empty());
    let granted = client.subscribe_with(subscribe);
    let gone = client.unsubscribe_with(unsubscribe);
    tokio::pin!(granted, gone);
    loop {
        tokio::select! {
            biased;
            answer = &mut granted, if !nothing_wanted => return answer.map(Some),
            answer = &mut gone, if !unsubscribed => {
                answer?;
                unsubscribed = true;
            }
            else => return Ok(None),
        }
    }
}

async fn answer(subscribing: &mut Option<Subscribing>) -> Result<Option<Granted>, RequestError> {
    match subscribing {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Replaces the first topic's retained message by an empty one, which deletes it [MQTT-3.3.1-6].
async fn clear(client: &Client, topics: &VecDeque<String>) -> Option<client::Delivery> {
    let topic = topics.front()?.clone();
    client.submit(Message::new(topic, "").qos(QoS::AtLeastOnce).retained()).await.ok()
}

/// SIGINT and SIGTERM: a clean end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sieve() -> Sieve {
        Sieve {
            filter_out: vec!["out/#".to_owned()],
            no_retained: false,
            retained_only: false,
            remove_retained: false,
            share: None,
            left: None,
        }
    }

    const PRINT: Verdict = Verdict { print: true, clear: false, end: false };
    const NOTHING: Verdict = Verdict { print: false, clear: false, end: false };

    #[test]
    fn filters_leave_messages_out_whatever_else_is_asked() {
        let mut sieve = Sieve { remove_retained: true, left: Some(1), ..sieve() };
        assert_eq!(sieve.judge("out/a", true), NOTHING);
        assert_eq!(sieve.judge("in", true), Verdict { print: true, clear: true, end: true });
    }

    #[test]
    fn retained_messages_are_cleared_even_if_not_printed() {
        let mut sieve = Sieve { remove_retained: true, no_retained: true, ..sieve() };
        assert_eq!(sieve.judge("a", true), Verdict { print: false, clear: true, end: false });
        assert_eq!(sieve.judge("a", false), PRINT);
    }

    #[test]
    fn retained_only_ends_at_the_first_other_message() {
        let mut sieve = Sieve { retained_only: true, ..sieve() };
        assert_eq!(sieve.judge("a", true), PRINT);
        assert_eq!(sieve.judge("a", false), Verdict { end: true, ..NOTHING });
    }

    #[test]
    fn only_printed_messages_are_counted() {
        let mut sieve = Sieve { left: Some(2), no_retained: true, ..sieve() };
        assert_eq!(sieve.judge("a", true), NOTHING);
        assert_eq!(sieve.judge("a", false), PRINT);
        assert_eq!(sieve.judge("a", false), Verdict { end: true, ..PRINT });
    }

    #[test]
    fn a_share_of_one_half_prints_about_half() {
        fastrand::seed(5);
        let mut sieve = Sieve { share: Some(0.5), ..sieve() };
        let printed = (0..10_000).filter(|_| sieve.judge("a", false).print).count();
        assert!((4_700..5_300).contains(&printed), "{printed}");
    }
}
