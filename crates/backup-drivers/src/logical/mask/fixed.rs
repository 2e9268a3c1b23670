//! Fixed values, as they stand in a row packet when they come back from the server.

use serde_json::Value;

use super::super::catalog::{Column, LoadMode};
use super::column::INTEGERS;

/// A fixed value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fixed {
    Text(String),
    Number(f64),
    Integer(i128),
    Date([u16; 6]),
}

impl Fixed {
    /// `None` where the column cannot hold it: a server would make something else of it, and the restore
    /// would fail.
    pub(super) fn parse(text: &str, column: &Column) -> Option<Fixed> {
        let (data_type, unsigned) =
            (column.data_type.as_str(), column.column_type.contains("unsigned"));
        Some(match data_type {
            t if INTEGERS.contains(&t) => {
                let bits = match t {
                    "tinyint" => 8,
                    "smallint" => 16,
                    "mediumint" => 24,
                    "int" => 32,
                    _ => 64,
                };
                let range = match unsigned {
                    true => 0..1 << bits,
                    false => -(1i128 << (bits - 1))..1 << (bits - 1),
                };
                Fixed::Integer(text.parse().ok().filter(|number| range.contains(number))?)
            }
            "year" => {
                let fits = |year: &i128| *year == 0 || (1901..=2155).contains(year);
                let year = text.parse().ok().filter(fits)?;
                match column.load {
                    LoadMode::ShortYear => Fixed::Text(format!("{year:04}")),
                    _ => Fixed::Integer(year),
                }
            }
            "float" | "double" => {
                let fits = |number: &f64| {
                    let finite = match data_type {
                        "float" => (*number as f32).is_finite(),
                        _ => number.is_finite(),
                    };
                    finite && !(unsigned && *number < 0.0)
                };
                let number = text.parse().ok().filter(fits)?;
                match Digits::of(&column.column_type) {
                    Some(digits) if !digits.fit(number) => return None,
                    Some(digits) => Fixed::Number(digits.round(number)),
                    None => Fixed::Number(number),
                }
            }
            "decimal" => Fixed::Text(decimal(text, &column.column_type, unsigned)?),
            "date" | "datetime" | "timestamp" => Fixed::Date(date(text, data_type)?),
            "json" => Fixed::Text(normal(&serde_json::from_str(text).ok()?)),
            "enum" => {
                let member = format!("'{}'", text.replace('\'', "''"));
                let list = column.column_type.strip_prefix("enum(")?.strip_suffix(')')?;
                // Nothing that would be written with a backslash, and no comma that could end a member.
                let plain = !text.contains(['\\', '\n', '\r', '\0', ',']);
                (plain && list.split(',').any(|known| known == member))
                    .then(|| Fixed::Text(text.to_owned()))?
            }
            "uuid" => {
                let fits = |(at, byte): (usize, u8)| match at {
                    8 | 13 | 18 | 23 => byte == b'-',
                    _ => byte.is_ascii_hexdigit(),
                };
                let fine = text.len() == 36 && text.bytes().enumerate().all(fits);
                fine.then(|| Fixed::Text(text.to_ascii_lowercase()))?
            }
            _ => Fixed::Text(text.to_owned()),
        })
    }
}

/// How many digits a `FLOAT(7,3)` or `DOUBLE(7,3)` has, and how many of them after the point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Digits {
    all: i32,
    fraction: i32,
}

impl Digits {
    pub(super) fn of(column_type: &str) -> Option<Digits> {
        let sizes = column_type.strip_prefix("float(").or(column_type.strip_prefix("double("))?;
        let (all, fraction) = sizes.split_once(')')?.0.split_once(',')?;
        Some(Digits { all: all.trim().parse().ok()?, fraction: fraction.trim().parse().ok()? })
    }

    /// Rounds as the servers do, bit by bit, so that they find nothing to be rounded: the part after the point alone.
    pub(super) fn round(self, number: f64) -> f64 {
        let shift = 10_f64.powi(self.fraction);
        number.floor() + ((number - number.floor()) * shift).round_ties_even() / shift
    }

    /// A number of at most `most` digits that has as many as this allows, out of `any` whole number.
    pub(super) fn number(self, most: i32, any: impl FnOnce(u64) -> u64) -> f64 {
        let digits = self.all.clamp(0, most);
        self.round(any(10_u64.pow(digits.unsigned_abs())) as f64 / 10_f64.powi(self.fraction))
    }

    /// Whether a number has no more digits.
    fn fit(self, number: f64) -> bool {
        let text = number.abs().to_string();
        let fraction = text.split_once('.').map_or(0, |(_, digits)| digits.len());
        let whole = 10_f64.powi(self.all - self.fraction);
        fraction <= usize::try_from(self.fraction).unwrap_or(0) && number.abs() < whole
    }
}

/// How many digits a `DECIMAL(10,2)` has, and how many of them after the point.
pub(super) fn sizes(column_type: &str) -> Option<(usize, usize)> {
    let mut sizes = column_type.split(['(', ',', ')']).skip(1).map(|size| size.trim().parse().ok());
    Some((sizes.next()??, sizes.next()??))
}

/// A decimal number with as many digits after the point as its column has.
fn decimal(text: &str, column_type: &str, unsigned: bool) -> Option<String> {
    let (precision, scale) = sizes(column_type)?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let whole = whole.trim_start_matches('0');
    let fits = !digits.is_empty()
        && digits != "."
        && all_digits(whole)
        && all_digits(fraction)
        && whole.len() <= precision.checked_sub(scale)?
        && fraction.len() <= scale;
    let zero = (whole.len() + fraction.len() == 0)
        || (whole.is_empty() && fraction.bytes().all(|b| b == b'0'));
    if !fits || (negative && unsigned && !zero) {
        return None;
    }
    let sign = if negative && !zero { "-" } else { "" };
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(match scale {
        0 => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{fraction:0<scale$}"),
    })
}

fn date(text: &str, data_type: &str) -> Option<[u16; 6]> {
    let mut parts = [0; 6];
    let numbers: Vec<&str> = text.split(['-', ' ', 'T', ':']).collect();
    if !(3..=6).contains(&numbers.len()) || (data_type == "date" && numbers.len() > 3) {
        return None;
    }
    for (part, number) in parts.iter_mut().zip(numbers) {
        *part = number.parse().ok()?;
    }
    let [year, month, day, hour, minute, second] = parts;
    let fine = year <= 9999 && month <= 12 && day <= 31 && hour < 24 && minute < 60 && second < 60;
    // What every server keeps, in whatever time zone the text is meant.
    let kept = data_type != "timestamp"
        || parts == [0; 6]
        || ((1971..=2037).contains(&year) && month > 0 && (1..=28).contains(&day));
    (fine && kept).then_some(parts)
}

/// A document as MySQL prints it: names in the order of their length, spaces after `:` and `,`.
fn normal(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_by_key(|(name, _)| (name.len(), name.as_bytes()));
            let members: Vec<String> = members
                .into_iter()
                .map(|(name, value)| format!("{}: {}", Value::from(name.as_str()), normal(value)))
                .collect();
            format!("{{{}}}", members.join(", "))
        }
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(normal).collect();
            format!("[{}]", values.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(column_type: &str, text: &str) -> Option<Fixed> {
        let data_type = column_type.split(['(', ' ']).next().unwrap().to_owned();
        let column = Column {
            name: "c".into(),
            column_type: column_type.into(),
            data_type,
            fraction_digits: None,
            charset: None,
            load: match column_type {
                "year(2)" => LoadMode::ShortYear,
                _ => LoadMode::Direct,
            },
        };
        Fixed::parse(text, &column)
    }

    #[test]
    fn a_value_is_what_the_server_gives_back() {
        for (column, text, expected) in [
            ("decimal(5,2)", "5", "5.00"),
            ("decimal(5,2)", "-0.5", "-0.50"),
            ("decimal(5,2)", "-0", "0.00"),
            ("decimal(5,2) unsigned", "007.1", "7.10"),
            ("decimal(3,0)", "999", "999"),
            (
                "json",
                r#"{"bb":1,"a":[1,{"é":"\n\"" }],"c":null}"#,
                r#"{"a": [1, {"é": "\n\""}], "c": null, "bb": 1}"#,
            ),
            ("enum('m','f','it''s')", "it's", "it's"),
            (
                "uuid",
                "123E4567-E89B-12D3-A456-426614174000",
                "123e4567-e89b-12d3-a456-426614174000",
            ),
            ("varchar(3)", "any", "any"),
            ("year(2)", "0", "0000"),
            ("year(2)", "1950", "1950"),
        ] {
            assert_eq!(parse(column, text), Some(Fixed::Text(expected.into())), "{column} {text}");
        }
        assert_eq!(parse("float(7,3)", "-9999.999"), Some(Fixed::Number(-9999.999)));
        assert_eq!(parse("double(4,4)", "0.5"), Some(Fixed::Number(0.5)));
        assert_eq!(parse("float", "1.23456"), Some(Fixed::Number(1.23456)));
        assert_eq!(parse("tinyint(1)", "-128"), Some(Fixed::Integer(-128)));
        assert_eq!(
            parse("bigint(20) unsigned", "18446744073709551615"),
            Some(Fixed::Integer(u64::MAX.into()))
        );
        assert_eq!(
            parse("timestamp(6)", "2000-01-02 03:04:05"),
            Some(Fixed::Date([2000, 1, 2, 3, 4, 5]))
        );
    }

    #[test]
    fn what_a_column_cannot_hold_is_refused() {
        for (column, text) in [
            ("decimal(5,2)", "1000"),
            ("decimal(5,2)", "1.234"),
            ("decimal(5,2)", "1.2.3"),
            ("decimal(5,2)", "."),
            ("decimal(5,2)", ""),
            ("decimal(5,2) unsigned", "-1"),
            ("tinyint(1)", "300"),
            ("int(10) unsigned", "-1"),
            ("mediumint(9)", "8388608"),
            ("year(4)", "1900"),
            ("float", "1e39"),
            ("double unsigned", "-1"),
            ("float(7,3)", "1.2345"),
            ("float(7,3)", "10000"),
            ("double(7,3) unsigned", "99999.5"),
            ("enum('m','f')", "q"),
            ("enum('m','f')", "M"),
            ("enum('a,b')", "a"),
            ("enum('m','f')", "m','f"),
            ("uuid", "no"),
            ("json", "{no"),
            ("timestamp", "1960-01-01"),
            ("date", "2024-13-01"),
            ("date", "2024-01-01 10:00:00"),
            ("date", "2024"),
            ("datetime", "10000-01-01"),
        ] {
            assert_eq!(parse(column, text), None, "{column} {text}");
        }
    }
}
