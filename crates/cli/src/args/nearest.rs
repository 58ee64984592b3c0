//! Which right word a wrong one was meant to be.

/// The nearest of these words, if it is near: a letter in three may be wrong, and at least one.
pub(super) fn nearest(
    word: &str,
    right: impl IntoIterator<Item = &'static str>,
) -> Option<&'static str> {
    let word = word.to_lowercase();
    let right = right
        .into_iter()
        .map(|right| (distance(&word, right), right));
    let (distance, nearest) = right.min_by_key(|(distance, _)| *distance)?;
    let letters = nearest.trim_start_matches('-').chars().count();
    (distance <= (letters / 3).max(1)).then_some(nearest)
}

/// How many letters have to be added, removed, replaced, or swapped with the next one, to make one
/// word of the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<_>, Vec<_>) = (from.chars().collect(), to.chars().collect());
    // The distances between the beginnings of both; `rows[i][j]` is that of `i` and `j` letters.
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
