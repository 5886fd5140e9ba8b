//! Wall-clock time as the log shows it: in the local zone, with the zone's name. Where the time comes from is for the
//! caller to say.

use std::ffi::CStr;
use std::fmt;
use std::time::{Duration, SystemTime};

/// A moment in the local time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LocalTime {
    pub(super) year: i32,
    /// 1 to 12
    pub(super) month: i32,
    pub(super) day: i32,
    pub(super) hour: i32,
    pub(super) minute: i32,
    pub(super) second: i32,
    pub(super) zone: String,
    /// Minutes east of Greenwich.
    pub(super) offset: i64,
}

impl LocalTime {
    /// The time zone is `$TZ`'s, else the host's.
    pub(super) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let seconds = libc::time_t::try_from(since).unwrap_or_default();
        // SAFETY: all-zero is a valid value of this plain C structure; localtime_r fills it and keeps no pointer.
        #[allow(unsafe_code)]
        let broken_down = unsafe {
            let mut broken_down: libc::tm = std::mem::zeroed();
            libc::localtime_r(&raw const seconds, &raw mut broken_down);
            broken_down
        };
        let zone = if broken_down.tm_zone.is_null() {
            "UTC".to_owned()
        } else {
            // SAFETY: tm_zone points to a terminated string that the C library keeps for the life of the process.
            #[allow(unsafe_code)]
            let name = unsafe { CStr::from_ptr(broken_down.tm_zone) };
            name.to_string_lossy().into_owned()
        };
        Self {
            year: broken_down.tm_year + 1900,
            month: broken_down.tm_mon + 1,
            day: broken_down.tm_mday,
            hour: broken_down.tm_hour,
            minute: broken_down.tm_min,
            second: broken_down.tm_sec,
            zone,
            offset: broken_down.tm_gmtoff / 60,
        }
    }

    /// `[HH:MM:SS] `, the prefix of a log line.
    pub(super) fn prefix(&self) -> String {
        format!("[{:02}:{:02}:{:02}] ", self.hour, self.minute, self.second)
    }

    /// `Nov  2 11:28:24`, as syslog wants it: English month names whatever the locale.
    pub(super) fn syslog(&self) -> String {
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month = usize::try_from(self.month - 1).ok().and_then(|index| MONTHS.get(index)).unwrap_or(&"Jan");
        format!("{month} {:2} {:02}:{:02}:{:02}", self.day, self.hour, self.minute, self.second)
    }
}

/// `2026-01-31 10:00:00 UTC (GMT+0000)`
impl fmt::Display for LocalTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second, zone, offset } = self;
        let (sign, offset) = if *offset < 0 { ('-', -offset) } else { ('+', *offset) };
        write!(formatter, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} {zone} ")?;
        write!(formatter, "(GMT{sign}{:02}{:02})", offset / 60, offset % 60)
    }
}

/// `H:MM:SS`
pub(super) fn hours_minutes_seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_in_the_c_program() {
        let time = LocalTime {
            year: 2026,
            month: 11,
            day: 2,
            hour: 7,
            minute: 58,
            second: 6,
            zone: "NST".to_owned(),
            offset: -210,
        };
        assert_eq!(time.to_string(), "2026-11-02 07:58:06 NST (GMT-0330)");
        assert_eq!(time.prefix(), "[07:58:06] ");
        assert_eq!(time.syslog(), "Nov  2 07:58:06");
        let berlin = LocalTime { zone: "CET".to_owned(), offset: 60, ..time };
        assert_eq!(berlin.to_string(), "2026-11-02 07:58:06 CET (GMT+0100)");
    }

    #[test]
    fn hours_are_not_padded() {
        assert_eq!(hours_minutes_seconds(Duration::from_secs(3_723)), "1:02:03");
        assert_eq!(hours_minutes_seconds(Duration::from_secs(360_000)), "100:00:00");
    }

    #[test]
    fn the_system_clock_gives_a_plausible_time() {
        let time = LocalTime::of(SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000));
        assert_eq!((time.year, time.month), (2020, 9));
        assert!((12..=14).contains(&time.day) && !time.zone.is_empty(), "{time}");
    }
}
