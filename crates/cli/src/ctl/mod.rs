//! `tidegate ctl`: asks the REST API and shows its answers.
//!
//! Nouns in the plural, then a verb. Tables are for people; `--json` prints what the API prints, lists as one whole list.
//! What comes from devices (client ids, topics, user names) is never written to a terminal as it is.

mod events;
mod process;
mod rows;
mod table;
mod users;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;

use api::broker::ClientQuery;
use api::client::{ClientError, DEFAULT_BASE, RestClient};
use api::gateway::ConnectionQuery;
use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};

pub use self::process::{MetricsVerb, OpenapiVerb, ProbesVerb};
use self::rows::{ServerOf, fields};
use self::table::{Row, Table, printable, write_fields};
pub use self::users::UsersVerb;

/// Look at a running process and steer it, through its REST API
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where the API is; HOST:PORT is enough
    #[arg(long, global = true, value_name = "URL", env = "TIDEGATE_API", default_value = DEFAULT_BASE)]
    pub api: String,
    /// Print JSON, as the API does
    #[arg(long, global = true)]
    pub json: bool,
    /// What to look at.
    #[command(subcommand)]
    pub noun: Noun,
}

/// What to look at.
#[derive(Clone, Debug, Subcommand)]
pub enum Noun {
    /// Clients and sessions of the broker
    #[command(subcommand)]
    Clients(ClientsVerb),
    /// Connections through the gateway
    #[command(subcommand)]
    Connections(ConnectionsVerb),
    /// Listeners of the gateway
    #[command(subcommand)]
    Listeners(ListenersVerb),
    /// Upstreams of the gateway and their servers
    #[command(subcommand)]
    Upstreams(UpstreamsVerb),
    /// Devices that are kept on a server
    #[command(subcommand)]
    Pins(PinsVerb),
    /// Nodes of the cluster
    #[command(subcommand)]
    Nodes(NodesVerb),
    /// What happened
    #[command(subcommand)]
    Events(EventsVerb),
    /// Users of password files
    #[command(subcommand)]
    Users(UsersVerb),
    /// The configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Numbers of the process
    #[command(subcommand)]
    Metrics(MetricsVerb),
    /// Whether the process lives and serves
    #[command(subcommand)]
    Probes(ProbesVerb),
    /// The API's description of itself
    #[command(subcommand)]
    Openapi(OpenapiVerb),
}

/// What to do with clients.
#[derive(Clone, Debug, Subcommand)]
pub enum ClientsVerb {
    /// List them by client id
    List {
        /// Only this client id
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
        clientid: Option<String>,
        /// Only this user name
        #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
        username: Option<String>,
        /// Only those that are connected, or only those that are not
        #[arg(long, value_enum)]
        conn_state: Option<ConnState>,
    },
    /// Show one
    Show {
        /// The client id
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
    /// End its connection and its session
    Kick {
        /// The client id
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
    /// List its subscriptions
    Subscriptions {
        /// The client id
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
}

/// Whether a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConnState {
    /// It is.
    Connected,
    /// It is not; its session waits for it.
    Disconnected,
}

impl ConnState {
    fn word(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
        }
    }
}

/// What to do with connections.
#[derive(Clone, Debug, Subcommand)]
pub enum ConnectionsVerb {
    /// List them by client id
    List {
        /// Only those of this client id
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
        clientid: Option<String>,
        /// Only those to this server
        #[arg(long)]
        server: Option<String>,
        /// Only those through this upstream
        #[arg(long)]
        upstream: Option<String>,
    },
    /// Show the newest one of a client, and the others it has
    Show {
        /// The client id
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
}

/// What to do with listeners.
#[derive(Clone, Debug, Subcommand)]
pub enum ListenersVerb {
    /// List them with what they count
    List,
    /// Show one with all its fields
    Show {
        /// Its name, such as tcp://0.0.0.0:1880
        name: String,
    },
}

/// What to do with upstreams.
#[derive(Clone, Debug, Subcommand)]
pub enum UpstreamsVerb {
    /// List them with their servers
    List,
    /// Show one with all its fields and its servers
    Show {
        /// The upstream's name
        upstream: String,
    },
    /// Give a server no new connections; those it has stay
    Drain(ServerArgs),
    /// Take a server back
    Enable(ServerArgs),
}

/// Which server.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// The upstream's name
    pub upstream: String,
    /// The server's name, or its address as written
    pub server: String,
}

/// What to do with pins.
#[derive(Clone, Debug, Subcommand)]
pub enum PinsVerb {
    /// List them by key
    List {
        /// The upstream's name
        upstream: String,
    },
    /// Keep a device on a server from its next connection on
    Set {
        /// The upstream's name
        upstream: String,
        /// The balancing key: a client id where the upstream balances by it
        #[arg(allow_hyphen_values = true)]
        key: String,
        /// The server's name, or its address as written
        server: String,
    },
    /// Forget one
    Delete {
        /// The upstream's name
        upstream: String,
        /// The balancing key
        #[arg(allow_hyphen_values = true)]
        key: String,
    },
}

/// What to do with nodes.
#[derive(Clone, Debug, Subcommand)]
pub enum NodesVerb {
    /// List them
    List,
}

/// What to do with events.
#[derive(Clone, Debug, Subcommand)]
pub enum EventsVerb {
    /// List the newest ones, oldest first; JSON with --follow: one event a line
    List {
        /// Only events of this type, such as client_connected
        #[arg(long = "type", value_name = "TYPE")]
        kind: Option<String>,
        /// Only events after this sequence number
        #[arg(long, value_name = "SEQ")]
        since: Option<u64>,
        /// At most so many
        #[arg(long, value_name = "COUNT", default_value_t = 100,
              value_parser = clap::value_parser!(u16).range(1..=10_000))]
        limit: u16,
        /// Go on with those to come, until interrupted
        #[arg(long, short)]
        follow: bool,
    },
}

/// What to do with the configuration.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigVerb {
    /// Read it again and take it over, or say every reason why not
    Reload,
}

/// Runs a command: 0 done, 1 an error (one sentence on standard error), 2 a mistake in the command line.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let stdout = io::stdout();
    let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut screen = Screen { out: BufWriter::new(stdout.lock()), json: args.json, colour };
    let done = execute(args, &mut screen).and_then(|()| Ok(screen.out.flush()?));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // `ctl clients list | head` has seen enough: that is no error.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            // Where standard error is closed too, nobody is left to be told.
            let _ = writeln!(io::stderr(), "tidegate ctl: {failure}");
            failure.exit_code()
        }
    }
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The API said no, or nothing.
    #[error("{}", lines(.0))]
    Api(#[from] ClientError),
    /// What was asked for is not there.
    #[error("there is no {what} {}", quoted(.name))]
    Absent { what: &'static str, name: String },
    /// No password, or no random bytes for its salt.
    #[error("cannot take the password: {0}")]
    Password(#[source] io::Error),
    /// `--iterations` beside an algorithm that has none.
    #[error("--iterations is for --algorithm pbkdf2; argon2id, which is the default, has none")]
    Iterations,
    /// The process lives and does not serve.
    #[error("the process is not ready")]
    NotReady,
    /// The answer cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Api(ClientError::BaseUrl { .. }) | Self::Iterations => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

/// An error's lines, each fit for a terminal: details quote what devices sent.
fn lines(error: &ClientError) -> String {
    let text = error.to_string();
    let lines: Vec<_> = text.lines().map(printable).collect();
    lines.join("\n")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", printable(name))
}

/// Where answers go, and in which form.
struct Screen<W: Write> {
    out: W,
    json: bool,
    colour: bool,
}

fn execute<W: Write>(args: &Args, screen: &mut Screen<W>) -> Result<(), Failure> {
    if let Noun::Users(verb) = &args.noun {
        // needs no running process
        return users::run(verb, screen);
    }
    let client = RestClient::new(&args.api)?;
    match &args.noun {
        Noun::Users(_) => Ok(()),
        Noun::Clients(verb) => clients(&client, verb, screen),
        Noun::Connections(verb) => connections(&client, verb, screen),
        Noun::Listeners(verb) => listeners(&client, verb, screen),
        Noun::Upstreams(verb) => upstreams(&client, verb, screen),
        Noun::Pins(verb) => pins(&client, verb, screen),
        Noun::Nodes(NodesVerb::List) => screen.list([client.nodes().map(|page| page.data)]),
        Noun::Events(EventsVerb::List { kind, since, limit, follow }) => {
            let asked = events::Asked { kind: kind.as_deref(), since: *since, limit: usize::from(*limit) };
            if *follow {
                let mut pause = || {
                    std::thread::sleep(events::PERIOD);
                    true
                };
                events::follow(&client, asked, screen, &mut io::stderr(), &mut pause)
            } else {
                events::list(&client, asked, screen)
            }
        }
        Noun::Config(ConfigVerb::Reload) => reload(&client, screen),
        Noun::Metrics(verb) => process::metrics(&client, verb, screen),
        Noun::Probes(ProbesVerb::List) => process::probes(&client, screen),
        Noun::Openapi(OpenapiVerb::Show) => screen.json_value(&client.openapi()?),
    }
}

fn clients<W: Write>(client: &RestClient, verb: &ClientsVerb, screen: &mut Screen<W>) -> Result<(), Failure> {
    let absent = |id: &str| Failure::Absent { what: "client", name: id.to_owned() };
    match verb {
        ClientsVerb::List { clientid, username, conn_state } => {
            let query = ClientQuery {
                clientid: clientid.clone(),
                username: username.clone(),
                conn_state: conn_state.map(|state| state.word().to_owned()),
            };
            screen.list(client.pages(|client, page| client.clients(&query, page)))
        }
        ClientsVerb::Show { id } => {
            let shown = client.client(id)?.ok_or_else(|| absent(id))?;
            screen.object(&shown)
        }
        ClientsVerb::Kick { id } => {
            if !client.kick(id)? {
                return Err(absent(id));
            }
            screen.done(&json!({"clientid": id, "kicked": true}), &format!("kicked {}", quoted(id)))
        }
        ClientsVerb::Subscriptions { id } => {
            let rows = client.subscriptions(id)?.ok_or_else(|| absent(id))?;
            screen.list([Ok(rows)])
        }
    }
}

fn connections<W: Write>(
    client: &RestClient,
    verb: &ConnectionsVerb,
    screen: &mut Screen<W>,
) -> Result<(), Failure> {
    match verb {
        ConnectionsVerb::List { clientid, server, upstream } => {
            let query = ConnectionQuery { server: server.clone(), upstream: upstream.clone() };
            let clientid = clientid.as_deref();
            screen.list(client.pages(|client, page| client.connections(clientid, &query, page)))
        }
        ConnectionsVerb::Show { id } => {
            let absent = || Failure::Absent { what: "connection of the client", name: id.clone() };
            let shown = client.connection(id)?.ok_or_else(absent)?;
            if screen.json || shown.others.is_empty() {
                return screen.object(&shown);
            }
            screen.object(&shown.newest)?;
            writeln!(screen.out, "\nOlder connections of this client:")?;
            screen.list([Ok(shown.others)])
        }
    }
}

fn listeners<W: Write>(
    client: &RestClient,
    verb: &ListenersVerb,
    screen: &mut Screen<W>,
) -> Result<(), Failure> {
    let page = client.listeners()?;
    match verb {
        ListenersVerb::List => screen.list([Ok(page.data)]),
        ListenersVerb::Show { name } => {
            let found = page.data.into_iter().find(|one| one.name == *name);
            let absent = || Failure::Absent { what: "listener", name: name.clone() };
            screen.object(&found.ok_or_else(absent)?)
        }
    }
}

fn upstreams<W: Write>(
    client: &RestClient,
    verb: &UpstreamsVerb,
    screen: &mut Screen<W>,
) -> Result<(), Failure> {
    let (upstream, server) = match verb {
        UpstreamsVerb::List => {
            let page = client.upstreams()?;
            if screen.json {
                return screen.json_value(&page);
            }
            let rows = page.data.iter().flat_map(|upstream| {
                upstream.servers.iter().map(|server| ServerOf { upstream: &upstream.name, server })
            });
            return screen.table(&rows.collect::<Vec<_>>());
        }
        UpstreamsVerb::Show { upstream } => {
            let found = client.upstreams()?.data.into_iter().find(|one| one.name == *upstream);
            let absent = || Failure::Absent { what: "upstream", name: upstream.clone() };
            return screen.object(&found.ok_or_else(absent)?);
        }
        UpstreamsVerb::Drain(at) => (&at.upstream, client.drain(&at.upstream, &at.server)?),
        UpstreamsVerb::Enable(at) => (&at.upstream, client.enable(&at.upstream, &at.server)?),
    };
    if screen.json {
        screen.json_value(&server)
    } else {
        screen.table(&[ServerOf { upstream, server: &server }])
    }
}

fn pins<W: Write>(client: &RestClient, verb: &PinsVerb, screen: &mut Screen<W>) -> Result<(), Failure> {
    match verb {
        PinsVerb::List { upstream } => screen.list(client.pages(|client, page| client.pins(upstream, page))),
        PinsVerb::Set { upstream, key, server } => {
            let pin = client.pin(upstream, key, server)?;
            if screen.json { screen.json_value(&pin) } else { screen.table(&[pin]) }
        }
        PinsVerb::Delete { upstream, key } => {
            if !client.unpin(upstream, key)? {
                return Err(Failure::Absent { what: "pin for", name: key.clone() });
            }
            screen
                .done(&json!({"key": key, "deleted": true}), &format!("deleted the pin for {}", quoted(key)))
        }
    }
}

fn reload<W: Write>(client: &RestClient, screen: &mut Screen<W>) -> Result<(), Failure> {
    let reloaded = client.reload()?;
    if screen.json {
        return screen.json_value(&reloaded);
    }
    if reloaded.changes.is_empty() && reloaded.restart_needed.is_empty() {
        writeln!(screen.out, "nothing to change")?;
    }
    for change in &reloaded.changes {
        writeln!(screen.out, "changed: {}", printable(change))?;
    }
    for change in &reloaded.restart_needed {
        writeln!(screen.out, "needs a restart: {}", printable(change))?;
    }
    Ok(())
}

impl<W: Write> Screen<W> {
    /// A list, page by page as it comes.
    fn list<T, I>(&mut self, pages: I) -> Result<(), Failure>
    where
        T: Row + Serialize,
        I: IntoIterator<Item = Result<Vec<T>, ClientError>>,
    {
        if self.json {
            return self.json_list(pages);
        }
        let mut table = Table::new(self.colour);
        for page in pages {
            table.write(&mut self.out, &page?)?;
        }
        Ok(())
    }

    /// The same shape as a page of the API, with all rows in it.
    fn json_list<T: Serialize>(
        &mut self,
        pages: impl IntoIterator<Item = Result<Vec<T>, ClientError>>,
    ) -> Result<(), Failure> {
        // Nothing is written before the first answer, so that an API that is not there leaves no half list.
        let mut opened = false;
        for page in pages {
            for row in page? {
                self.out.write_all(if opened { b",\n" } else { b"{\"data\":[\n" })?;
                opened = true;
                serde_json::to_writer(&mut self.out, &row).map_err(io::Error::from)?;
            }
        }
        let tail: &[u8] = if opened { b"\n]" } else { b"{\"data\":[]" };
        self.out.write_all(tail)?;
        Ok(self.out.write_all(b",\"meta\":{\"cursor\":null}}\n")?)
    }

    fn table<T: Row>(&mut self, rows: &[T]) -> Result<(), Failure> {
        Ok(Table::new(self.colour).write(&mut self.out, rows)?)
    }

    /// One thing with all its fields.
    fn object<T: Serialize>(&mut self, object: &T) -> Result<(), Failure> {
        if self.json {
            return self.json_value(object);
        }
        let value = serde_json::to_value(object).map_err(io::Error::from)?;
        Ok(write_fields(&mut self.out, &fields(&value))?)
    }

    fn json_value<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut self.out, value).map_err(io::Error::from)?;
        Ok(writeln!(self.out)?)
    }

    /// Something that was done and has no answer of its own.
    fn done(&mut self, json: &Value, sentence: &str) -> Result<(), Failure> {
        if self.json {
            return self.json_value(json);
        }
        Ok(writeln!(self.out, "{sentence}")?)
    }
}

#[cfg(test)]
mod tests;
