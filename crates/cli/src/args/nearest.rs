//! Suggests a known word for a misspelt one.

/// The known word that is nearest to this one, if it is near: a third of its letters may be wrong, and
/// at least one.
pub(super) fn nearest(
    word: &str,
    known: impl IntoIterator<Item = &'static str>,
) -> Option<&'static str> {
    let word = word.to_lowercase();
    let known = known
        .into_iter()
        .map(|known| (distance(&word, known), known));
    let (distance, nearest) = known.min_by_key(|(distance, _)| *distance)?;
    let letters = nearest.trim_start_matches('-').chars().count();
    (distance <= (letters / 3).max(1)).then_some(nearest)
}

/// How many letters have to be added, removed, replaced, or swapped with the next one, to make one
/// word of the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<_>, Vec<_>) = (from.chars().collect(), to.chars().collect());
    // `rows[i][j]` is the distance between the first `i` letters of one and the first `j` of the other.
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for i in 0..=from.len() {
        for j in 0..=to.len() {
            if i == 0 || j == 0 {
                rows[i][j] = i + j;
                continue;
            }
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            rows[i][j] = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                rows[i][j] = rows[i][j].min(rows[i - 2][j - 2] + 1);
            }
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_added_removed_replaced_and_swapped() {
        for (from, to, want) in [
            ("", "", 0),
            ("", "ab", 2),
            ("send", "send", 0),
            ("recieve", "receive", 1),
            ("snd", "send", 1),
            ("sendd", "send", 1),
            ("sand", "send", 1),
            ("list", "stats", 4),
        ] {
            assert_eq!(distance(from, to), want, "{from} {to}");
            assert_eq!(distance(to, from), want, "{to} {from}");
        }
    }

    #[test]
    fn what_is_too_far_is_not_meant() {
        let check = |word: &str, want: Option<&str>| {
            let right = ["send", "receive", "ack", "--wait", "--wait-for-server"];
            assert_eq!(nearest(word, right), want, "{word}");
        };
        check("RECIEVE", Some("receive"));
        check("recv", None);
        check("sent", Some("send"));
        check("--wiat", Some("--wait"));
        check("--wait-for-sever", Some("--wait-for-server"));
        check("kick", None);
        check("", None);
    }
}
