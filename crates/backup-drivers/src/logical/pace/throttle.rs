//! Limits of the load of a source.

use std::fmt;
use std::str::FromStr;

use backup_core::{Error, Result};
use jiff::SignedDuration;

/// The load of a source beyond which a dump waits. `Display` writes what `FromStr` reads.
///
/// ```
/// use backup_drivers::logical::Throttle;
/// let throttle: Throttle = "threads-running=30,replica-lag=1m".parse()?;
/// assert_eq!((throttle.threads_running, throttle.replica_lag), (Some(30), Some(60)));
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Throttle {
    /// Sessions of others that run a statement (`Threads_running`).
    pub threads_running: Option<u64>,
    /// Seconds that a replica is behind its source.
    pub replica_lag: Option<u64>,
    /// Share of the last ten seconds in which something waited for a processor of this machine, in
    /// percent (`some avg10` of `/proc/pressure/cpu`).
    pub cpu_pressure: Option<u8>,
    /// The same for its disks (`/proc/pressure/io`).
    pub io_pressure: Option<u8>,
}

const FORMS: &str = "write one or more of threads-running=30, replica-lag=10s, cpu-pressure=40, \
                     io-pressure=40 (percent), separated by commas";

impl FromStr for Throttle {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut throttle = Throttle::default();
        for limit in text.split(',').map(str::trim) {
            throttle.set(limit).map_err(|why| {
                Error::usage(format!("`{limit}` is no limit to throttle by: {why}"))
                    .with_remedy(FORMS)
            })?;
        }
        Ok(throttle)
    }
}

impl Throttle {
    fn set(&mut self, limit: &str) -> Result<(), &'static str> {
        let (name, value) = limit.split_once('=').ok_or("there is no `=` in it")?;
        match name {
            "threads-running" => put(&mut self.threads_running, count(value)),
            "replica-lag" => put(&mut self.replica_lag, seconds(value)),
            "cpu-pressure" => put(&mut self.cpu_pressure, percent(value)),
            "io-pressure" => put(&mut self.io_pressure, percent(value)),
            _ => Err("its name is not known"),
        }
    }
}

fn put<T>(place: &mut Option<T>, value: Result<T, &'static str>) -> Result<(), &'static str> {
    match place.replace(value?) {
        None => Ok(()),
        Some(_) => Err("it is given twice"),
    }
}

fn count(text: &str) -> Result<u64, &'static str> {
    text.parse().ok().filter(|n| *n > 0).ok_or("it takes a number from 1 on")
}

fn seconds(text: &str) -> Result<u64, &'static str> {
    let wrong = "it takes a time in whole seconds, with its unit";
    let time: SignedDuration = text.parse().map_err(|_| wrong)?;
    let seconds = u64::try_from(time.as_secs()).map_err(|_| wrong)?;
    if seconds == 0 || time.subsec_nanos() != 0 { Err(wrong) } else { Ok(seconds) }
}

fn percent(text: &str) -> Result<u8, &'static str> {
    text.parse().ok().filter(|n| (1..100).contains(n)).ok_or("it takes a percentage from 1 to 99")
}

impl fmt::Display for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = [
            self.threads_running.map(|n| format!("threads-running={n}")),
            self.replica_lag.map(|n| format!("replica-lag={n}s")),
            self.cpu_pressure.map(|n| format!("cpu-pressure={n}")),
            self.io_pressure.map(|n| format!("io-pressure={n}")),
        ];
        let limits: Vec<String> = limits.into_iter().flatten().collect();
        f.write_str(&limits.join(","))
    }
}

#[cfg(test)]
mod tests {
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            threads_running in of(1_u64..), replica_lag in of(1_u64..1_000_000_000),
            cpu_pressure in of(1_u8..100), io_pressure in of(1_u8..100),
        ) {
            let throttle = Throttle { threads_running, replica_lag, cpu_pressure, io_pressure };
            prop_assume!(throttle != Throttle::default());
            prop_assert_eq!(throttle.to_string().parse::<Throttle>().unwrap(), throttle);
        }

        #[test]
        fn no_text_is_too_odd(text in ".*") {
            let _ = text.parse::<Throttle>();
        }
    }

    #[test]
    fn limits_are_named_and_wrong_ones_told_with_the_forms() {
        let text = " threads-running=30, replica-lag=2m,cpu-pressure=40,io-pressure=50";
        let throttle: Throttle = text.parse().unwrap();
        assert_eq!(
            throttle.to_string(),
            "threads-running=30,replica-lag=120s,cpu-pressure=40,io-pressure=50"
        );
        for (bad, why) in [
            ("", "no `=`"),
            ("30", "no `=`"),
            ("threads-running=30,", "no `=`"),
            ("threads=30", "not known"),
            ("threads-running=0", "from 1 on"),
            ("threads-running=-1", "from 1 on"),
            ("replica-lag=10", "unit"),
            ("replica-lag=0s", "whole seconds"),
            ("replica-lag=-5s", "whole seconds"),
            ("replica-lag=1500ms", "whole seconds"),
            ("cpu-pressure=100", "percentage"),
            ("io-pressure=40%", "percentage"),
            ("io-pressure=40,io-pressure=50", "twice"),
        ] {
            let report = bad.parse::<Throttle>().unwrap_err().report();
            assert!(report.contains(why) && report.contains("replica-lag=10s"), "{bad}: {report}");
        }
    }
}
