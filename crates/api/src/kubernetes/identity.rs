//! Who somebody is to a hub, in the words that command line, admission policy and hub share.
//!
//! Theory: a hub runs in its tenant's namespace, so what a person has for the API server must never
//! be sent to it: who gets hold of a hub could be that person everywhere. Tokens for a hub are
//! therefore of its own audience, worthless anywhere else. Whoever has a program's account asks for
//! one of that account. A person has none, and may have no token at all but a certificate; he asks
//! for one of [`CLIENTS`], an account without any rights, and has written into its audiences who he
//! is. That this is true is what an admission policy says, which sees the request as the API server
//! authenticated it. What he may do is then asked of the API server by his own name.

use super::HUB;

/// The account whose tokens say who asked for them. Also the name of the policy that sees to it.
pub const CLIENTS: &str = "mainstay-clients";
/// In rights: what is done at a hub with an agent's tasks, as a subresource of agents. There are no
/// objects of it.
pub const TASKS: &str = "tasks";
/// What stands before a user's name in the audiences of a token of [`CLIENTS`].
pub const AS_USER: &str = "user:";
/// The same of each of his groups.
pub const AS_GROUP: &str = "group:";
/// How long such a token may be valid, in seconds: what is known of somebody's groups is that old.
pub const LONGEST_S: i64 = 3600;

/// The audience of the hub in a namespace.
pub fn hub_audience(namespace: &str) -> String {
    format!("{HUB}.{namespace}")
}

/// The audiences of a person's token for the hub in a namespace.
pub fn client_audiences<'a>(
    namespace: &str,
    user: &str,
    groups: impl IntoIterator<Item = &'a str>,
) -> Vec<String> {
    let groups = groups.into_iter().map(|group| format!("{AS_GROUP}{group}"));
    [hub_audience(namespace), format!("{AS_USER}{user}")]
        .into_iter()
        .chain(groups)
        .collect()
}

/// User and groups that stand in the audiences of a person's token for the hub in a namespace.
pub fn client_of(namespace: &str, audiences: &[String]) -> Option<(String, Vec<String>)> {
    let [hub, user, rest @ ..] = audiences else {
        return None;
    };
    let user = user.strip_prefix(AS_USER).filter(|user| !user.is_empty())?;
    if *hub != hub_audience(namespace) {
        return None;
    }
    let groups: Option<Vec<String>> = rest
        .iter()
        .map(|group| group.strip_prefix(AS_GROUP).map(str::to_owned))
        .collect();
    Some((user.to_owned(), groups?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_who_the_audiences_say_and_of_this_hub_alone() {
        let written = client_audiences("acme", "ada@example.com", ["a:b", "group:c"]);
        let groups = ["a:b", "group:c"].map(str::to_owned).to_vec();
        assert_eq!(
            client_of("acme", &written),
            Some(("ada@example.com".to_owned(), groups))
        );
        assert_eq!(client_of("other", &written), None);
    }

    #[test]
    fn what_is_written_otherwise_is_nobody() {
        let of = |audiences: &[&str]| {
            let audiences: Vec<String> = audiences.iter().map(|it| (*it).to_owned()).collect();
            client_of("acme", &audiences)
        };
        for wrong in [
            &["mainstay-hub.acme"][..],
            &["user:ada", "mainstay-hub.acme"],
            &["mainstay-hub.acme", "user:"],
            &["mainstay-hub.acme", "group:x"],
            &["mainstay-hub.acme", "user:ada", "user:root"],
            &[
                "mainstay-hub.acme",
                "user:ada",
                "https://kubernetes.default.svc",
            ],
        ] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }
}
