//! Moments, as users write them.

use jiff::civil::DateTime;
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::Disambiguation;
use jiff::{Timestamp, Zoned};

/// Reads a time with its zone. One that the clocks of the zone showed twice, or never, is refused with the
/// moments that it may mean.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    let text = text.trim();
    // Where there is a zone too, the offset has to be one of its own.
    if !text.contains('[')
        && let Ok(time) = text.parse::<Timestamp>()
    {
        return Ok(time);
    }
    let read = |which| DateTimeParser::new().disambiguation(which).parse_zoned(text);
    let (Ok(earlier), Ok(later)) = (read(Disambiguation::Earlier), read(Disambiguation::Later))
    else {
        return Err(format!(
            "`{text}` is no time with a zone; write 2026-11-20T10:15:30Z, 2026-11-20T18:15:30+08:00 \
             or 2026-11-20T11:15:30[Europe/Berlin]"
        ));
    };
    if earlier.timestamp() == later.timestamp() {
        return Ok(earlier.timestamp());
    }
    let shown = text.parse::<DateTime>().is_ok_and(|shown| shown == earlier.datetime());
    let zone = later.time_zone().iana_name().unwrap_or("the zone").to_owned();
    let choice =
        |at: &Zoned| format!("{} ({})", at.strftime("%Y-%m-%dT%H:%M:%S%.f%:z"), at.timestamp());
    let (first, second) = (choice(&earlier), choice(&later));
    Err(match shown {
        true => format!(
            "the clocks of {zone} showed `{text}` twice, as they were set back; write {first} or \
             {second}"
        ),
        false => format!(
            "the clocks of {zone} never showed `{text}`, as they were set forward; write {first} or \
             {second}"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn a_time_names_one_moment() {
        for (text, expected) in [
            ("2026-11-20T10:15:30Z", "2026-11-20T10:15:30Z"),
            ("2026-11-20T18:15:30+08:00", "2026-11-20T10:15:30Z"),
            (" 2026-11-20T11:15:30[Europe/Berlin] ", "2026-11-20T10:15:30Z"),
            ("2026-10-25T02:30:00+01:00", "2026-10-25T01:30:00Z"),
            ("2026-10-25T02:30:00+01:00[Europe/Berlin]", "2026-10-25T01:30:00Z"),
            ("2026-10-25T01:59:59[Europe/Berlin]", "2026-10-24T23:59:59Z"),
        ] {
            assert_eq!(time(text).unwrap().to_string(), expected, "{text}");
        }
        for text in
            ["", "yesterday", "2026-11-20T10:15:30", "2026-11-20", "2026-11-20T10:15[Nowhere/X]"]
        {
            assert!(time(text).unwrap_err().contains("is no time with a zone"), "{text}");
        }
        let contradiction = "2026-10-25T02:30:00+05:00[Europe/Berlin]";
        assert!(time(contradiction).unwrap_err().contains("is no time with a zone"));
    }

    #[test]
    fn a_time_that_clocks_show_twice_or_never_is_told_with_both_moments() {
        let twice = time("2026-10-25T02:30:00[Europe/Berlin]").unwrap_err();
        let never = time("2026-03-29T02:30:00[Europe/Berlin]").unwrap_err();
        assert!(twice.contains("Europe/Berlin showed") && twice.contains("twice"), "{twice}");
        assert!(never.contains("never showed"), "{never}");
        for (said, moments) in [
            (
                &twice,
                [
                    "2026-10-25T02:30:00+02:00 (2026-10-25T00:30:00Z)",
                    "2026-10-25T02:30:00+01:00 (2026-10-25T01:30:00Z)",
                ],
            ),
            (
                &never,
                [
                    "2026-03-29T01:30:00+01:00 (2026-03-29T00:30:00Z)",
                    "2026-03-29T03:30:00+02:00 (2026-03-29T01:30:00Z)",
                ],
            ),
        ] {
            for moment in moments {
                assert!(said.contains(moment), "{said}");
            }
        }
        // Each of them is taken as it is written there.
        for (text, expected) in [
            ("2026-10-25T02:30:00+02:00", "2026-10-25T00:30:00Z"),
            ("2026-03-29T03:30:00+02:00", "2026-03-29T01:30:00Z"),
        ] {
            assert_eq!(time(text).unwrap().to_string(), expected);
        }
    }
}
