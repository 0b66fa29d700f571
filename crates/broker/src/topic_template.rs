//! Topics that the operator writes with places for what is known of a client: `${clientid}`, `${username}`, and in a rewriting
//! rule `$1`, `$2` ... for what the expression found.
//!
//! What a client chose itself must not make a topic wider or another one's: an identifier or a name that is empty or holds `/`,
//! `+`, `#` or U+0000, or would make a topic that begins with `$`, fills no place, and the template gives nothing.
//!
//! Must not know: sessions, packets, expressions.

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Found(usize),
    ClientId,
    Username,
}

/// Of whom a template is filled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) username: Option<&'a str>,
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `${` with something else behind it.
    #[error("${{clientid}} or ${{username}} between ${{ and }}")]
    Placeholder,
    /// `$N` that the expression does not have.
    #[error("${0} stands for a group that the expression has; it has {1}")]
    Group(usize, usize),
}

impl Template {
    /// Reads a template; `groups` are those of the expression beside it, 0 where there is none: `$1` is text then.
    pub(crate) fn parse(text: &str, groups: usize) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let part = if let Some(name) = rest.strip_prefix('{') {
                let (name, after) = name.split_once('}').ok_or(TemplateError::Placeholder)?;
                rest = after;
                match name {
                    "clientid" => Part::ClientId,
                    "username" => Part::Username,
                    _ => return Err(TemplateError::Placeholder),
                }
            } else if digits > 0 && groups > 0 {
                let number = rest[..digits].parse().unwrap_or(usize::MAX);
                if !(1..=groups).contains(&number) {
                    return Err(TemplateError::Group(number, groups));
                }
                rest = &rest[digits..];
                Part::Found(number)
            } else {
                literal.push('$');
                continue;
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal).into()));
            }
            parts.push(part);
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Ok(Self(parts))
    }

    /// The topic for a client; `found` gives what the groups of the expression found. `None`: something is not there, or must not
    /// be put in.
    pub(crate) fn fill<'a>(&self, who: Who<'_>, found: impl Fn(usize) -> Option<&'a str>) -> Option<String> {
        let usable = |value: &&str| !value.is_empty() && !value.contains(['/', '+', '#', '\0']);
        let mut topic = String::new();
        for part in &self.0 {
            let of_client = match part {
                Part::Text(text) => {
                    topic.push_str(text);
                    continue;
                }
                Part::Found(number) => {
                    // a group that took no part found nothing
                    topic.push_str(found(*number).unwrap_or_default());
                    continue;
                }
                Part::ClientId => Some(who.client_id),
                Part::Username => who.username,
            };
            let value = of_client.filter(usable)?;
            if topic.is_empty() && value.starts_with('$') {
                return None;
            }
            topic.push_str(value);
        }
        Some(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Who<'_> = Who { client_id: "car-1", username: Some("fleet") };

    fn filled(text: &str, who: Who<'_>) -> Option<String> {
        Template::parse(text, 2).unwrap().fill(who, |n| [None, Some("one"), None].get(n).copied().flatten())
    }

    #[test]
    fn places_are_filled() {
        assert_eq!(filled("c/${clientid}/${username}", WHO).as_deref(), Some("c/car-1/fleet"));
        assert_eq!(filled("y/$1-$2/$1", WHO).as_deref(), Some("y/one-/one"));
        assert_eq!(filled("a$b/$", WHO).as_deref(), Some("a$b/$"));
        assert_eq!(Template::parse("$1", 0).unwrap().fill(WHO, |_| None).as_deref(), Some("$1"));
    }

    #[test]
    fn what_a_client_chose_widens_no_topic() {
        for bad in ["", "a/b", "+", "#", "a#", "a\0"] {
            let who = Who { client_id: bad, username: Some(bad) };
            assert_eq!(filled("c/${clientid}", who), None, "{bad:?}");
            assert_eq!(filled("c/${username}", who), None, "{bad:?}");
        }
        assert_eq!(filled("${clientid}/x", Who { client_id: "$SYS", username: None }), None);
        assert_eq!(filled("c/${username}", Who { username: None, ..WHO }), None);
    }

    #[test]
    fn what_is_no_template_is_told() {
        for bad in ["${clientid", "${client}", "${}"] {
            assert_eq!(Template::parse(bad, 0), Err(TemplateError::Placeholder));
        }
        assert_eq!(Template::parse("$3", 2), Err(TemplateError::Group(3, 2)));
        assert_eq!(Template::parse("$0", 2), Err(TemplateError::Group(0, 2)));
    }
}
