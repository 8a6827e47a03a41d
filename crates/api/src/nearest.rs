//! The name somebody probably meant.

/// The nearest of the candidates, if one is near enough to be a slip of the fingers.
pub(crate) fn nearest<'a>(
    wrong: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A longer text is no misspelt name, and comparing it would take time in the square of its length.
    if wrong.chars().count() > 64 {
        return None;
    }
    let plain_wrong = plain(wrong);
    candidates
        .into_iter()
        .map(|candidate| (distance(&plain_wrong, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| {
            *distance <= (candidate.chars().count().min(wrong.chars().count()) / 3).max(1)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
        .filter(|candidate| candidate.chars().count() > 1)
}

/// "did you mean …?", as a hint.
pub(crate) fn did_you_mean<'a>(
    wrong: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(wrong, candidates)
        .map(|candidate| format!("did you mean {}?", crate::problem::quoted(candidate)))
}

/// Case, underscores and hyphens don't count: `base_url` is `baseUrl`.
fn plain(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '_' | '-'))
        .flat_map(char::to_lowercase)
        .collect()
}

fn distance(left: &str, right: &str) -> usize {
    strsim::damerau_levenshtein(left, right)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    fn check(wrong: &str, expect: Option<&str>) {
        assert_eq!(
            nearest(wrong, ["models", "baseUrl", "secretEnv", "env", "replicas"]),
            expect,
            "{wrong}"
        );
    }

    #[test]
    fn a_slip_finds_its_name_and_a_stranger_finds_none() {
        check("modles", Some("models"));
        check("model", Some("models"));
        check("base_url", Some("baseUrl"));
        check("BaseURL", Some("baseUrl"));
        check("secret-env", Some("secretEnv"));
        check("enV", Some("env"));
        check("repilcas", Some("replicas"));
        check("image", None);
        check("x", None);
        check("", None);
        check(&"models".repeat(1000), None);
    }
}
