//! Points in time as engines write them (RFC 3339).

/// Parses a time such as `2026-11-30T21:06:39.123456789Z` or `2026-11-30T22:06:39+01:00`. Returns milliseconds since the
/// Unix epoch, or `None` for another form or a time before the epoch.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    nanos(text).map(|nanos| nanos / 1_000_000)
}

/// Like [`parse`], in nanoseconds.
#[must_use]
pub fn nanos(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let rest = text.get(19..)?;
    let digits = rest.strip_prefix('.').map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    let (fraction, zone) = if digits > 0 { rest[1..].split_at(digits) } else { ("0", rest) };
    let fraction = format!("{fraction:0<9}").get(..9)?.parse::<i64>().ok()?;
    let offset = match zone.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), ..] => {
            let minutes = zone.get(1..3)?.parse::<i64>().ok()? * 60 + zone.get(4..6)?.parse::<i64>().ok()?;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    if !(1..=12).contains(&month) {
        return None;
    }
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute - offset) * 60 + second;
    // A year such as 9999 does not fit.
    u64::try_from(seconds).ok()?.checked_mul(1_000_000_000)?.checked_add(u64::try_from(fraction).ok()?)
}

/// Returns the days from 1970-01-01 to a date of the Gregorian calendar. The year is counted from March, so that the leap day
/// is its last day.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let in_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + in_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00.5Z", Some(951_825_600_500)),
            ("2026-11-30T21:06:39.123456789Z", Some(1_796_072_799_123)),
            ("2026-11-30T22:06:39.123+01:00", Some(1_796_072_799_123)),
            ("0001-01-01T00:00:00Z", None),
            ("9999-12-31T23:59:59Z", None),
            ("yesterday", None),
            ("2026-13-01T00:00:00Z", None),
        ] {
            assert_eq!(parse(text), millis, "{text}");
        }
    }
}
