//! Topics that are rewritten before anything else is done with them, for devices that cannot be changed.
//!
//! As in EMQX: of the rules for the action whose `source` matches, the **last** one decides; where its expression does not match, the
//! topic stays as it is. Of `$share/group/filter` and `$exclusive/filter` the filter is rewritten. A result that is no topic (or
//! no filter) is not used.
//!
//! Must not know: who may do what.

use std::sync::Arc;

use mqtt::filter::{self, Filter};
use mqtt::packet::{Subscribe, Unsubscribe};
use mqtt::topic;
use regex_automata::nfa::thompson;
use regex_automata::nfa::thompson::pikevm::{Cache, PikeVM};
use regex_automata::util::captures::Captures;

use crate::connection::ConnId;
use crate::exclusive;
use crate::topic_template::{Template, TemplateError, Who};
use crate::worker::Worker;

/// Bytes of a compiled expression.
const MAX_EXPRESSION: usize = 64 * 1024;
/// Bytes of the longest topic that is looked at: an expression takes time for each byte.
const MAX_TOPIC: usize = 4_096;

/// What a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// PUBLISH and wills.
    Publish,
    /// SUBSCRIBE and UNSUBSCRIBE.
    Subscribe,
    /// All of them.
    All,
}

/// The rules of the configuration, in their order. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rewriting(Arc<[Rule]>);

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    action: Action,
    source: Box<str>,
    written: Box<str>,
    expression: PikeVM,
    target: Template,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        // an expression is what was written
        (self.action, &self.source, &self.written, &self.target)
            == (other.action, &other.source, &other.written, &other.target)
    }
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// `source` is no topic filter.
    #[error("a topic filter: {0}")]
    Source(String),
    /// `regex` cannot be compiled.
    #[error("an expression that can be compiled: {0}")]
    Expression(String),
    /// `target` cannot be filled.
    #[error(transparent)]
    Target(#[from] TemplateError),
}

/// A rule as the configuration has it: what is not there, or no text, is nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written<'a> {
    pub(crate) action: Option<Action>,
    pub(crate) source: Option<&'a str>,
    pub(crate) regex: Option<&'a str>,
    pub(crate) target: Option<&'a str>,
}

impl Rule {
    /// Compiles a rule; nothing where something is missing. Matching takes time linear in the topic, whatever the expression is.
    ///
    /// # Errors
    /// All that is wrong with what is there.
    pub(crate) fn new(written: Written<'_>) -> Result<Option<Self>, Vec<RuleError>> {
        let mut errors = Vec::new();
        let mut kept = |error: RuleError| errors.push(error);
        let source = written.source.and_then(|source| judge_source(source).map_err(&mut kept).ok());
        let expression = written.regex.and_then(|regex| compile(regex).map_err(&mut kept).ok());
        // without groups `$1` is text; without an expression nobody knows how many there are
        let groups = expression
            .as_ref()
            .map(|e| e.get_nfa().group_info().group_len(regex_automata::PatternID::ZERO) - 1);
        let target = written.target.and_then(|target| match Template::parse(target, groups.unwrap_or(0)) {
            Ok(target) => Some(target),
            Err(error) => {
                kept(error.into());
                None
            }
        });
        if !errors.is_empty() {
            return Err(errors);
        }
        let (Some(action), Some(source), Some(regex), Some(expression), Some(target)) =
            (written.action, source, written.regex, expression, target)
        else {
            return Ok(None);
        };
        Ok(Some(Self { action, source: source.into(), written: regex.into(), expression, target }))
    }
}

fn judge_source(source: &str) -> Result<&str, RuleError> {
    let filter = Filter::parse(source).map_err(|error| RuleError::Source(error.to_string()))?;
    match filter.share() {
        Some(_) => Err(RuleError::Source("without $share/: the rule holds for what follows it".to_owned())),
        None => Ok(source),
    }
}

fn compile(regex: &str) -> Result<PikeVM, RuleError> {
    let nfa = thompson::Config::new().nfa_size_limit(Some(MAX_EXPRESSION));
    PikeVM::builder().thompson(nfa).build(regex).map_err(|error| {
        // its own text is several lines with the expression in between
        let text = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        RuleError::Expression(text.lines().last().unwrap_or_default().trim().to_owned())
    })
}

/// A whole rule, which must be right.
#[cfg(test)]
pub(crate) fn rule(action: Action, source: &str, regex: &str, target: &str) -> Rule {
    let written =
        Written { action: Some(action), source: Some(source), regex: Some(regex), target: Some(target) };
    Rule::new(written).unwrap().unwrap()
}

impl FromIterator<Rule> for Rewriting {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        Self(rules.into_iter().collect())
    }
}

/// What became of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rewritten {
    /// No rule is for it.
    Same,
    /// It is this one from here on.
    As(String),
    /// The result cannot be used, so it stays as it is.
    Unusable,
}

/// The rules as one worker applies them: each with a memory of its own for matching.
#[derive(Default)]
pub(crate) struct Rewriter {
    rules: Rewriting,
    memory: Vec<(Cache, Captures)>,
}

impl Rewriter {
    pub(crate) fn new(rules: &Rewriting) -> Self {
        let memory = |rule: &Rule| (rule.expression.create_cache(), rule.expression.create_captures());
        Self { memory: rules.0.iter().map(memory).collect(), rules: rules.clone() }
    }

    /// Whether there is any rule.
    pub(crate) fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// Whether these are the rules it was made of.
    pub(crate) fn is_of(&self, rules: &Rewriting) -> bool {
        Arc::ptr_eq(&self.rules.0, &rules.0)
    }

    /// The topic of a PUBLISH.
    pub(crate) fn topic(&mut self, topic: &str, who: Who<'_>) -> Rewritten {
        match self.apply(Action::Publish, topic, who) {
            Rewritten::As(new) if topic::validate(&new).is_err() => Rewritten::Unusable,
            other => other,
        }
    }

    /// The filter of a SUBSCRIBE or UNSUBSCRIBE, valid or not.
    pub(crate) fn filter(&mut self, filter: &str, who: Who<'_>) -> Rewritten {
        let path = match (Filter::parse(filter), exclusive::path(filter)) {
            (_, Some(path)) => path,
            (Ok(parsed), None) => parsed.path(),
            (Err(_), None) => return Rewritten::Same,
        };
        match self.apply(Action::Subscribe, path, who) {
            Rewritten::As(new) if Filter::parse(&new).is_err() || new.starts_with("$share/") => {
                Rewritten::Unusable
            }
            Rewritten::As(new) => {
                let prefix = filter.strip_suffix(path).unwrap_or_default();
                Rewritten::As(format!("{prefix}{new}"))
            }
            other => other,
        }
    }

    fn apply(&mut self, action: Action, topic: &str, who: Who<'_>) -> Rewritten {
        let matches = |rule: &Rule| {
            (rule.action == action || rule.action == Action::All) && filter::matches(&rule.source, topic)
        };
        let Some(at) = self.rules.0.iter().rposition(matches) else { return Rewritten::Same };
        if topic.len() > MAX_TOPIC {
            return Rewritten::Unusable;
        }
        let (Some(rule), Some((cache, captures))) = (self.rules.0.get(at), self.memory.get_mut(at)) else {
            return Rewritten::Same;
        };
        rule.expression.captures(cache, topic, captures);
        if !captures.is_match() {
            return Rewritten::Same;
        }
        let found = |group| captures.get_group(group).and_then(|span| topic.get(span.range()));
        match rule.target.fill(who, found) {
            Some(new) if new == topic => Rewritten::Same,
            Some(new) => Rewritten::As(new),
            None => Rewritten::Unusable,
        }
    }
}

impl Worker {
    /// The topic that a message of this client goes to, if it is another one.
    pub(crate) fn rewrite_topic(&mut self, id: ConnId, topic: &str) -> Option<String> {
        if self.rewriter.is_empty() {
            return None;
        }
        let client = self.client_of(id)?;
        let rewritten = self.rewriter.topic(topic, client.who());
        self.count_rewrite(rewritten)
    }

    /// The same for a will, before there is a session.
    pub(crate) fn rewrite_will(&mut self, topic: &str, who: Who<'_>) -> Option<String> {
        let rewritten = self.rewriter.topic(topic, who);
        self.count_rewrite(rewritten)
    }

    /// The SUBSCRIBE as it is after rewriting; `None`: as it came.
    pub(crate) fn rewrite_subscribe(
        &mut self,
        id: ConnId,
        subscribe: &Subscribe<'_>,
    ) -> Option<Subscribe<'static>> {
        if self.rewriter.is_empty() {
            return None;
        }
        let client = self.client_of(id)?;
        let mut subscribe = subscribe.clone().into_owned();
        for wanted in &mut subscribe.filters {
            if let Some(filter) = self.rewrite_filter(&wanted.filter, client.who()) {
                wanted.filter = filter.into();
            }
        }
        Some(subscribe)
    }

    /// The UNSUBSCRIBE as it is after rewriting; `None`: as it came.
    pub(crate) fn rewrite_unsubscribe(
        &mut self,
        id: ConnId,
        unsubscribe: &Unsubscribe<'_>,
    ) -> Option<Unsubscribe<'static>> {
        if self.rewriter.is_empty() {
            return None;
        }
        let client = self.client_of(id)?;
        let mut unsubscribe = unsubscribe.clone().into_owned();
        for filter in &mut unsubscribe.filters {
            if let Some(rewritten) = self.rewrite_filter(filter, client.who()) {
                *filter = rewritten.into();
            }
        }
        Some(unsubscribe)
    }

    fn rewrite_filter(&mut self, filter: &str, who: Who<'_>) -> Option<String> {
        let rewritten = self.rewriter.filter(filter, who);
        self.count_rewrite(rewritten)
    }

    fn count_rewrite(&self, rewritten: Rewritten) -> Option<String> {
        match rewritten {
            Rewritten::Same => None,
            Rewritten::As(new) => {
                self.metrics.topics_rewritten.inc();
                Some(new)
            }
            Rewritten::Unusable => {
                self.metrics.topics_not_rewritten.inc();
                None
            }
        }
    }

    fn client_of(&self, id: ConnId) -> Option<Client> {
        let conn = self.conn(id)?;
        let client_id = Arc::clone(&conn.session.as_ref()?.client_id);
        Some(Client { client_id, username: conn.about.as_ref().and_then(|about| about.username.clone()) })
    }
}

/// A client, held while its topics are rewritten.
struct Client {
    client_id: Arc<str>,
    username: Option<Arc<str>>,
}

impl Client {
    fn who(&self) -> Who<'_> {
        Who { client_id: &self.client_id, username: self.username.as_deref() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHO: Who<'_> = Who { client_id: "car-1", username: None };

    fn rewriter(rules: &[(Action, &str, &str, &str)]) -> Rewriter {
        let rules = rules.iter().map(|(a, s, r, t)| rule(*a, s, r, t));
        Rewriter::new(&rules.collect())
    }

    fn to(topic: &str) -> Rewritten {
        Rewritten::As(topic.to_owned())
    }

    /// The example of EMQX's documentation.
    #[test]
    fn the_last_rule_that_matches_decides() {
        use Action::All;
        let mut r = rewriter(&[
            (All, "y/+/z/#", "^y/(.+)/z/(.+)$", "y/z/$2"),
            (All, "x/#", "^x/y/(.+)$", "z/y/x/$1"),
            (All, "x/y/+", r"^x/y/(\d+)$", "z/y/$1"),
        ]);
        assert_eq!(r.topic("y/a/z/b", WHO), to("y/z/b"));
        assert_eq!(r.filter("y/def/z/#", WHO), to("y/z/#"));
        assert_eq!(r.topic("x/1/2", WHO), Rewritten::Same);
        assert_eq!(r.topic("x/y/2", WHO), to("z/y/2"));
        // the last rule's source matches and its expression does not: no other rule is asked
        assert_eq!(r.topic("x/y/z", WHO), Rewritten::Same);
        assert_eq!(r.topic("x/y/z/1", WHO), to("z/y/x/z/1"));
    }

    #[test]
    fn a_rule_is_for_its_action() {
        let mut r = rewriter(&[
            (Action::Publish, "a", "a", "published"),
            (Action::Subscribe, "a", "a", "subscribed"),
        ]);
        assert_eq!(r.topic("a", WHO), to("published"));
        assert_eq!(r.filter("a", WHO), to("subscribed"));
        assert!(!r.is_empty() && Rewriter::new(&Rewriting::default()).is_empty());
    }

    #[test]
    fn what_stands_before_a_filter_stays() {
        let mut r = rewriter(&[(Action::All, "a/#", "^a/(.+)$", "b/$1")]);
        assert_eq!(r.filter("$share/g/a/1", WHO), to("$share/g/b/1"));
        assert_eq!(r.filter("$exclusive/a/1", WHO), to("$exclusive/b/1"));
        assert_eq!(r.filter("a/#/b", WHO), Rewritten::Same, "no filter: it is refused as it is");
    }

    #[test]
    fn a_result_that_is_no_topic_is_not_used() {
        let mut r = rewriter(&[
            (Action::All, "a", "a", ""),
            (Action::All, "b", "b", "b/+"),
            (Action::All, "c", "c", "${username}"),
            (Action::All, "d", "d", "$share/g/d"),
        ]);
        for topic in ["a", "b", "c"] {
            assert_eq!(r.topic(topic, WHO), Rewritten::Unusable, "{topic}");
        }
        assert_eq!(r.filter("b", WHO), to("b/+"));
        assert_eq!(r.filter("d", WHO), Rewritten::Unusable);
    }

    #[test]
    fn a_topic_beyond_the_bound_stays_as_it_is() {
        let mut r = rewriter(&[(Action::All, "#", "^.", "b")]);
        assert_eq!(r.topic(&"a".repeat(MAX_TOPIC), WHO), to("b"));
        assert_eq!(r.topic(&"a".repeat(MAX_TOPIC + 1), WHO), Rewritten::Unusable);
    }

    #[test]
    fn what_is_no_rule_is_told() {
        let errors = |source, regex, target| {
            let (source, regex, target) = (Some(source), Some(regex), Some(target));
            Rule::new(Written { action: None, source, regex, target }).unwrap_err()
        };
        let error = |source, regex, target| {
            let mut errors = errors(source, regex, target);
            assert_eq!(errors.len(), 1);
            errors.remove(0)
        };
        assert!(matches!(error("a/#/b", ".", "x"), RuleError::Source(_)));
        assert!(matches!(error("$share/g/a", ".", "x"), RuleError::Source(_)));
        assert!(matches!(error("a", "(", "x"), RuleError::Expression(_)));
        assert!(matches!(error("a", "(a{1000}){1000}", "x"), RuleError::Expression(_)), "too large");
        assert!(matches!(error("a", "(.)", "$2"), RuleError::Target(_)));
        let all = errors("a/#/b", "(", "${nobody}");
        assert!(
            matches!(&all[..], [RuleError::Source(_), RuleError::Expression(_), RuleError::Target(_)]),
            "{all:?}"
        );
        assert!(matches!(error("a", "(", "$7"), RuleError::Expression(_)), "its groups are not known");
    }

    proptest! {
        /// Whatever a client sends, what comes out is a topic, and a filter.
        #[test]
        fn what_comes_out_can_be_used(topic in "[a-c/+#$]{1,12}", client_id in ".{0,4}") {
            let mut r = rewriter(&[
                (Action::All, "#", "^(.*)b(.*)$", "$2${clientid}$1"),
                (Action::All, "a/#", "(.*)", "$1/x"),
            ]);
            let who = Who { client_id: &client_id, username: None };
            if let Rewritten::As(new) = r.topic(&topic, who) {
                prop_assert!(topic::validate(&new).is_ok(), "{new}");
            }
            if let Rewritten::As(new) = r.filter(&topic, who) {
                prop_assert!(Filter::parse(&new).is_ok(), "{new}");
            }
        }
    }
}
