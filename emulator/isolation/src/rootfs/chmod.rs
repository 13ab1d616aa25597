//! Parses and applies changes of permission bits: `755`, or `u+x,go=r` as for `chmod`.

/// A change of permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chmod(Vec<Change>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Exactly(u32),
    /// `classes`: the bits of the classes named by `u`, `g`, `o` or `a`. `sign`: `+`, `-` or `=`. `what`: the letters
    /// after it.
    Some {
        classes: u32,
        sign: char,
        what: Vec<char>,
    },
}

/// The permission bits of each class, including the set-user-ID, set-group-ID and sticky bits.
const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHERS: u32 = 0o1007;

impl Chmod {
    /// Parses an octal number, or symbolic changes separated by commas.
    ///
    /// # Errors
    ///
    /// Returns an error message if the text is not a mode.
    pub fn parse(text: &str) -> Result<Chmod, String> {
        let bad = || format!("{text} is not a mode: it must be octal, like 755, or symbolic, like u+x,go=r");
        if text.starts_with(|letter: char| letter.is_ascii_digit()) {
            let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o7777);
            return Ok(Chmod(vec![Change::Exactly(bits.ok_or_else(bad)?)]));
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            let at = clause.find(['+', '-', '=']).ok_or_else(bad)?;
            let mut classes = 0;
            for letter in clause[..at].chars() {
                classes |= match letter {
                    'u' => USER,
                    'g' => GROUP,
                    'o' => OTHERS,
                    'a' => USER | GROUP | OTHERS,
                    _ => return Err(bad()),
                };
            }
            if classes == 0 {
                classes = USER | GROUP | OTHERS;
            }
            let mut actions: Vec<(char, Vec<char>)> = Vec::new();
            for letter in clause[at..].chars() {
                match (letter, actions.last_mut()) {
                    ('+' | '-' | '=', _) => actions.push((letter, Vec::new())),
                    ('r' | 'w' | 'x' | 'X' | 's' | 't' | 'u' | 'g' | 'o', Some((_, what))) => what.push(letter),
                    _ => return Err(bad()),
                }
            }
            changes.extend(actions.into_iter().map(|(sign, what)| Change::Some { classes, sign, what }));
        }
        Ok(Chmod(changes))
    }

    /// Returns the permission bits of a file or directory after the change.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        self.0.iter().fold(mode & 0o7777, |mode, change| match change {
            Change::Exactly(bits) => *bits,
            Change::Some { classes, sign, what } => {
                let all = |bits: u32| bits << 6 | bits << 3 | bits;
                let bits = what.iter().fold(0, |bits, letter| {
                    bits | match letter {
                        'r' => 0o444,
                        'w' => 0o222,
                        'x' => 0o111,
                        'X' if is_directory || mode & 0o111 != 0 => 0o111,
                        's' => 0o6000,
                        't' => 0o1000,
                        'u' => all(mode >> 6 & 7),
                        'g' => all(mode >> 3 & 7),
                        'o' => all(mode & 7),
                        _ => 0,
                    }
                }) & classes;
                match sign {
                    '+' => mode | bits,
                    '-' => mode & !bits,
                    // As in `chmod`, a directory keeps its set-user-ID and set-group-ID bits, which determine the owner
                    // of new files.
                    _ => mode & !(classes & if is_directory { 0o1777 } else { 0o7777 }) | bits,
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_as_chmod_has_them() {
        for (text, before, after) in [
            ("755", 0o644, 0o755),
            ("4755", 0, 0o4755),
            ("u+x", 0o644, 0o744),
            ("+x", 0o644, 0o755),
            ("go=r", 0o777, 0o744),
            ("u+x,go-rwx", 0o644, 0o700),
            ("a=rX", 0o644, 0o444),
            ("a=rX", 0o744, 0o555),
            ("g=u", 0o640, 0o660),
            ("u=rwx,g=rx,o=", 0o666, 0o750),
            ("u+s,g+s,+t", 0o755, 0o7755),
            ("u-w+x", 0o644, 0o544),
            ("o-s", 0o6755, 0o6755),
        ] {
            assert_eq!(Chmod::parse(text).unwrap().apply(before, false), after, "{text}");
        }
        assert_eq!(Chmod::parse("a-x,a+X").unwrap().apply(0o644, true), 0o755);
        for text in ["", "8", "77777", "u", "u~x", "x+u+z", "u+x,", "0o755", "rwx"] {
            assert!(Chmod::parse(text).is_err(), "{text}");
        }
    }
}
