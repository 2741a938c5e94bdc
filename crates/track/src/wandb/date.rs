//! `YYYYMMDD_HHMMSS` of a moment.

/// UTC; proleptic Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms").
pub(super) fn stamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153; // 0 is March
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}_{:02}{:02}{:02}", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// The stamp of the first second, from `seconds` on, that is later than the one in the name `offline-run-STAMP-ID`:
/// directories lie in the order in which they were begun, also those of one second or of a clock that was set back.
pub(super) fn stamp_after(seconds: u64, newest: Option<&str>) -> String {
    let Some(newest) = newest.and_then(|n| n.strip_prefix("offline-run-")?.get(..15)) else {
        return stamp(seconds);
    };
    // Stamps ascend with seconds.
    let (mut low, mut high) = (seconds, seconds + (1 << 36));
    while low < high {
        let middle = low + (high - low) / 2;
        if stamp(middle).as_str() > newest { high = middle } else { low = middle + 1 }
    }
    stamp(low)
}

#[cfg(test)]
mod tests {
    use super::{stamp, stamp_after};

    #[test]
    fn known_moments() {
        assert_eq!(stamp(0), "19700101_000000");
        assert_eq!(stamp(951_827_696), "20000229_123456");
        assert_eq!(stamp(1_767_225_599), "20251231_235959");
        assert_eq!(stamp_after(0, None), stamp(0));
        assert_eq!(stamp_after(9, Some("offline-run-19700101_000004-x")), stamp(9));
        assert_eq!(stamp_after(9, Some("offline-run-20251231_235959-x")), "20260101_000000");
    }
}
