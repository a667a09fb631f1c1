//! Dates of UTC, and names of files with dates in them, as GoBGP writes them.

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

/// A date and a time of day, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Year, from 1970.
    pub year: u64,
    /// Month, 1 to 12.
    pub month: u64,
    /// Day of the month, from 1.
    pub day: u64,
    /// Day of the week; 0 is Sunday.
    pub weekday: u64,
    /// Day of the year, from 1.
    pub year_day: u64,
    /// Hour, 0 to 23.
    pub hour: u64,
    /// Minute.
    pub minute: u64,
    /// Second.
    pub second: u64,
}

impl Date {
    /// The date of so many seconds after 1970 began (Gregorian calendar, without leap seconds, as Unix counts).
    pub fn of(unix_seconds: u64) -> Self {
        let (days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
        let is_leap =
            |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        // 400 years have 146,097 days: whole cycles first, so that the count of years is short.
        let mut year = 1970 + days / 146_097 * 400;
        let mut left = days % 146_097;
        while left >= 365 + u64::from(is_leap(year)) {
            left -= 365 + u64::from(is_leap(year));
            year += 1;
        }
        let year_day = left + 1;
        let months = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut month = 1;
        for days in months {
            if left < days {
                break;
            }
            left -= days;
            month += 1;
        }
        Self {
            year,
            month,
            day: left + 1,
            // 1970 began on a Thursday.
            weekday: (days + 4) % 7,
            year_day,
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }
}

/// Seconds since 1970; 0 for what is before.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A word of a layout, and what it stands for.
type Word = (&'static str, fn(&Date) -> String);

/// Words of a layout, the longer of two that start alike first, and what each stands for (package `time` of Go, whose example
/// date is Mon Jan 2 15:04:05 MST 2006).
const WORDS: &[Word] = &[
    ("January", |date| name(&MONTHS, date.month - 1).to_owned()),
    ("Jan", |date| short(name(&MONTHS, date.month - 1))),
    ("Monday", |date| name(&DAYS, date.weekday).to_owned()),
    ("Mon", |date| short(name(&DAYS, date.weekday))),
    ("MST", |_| "UTC".to_owned()),
    ("2006", |date| format!("{:04}", date.year)),
    ("002", |date| format!("{:03}", date.year_day)),
    ("__2", |date| format!("{:3}", date.year_day)),
    ("-07:00", |_| "+00:00".to_owned()),
    ("-0700", |_| "+0000".to_owned()),
    ("-07", |_| "+00".to_owned()),
    ("Z07:00", |_| "Z".to_owned()),
    ("Z0700", |_| "Z".to_owned()),
    ("Z07", |_| "Z".to_owned()),
    ("01", |date| format!("{:02}", date.month)),
    ("02", |date| format!("{:02}", date.day)),
    ("03", |date| format!("{:02}", twelve(date.hour))),
    ("04", |date| format!("{:02}", date.minute)),
    ("05", |date| format!("{:02}", date.second)),
    ("06", |date| format!("{:02}", date.year % 100)),
    ("15", |date| format!("{:02}", date.hour)),
    ("PM", |date| if date.hour < 12 { "AM" } else { "PM" }.to_owned()),
    ("pm", |date| if date.hour < 12 { "am" } else { "pm" }.to_owned()),
    ("_2", |date| format!("{:2}", date.day)),
    ("1", |date| date.month.to_string()),
    ("2", |date| date.day.to_string()),
    ("3", |date| twelve(date.hour).to_string()),
    ("4", |date| date.minute.to_string()),
    ("5", |date| date.second.to_string()),
];

fn name<'n>(names: &[&'n str], at: u64) -> &'n str {
    usize::try_from(at).ok().and_then(|at| names.get(at)).copied().unwrap_or("?")
}

fn short(name: &str) -> String {
    name.chars().take(3).collect()
}

fn twelve(hour: u64) -> u64 {
    (hour + 11) % 12 + 1
}

/// `layout` with the words of the example date replaced by those of `date`. As in Go this takes digits that were not meant
/// as a date too: `rrc1` has the month in it.
pub(crate) fn format_date(layout: &str, date: &Date) -> String {
    let mut text = String::new();
    let mut rest = layout;
    while let Some(first) = rest.chars().next() {
        // A year behind an underscore is no day behind a blank.
        let found = WORDS.iter().find(|(word, _)| rest.starts_with(word) && !rest.starts_with("_2006"));
        let found = found.filter(|(word, _)| !is_part_of_a_word(word, rest));
        if let Some((word, value)) = found {
            let _ = write!(text, "{}", value(date));
            rest = &rest[word.len()..];
        } else {
            text.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    text
}

/// Short names of months and days are none where small letters follow: `Janet`.
fn is_part_of_a_word(word: &str, rest: &str) -> bool {
    matches!(word, "Jan" | "Mon") && rest[word.len()..].starts_with(|next: char| next.is_ascii_lowercase())
}

/// When the next whole interval since 1970 begins, in seconds since 1970: dumps of several speakers cover the same times.
pub(crate) fn next_tick(now_unix: u64, interval_seconds: u64) -> u64 {
    let interval = interval_seconds.max(1);
    (now_unix / interval + 1).saturating_mul(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (unix, expected) in [
            (0, "1970-01-01 00:00:00 Thu 001"),
            (951_782_400, "2000-02-29 00:00:00 Tue 060"),
            (4_107_542_400, "2100-03-01 00:00:00 Mon 060"),
            (1_136_239_445, "2006-01-02 22:04:05 Mon 002"),
            (1_924_991_999, "2030-12-31 23:59:59 Tue 365"),
            (13_601_088_000, "2401-01-01 00:00:00 Mon 001"),
        ] {
            assert_eq!(format_date("2006-01-02 15:04:05 Mon 002", &Date::of(unix)), expected, "{unix}");
        }
    }

    #[test]
    fn layouts_are_those_of_go() {
        let date = Date::of(1_462_895_199); // 2016-05-10 15:46:39, a Tuesday
        for (layout, expected) in [
            ("/tmp/log/20060102.1504.dump", "/tmp/log/20160510.1546.dump"),
            ("/tmp/updates.dump", "/tmp/updates.dump"),
            ("updates.20060102.1504.Z0700", "updates.20160510.1546.Z"),
            (
                "Monday, 2 January 06 3:4:5 PM pm _2 __2 MST -0700",
                "Tuesday, 10 May 16 3:46:39 PM pm 10 131 UTC +0000",
            ),
            ("Jan-Mon Janet Mone", "May-Tue Janet Mone"),
            ("x_2006", "x_2016"),
            ("rrc1", "rrc5"),
            ("größe-02", "größe-10"),
        ] {
            assert_eq!(format_date(layout, &date), expected, "{layout}");
        }
        assert_eq!(format_date("03PM", &Date::of(0)), "12AM");
    }

    #[test]
    fn intervals_begin_at_whole_ones() {
        assert_eq!((next_tick(0, 60), next_tick(59, 60), next_tick(60, 60)), (60, 60, 120));
        assert_eq!(next_tick(7, 0), 8);
    }
}
