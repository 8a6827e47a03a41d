//! The Gregorian calendar in UTC, as far as masking needs it.

pub(super) const DAY_MS: i64 = 86_400_000;

/// Milliseconds from 1970 to the midnight that begins the day; `None` if there is no such day.
pub(super) fn midnight_unix_ms(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    if !(1..=days_in_month(year, month)).contains(&day) {
        return None;
    }
    Some(days_from_civil(year, month, day) * DAY_MS)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01, by Howard Hinnant's `days_from_civil`.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The month of an English name, full or of three letters, in any case.
pub(super) fn month(name: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let at = MONTHS.iter().position(|month| {
        name.eq_ignore_ascii_case(month)
            || name.eq_ignore_ascii_case(&month[..3])
            || (*month == "september" && name.eq_ignore_ascii_case("sept"))
    })?;
    i64::try_from(at).ok().map(|at| at + 1)
}

pub(super) fn is_weekday(name: &str) -> bool {
    const DAYS: [&str; 7] = [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];
    DAYS.iter()
        .any(|day| name.eq_ignore_ascii_case(day) || name.eq_ignore_ascii_case(&day[..3]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_1970() {
        assert_eq!(midnight_unix_ms(1970, 1, 1), Some(0));
        assert_eq!(midnight_unix_ms(2000, 2, 29), Some(951_782_400_000));
        assert_eq!(midnight_unix_ms(2026, 11, 24), Some(1_795_478_400_000));
        assert_eq!(midnight_unix_ms(2100, 2, 29), None);
        assert_eq!(midnight_unix_ms(2026, 0, 1), None);
    }
}
