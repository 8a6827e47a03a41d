//! The ways in which programs write a date or a time. Each reader is given a place and says where the expression ends
//! and which span of time it means: a date is its whole day, a time without seconds its whole minute.

use super::calendar::{DAY_MS, is_weekday, midnight_unix_ms, month};
use super::cursor::Cursor;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    /// From the start up to, not including, the end.
    Instant { start_ms: i64, end_ms: i64 },
    /// The same, since midnight of any day.
    TimeOfDay { start_ms: i64, end_ms: i64 },
}

pub(super) struct Expression {
    pub(super) end: usize,
    /// Where the expression begins without a weekday before it.
    pub(super) core_start: usize,
    pub(super) span: Span,
}

/// The longest expression that begins here.
pub(super) fn read(cursor: Cursor) -> Option<Expression> {
    let core = after_weekday(cursor).unwrap_or(cursor);
    let (end, span) = date_and_time(core).or_else(|| {
        if core.at == cursor.at {
            time_of_day(core).or_else(|| unix_time(core))
        } else {
            None
        }
    })?;
    end.is_end().then_some(Expression {
        end: end.at,
        core_start: core.at,
        span,
    })
}

fn after_weekday(cursor: Cursor) -> Option<Cursor> {
    let (name, after) = cursor.letters()?;
    if !is_weekday(name) {
        return None;
    }
    let after = after.one_of(b",").unwrap_or(after);
    let core = after.spaces();
    (core.at > after.at).then_some(core)
}

/// A date, and the time that belongs to it if one follows.
fn date_and_time(cursor: Cursor) -> Option<(Cursor, Span)> {
    if let Some(found) = ctime(cursor) {
        return Some(found);
    }
    let dates = [
        iso_date,
        compact_date,
        slash_date,
        dotted_date,
        month_first,
        day_first,
    ];
    dates.iter().find_map(|date| {
        let (after, midnight) = date(cursor)?;
        let with_time = time_after_date(after).and_then(|(end, time)| {
            end.is_end().then(|| {
                let (start_ms, end_ms) = (midnight + time.start_ms, midnight + time.end_ms);
                (end, Span::Instant { start_ms, end_ms })
            })
        });
        let day = Span::Instant {
            start_ms: midnight,
            end_ms: midnight + DAY_MS,
        };
        with_time.or_else(|| after.is_end().then_some((after, day)))
    })
}

type Date<'a> = (Cursor<'a>, i64);

/// `2026-11-24`, `2026/11/24`
fn iso_date(cursor: Cursor) -> Option<Date> {
    let (year, after) = cursor.number(4, 4)?;
    let separator = [after.peek().filter(|byte| matches!(byte, b'-' | b'/'))?];
    let (month, after) = after.one_of(&separator)?.number(2, 2)?;
    let (day, after) = after.one_of(&separator)?.number(2, 2)?;
    Some((after, midnight_unix_ms(year, month, day)?))
}

/// `20261124`, only with a `T` and a time after it: eight digits alone are any number.
fn compact_date(cursor: Cursor) -> Option<Date> {
    let (_, after) = cursor.number(8, 8)?;
    after.one_of(b"Tt")?;
    let (year, rest) = cursor.digits(4)?;
    let (month, rest) = rest.digits(2)?;
    let (day, _) = rest.digits(2)?;
    Some((after, midnight_unix_ms(year, month, day)?))
}

/// `11/24/2026`, `24/11/2026`, `11/24/26`. Where both readings are days the American one is meant; a wrong guess only
/// leaves a value unmasked.
fn slash_date(cursor: Cursor) -> Option<Date> {
    let (first, after) = cursor.number(1, 2)?;
    let (second, after) = after.one_of(b"/")?.number(1, 2)?;
    let (year, after) = year(after.one_of(b"/")?)?;
    let american = midnight_unix_ms(year, first, second);
    Some((
        after,
        american.or_else(|| midnight_unix_ms(year, second, first))?,
    ))
}

/// `24.11.2026`
fn dotted_date(cursor: Cursor) -> Option<Date> {
    let (day, after) = cursor.number(1, 2)?;
    let (month, after) = after.one_of(b".")?.number(1, 2)?;
    let (year, after) = after.one_of(b".")?.number(4, 4)?;
    Some((after, midnight_unix_ms(year, month, day)?))
}

fn year(cursor: Cursor) -> Option<(i64, Cursor)> {
    cursor.number(4, 4).or_else(|| {
        let (year, after) = cursor.number(2, 2)?;
        Some((2000 + year, after))
    })
}

/// `November 24, 2026`, `Nov 24 2026`, `November 24th, 2026`
fn month_first(cursor: Cursor) -> Option<Date> {
    let (name, after) = cursor.letters()?;
    let month = month(name)?;
    let after = after.one_of(b".").unwrap_or(after);
    let (day, after) = day(after.spaces())?;
    let after = after.one_of(b",").unwrap_or(after);
    let (year, after) = after.spaces().number(4, 4)?;
    Some((after, midnight_unix_ms(year, month, day)?))
}

/// `24 November 2026`, `24th of November, 2026`, `24-Nov-2026`
fn day_first(cursor: Cursor) -> Option<Date> {
    let (day, after) = day(cursor)?;
    let after = between(after);
    let after = after.word("of ").unwrap_or(after);
    let (name, after) = after.letters()?;
    let month = month(name)?;
    let after = after.one_of(b",").unwrap_or(after);
    let (year, after) = between(after).number(4, 4)?;
    Some((after, midnight_unix_ms(year, month, day)?))
}

fn between(cursor: Cursor) -> Cursor {
    cursor.one_of(b"-").unwrap_or(cursor.spaces())
}

fn day(cursor: Cursor) -> Option<(i64, Cursor)> {
    let (day, after) = cursor.number(1, 2)?;
    let ordinal = ["st", "nd", "rd", "th"]
        .iter()
        .find_map(|ending| after.word(ending));
    Some((day, ordinal.unwrap_or(after)))
}

/// `Nov 24 06:28:45 2026`, `Nov 24 06:28:45 UTC 2026`: C's and date(1)'s order.
fn ctime(cursor: Cursor) -> Option<(Cursor, Span)> {
    let (name, after) = cursor.letters()?;
    let month = month(name)?;
    let (day, after) = after.spaces().number(1, 2)?;
    let (after, time) = clock(after.spaces())?;
    let (year, end) = named_zone(after).unwrap_or(after).spaces().number(4, 4)?;
    let midnight = midnight_unix_ms(year, month, day)?;
    let (start_ms, end_ms) = (midnight + time.start_ms, midnight + time.end_ms);
    Some((end, Span::Instant { start_ms, end_ms }))
}

/// A time of day, as milliseconds since midnight; negative or beyond a day once its zone is taken into account.
#[derive(Clone, Copy)]
struct Clock {
    start_ms: i64,
    end_ms: i64,
}

fn time_after_date(cursor: Cursor) -> Option<(Cursor, Clock)> {
    let joined = cursor.one_of(b"Tt");
    let spaced = || {
        let after = cursor.one_of(b",").unwrap_or(cursor).spaces();
        let after = after.word("at ").unwrap_or(after).spaces();
        (after.at > cursor.at).then_some(after)
    };
    let is_joined = joined.is_some();
    let after = joined.or_else(spaced)?;
    let compact = || {
        if is_joined {
            compact_clock(after)
        } else {
            None
        }
    };
    let (end, clock) = clock(after).or_else(compact)?;
    let (end, offset_ms) = zone(end);
    let clock = Clock {
        start_ms: clock.start_ms - offset_ms,
        end_ms: clock.end_ms - offset_ms,
    };
    Some((end, clock))
}

/// `06:28`, `06:28:45`, `06:28:45.123`, `6:28 AM`
fn clock(cursor: Cursor) -> Option<(Cursor, Clock)> {
    let (hour, after) = cursor.number(1, 2)?;
    let (minute, after) = after.one_of(b":")?.number(2, 2)?;
    let mut end = after;
    let mut parts = (0, 60_000);
    if let Some((second, after)) = after.one_of(b":").and_then(|after| after.number(2, 2)) {
        if second > 60 {
            return None;
        }
        let (after, (fraction_ms, precision_ms)) = fraction(after);
        end = after;
        parts = (second * 1000 + fraction_ms, precision_ms);
    }
    let (end, hour) = half_of_day(end, hour)?;
    if hour > 23 || minute > 59 {
        return None;
    }
    let start_ms = hour * 3_600_000 + minute * 60_000 + parts.0;
    Some((
        end,
        Clock {
            start_ms,
            end_ms: start_ms + parts.1,
        },
    ))
}

/// `0628`, `062845`
fn compact_clock(cursor: Cursor) -> Option<(Cursor, Clock)> {
    let (hour, after) = cursor.digits(2)?;
    let (minute, after) = after.digits(2)?;
    let (second, precision_ms, after) = match after.digits(2) {
        Some((second, after)) => (second, 1000, after),
        None => (0, 60_000, after),
    };
    let start_ms = hour * 3_600_000 + minute * 60_000 + second * 1000;
    let fits = hour < 24 && minute < 60 && second <= 60;
    fits.then_some((
        after,
        Clock {
            start_ms,
            end_ms: start_ms + precision_ms,
        },
    ))
}

/// Milliseconds after the point, and how many of them one unit of the last digit is.
fn fraction(cursor: Cursor) -> (Cursor, (i64, i64)) {
    let read = || {
        let after = cursor.one_of(b".,")?;
        let count = after.digit_count();
        if !(1..=9).contains(&count) {
            return None;
        }
        let shown = count.min(3);
        let (value, _) = after.digits(shown)?;
        let unit = 10_i64.pow(3 - u32::try_from(shown).ok()?);
        let (_, end) = after.digits(count)?;
        Some((end, (value * unit, unit)))
    };
    read().unwrap_or((cursor, (0, 1000)))
}

fn half_of_day(cursor: Cursor, hour: i64) -> Option<(Cursor, i64)> {
    let after = cursor.spaces();
    let marked = [("AM", 0), ("PM", 12), ("a.m.", 0), ("p.m.", 12)];
    let marked = marked
        .iter()
        .find_map(|(word, plus)| Some((after.word(word)?, *plus)));
    match marked {
        None => Some((cursor, hour)),
        Some((_, _)) if !(1..=12).contains(&hour) => None,
        Some((end, plus)) => Some((end, hour % 12 + plus)),
    }
}

/// A zone and its offset from UTC in milliseconds; none means UTC.
fn zone(cursor: Cursor) -> (Cursor, i64) {
    let zulu = cursor.one_of(b"Zz").filter(|end| end.is_end());
    let utc = zulu.or_else(|| named_zone(cursor)).map(|end| (end, 0));
    let offset = utc
        .or_else(|| offset(cursor))
        .or_else(|| offset(cursor.spaces()));
    offset.unwrap_or((cursor, 0))
}

fn named_zone(cursor: Cursor) -> Option<Cursor> {
    let cursor = cursor.spaces();
    cursor.word("UTC").or_else(|| cursor.word("GMT"))
}

fn offset(cursor: Cursor) -> Option<(Cursor, i64)> {
    let sign = if cursor.peek()? == b'-' { -1 } else { 1 };
    let (hours, after) = cursor.one_of(b"+-")?.digits(2)?;
    let (minutes, end) = after
        .one_of(b":")
        .unwrap_or(after)
        .digits(2)
        .unwrap_or((0, after));
    Some((end, sign * (hours * 60 + minutes) * 60_000))
}

fn time_of_day(cursor: Cursor) -> Option<(Cursor, Span)> {
    let (end, clock) = clock(cursor)?;
    let span = Span::TimeOfDay {
        start_ms: clock.start_ms,
        end_ms: clock.end_ms,
    };
    Some((named_zone(end).unwrap_or(end), span))
}

/// Seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their length.
fn unix_time(cursor: Cursor) -> Option<(Cursor, Span)> {
    let (value, end) = cursor.number(10, 19)?;
    let instant = |start_ms: i64, length_ms: i64| Span::Instant {
        start_ms,
        end_ms: start_ms + length_ms,
    };
    match cursor.digit_count() {
        10 => {
            let (end, (fraction_ms, precision_ms)) = match end.peek() {
                Some(b'.') => fraction(end),
                _ => (end, (0, 1000)),
            };
            Some((end, instant(value * 1000 + fraction_ms, precision_ms)))
        }
        13 => Some((end, instant(value, 1))),
        16 => Some((end, instant(value / 1000, 1))),
        19 => Some((end, instant(value / 1_000_000, 1))),
        _ => None,
    }
}
