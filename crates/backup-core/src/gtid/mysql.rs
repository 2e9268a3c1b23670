//! GTIDs of MySQL: `uuid:number`, `uuid:tag:number`, and sets of them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use uuid::Uuid;

use super::interval::{Interval, Intervals};
use super::{MAX_GNO, malformed};
use crate::error::{Error, Result};

/// The tag of a GTID (MySQL 8.3 and later): up to 32 of `a-z`, `0-9` and `_`, no digit first.
///
/// Upper case is accepted and becomes lower case, as in the server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GtidTag(Box<str>);

impl GtidTag {
    /// The longest tag in bytes.
    pub const MAX_LEN: usize = 32;

    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GtidTag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        let valid = (1..=GtidTag::MAX_LEN).contains(&text.len())
            && text.bytes().all(word)
            && !text.starts_with(|c: char| c.is_ascii_digit());
        if !valid {
            return Err(malformed("GTID", text, "a tag of 1 to 32 letters, digits and _"));
        }
        Ok(GtidTag(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for GtidTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What counts transactions: a server's UUID, or one of its tags. MySQL calls it a TSID,
/// transaction source identifier.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tsid {
    /// The `server_uuid` of the server where the transaction was first committed.
    pub uuid: Uuid,
    /// The tag, if it has one.
    pub tag: Option<GtidTag>,
}

impl From<Uuid> for Tsid {
    fn from(uuid: Uuid) -> Self {
        Tsid { uuid, tag: None }
    }
}

impl fmt::Display for Tsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.uuid)?;
        self.tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))
    }
}

/// The name of one transaction of MySQL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MySqlGtid {
    tsid: Tsid,
    gno: u64,
}

impl MySqlGtid {
    /// The transaction `gno` of `tsid`.
    ///
    /// # Errors
    /// When `gno` is not in 1..=[`MAX_GNO`].
    pub fn new(tsid: impl Into<Tsid>, gno: u64) -> Result<Self> {
        check_gno(gno)?;
        Ok(MySqlGtid { tsid: tsid.into(), gno })
    }

    /// Who counted it.
    #[must_use]
    pub fn tsid(&self) -> &Tsid {
        &self.tsid
    }

    /// Its number, 1..=[`MAX_GNO`].
    #[must_use]
    pub fn gno(&self) -> u64 {
        self.gno
    }
}

impl fmt::Display for MySqlGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.tsid, self.gno)
    }
}

impl FromStr for MySqlGtid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut cursor = Cursor::new("GTID", text);
        let mut tsid = Tsid::from(cursor.uuid()?);
        cursor.expect(':')?;
        if let Some(tag) = cursor.tag()? {
            tsid.tag = Some(tag);
            cursor.expect(':')?;
        }
        let gno = cursor.gno()?;
        if !cursor.rest.is_empty() {
            return Err(cursor.expected("the end of the GTID"));
        }
        MySqlGtid::new(tsid, gno)
    }
}

/// A set of transactions of MySQL, such as `@@gtid_executed`.
///
/// The text is what the server prints and reads: `uuid:1-5:7:tag:1-3,uuid:2`. `{}` puts it on one
/// line; `{:#}` breaks the line after each comma, exactly as the server does. Reading takes any
/// order, overlaps, white space, stray commas and upper case, as the server does. It refuses some
/// text that the server takes, because it means something else than it seems to, or not the same to
/// every version: a UUID or a tag without numbers and a range that ends before it starts (the server
/// reads nothing), numbers that start with 0 (octal before 9.x), UUIDs without hyphens or in braces
/// (malformed before 9.x).
///
/// ```
/// use backup_core::MySqlGtidSet;
/// let server: MySqlGtidSet = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7-9".parse()?;
/// let backup: MySqlGtidSet = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-4".parse()?;
/// assert!(backup.is_subset(&server));
/// let missing = server.subtract(&backup);
/// assert_eq!(missing.to_string(), "3e11fa47-71ca-11e1-9e33-c80aa9429562:5:7-9");
/// assert_eq!(missing.count(), 4);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct MySqlGtidSet {
    /// No value is empty.
    sources: BTreeMap<Tsid, Intervals>,
}

impl MySqlGtidSet {
    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// How many transactions it holds; `u64::MAX` if there are more.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.sources.values().fold(0, |sum, list| sum.saturating_add(list.count()))
    }

    /// Whether the transaction is in the set.
    #[must_use]
    pub fn contains(&self, gtid: &MySqlGtid) -> bool {
        self.sources.get(&gtid.tsid).is_some_and(|list| list.contains(gtid.gno))
    }

    /// Adds one transaction.
    pub fn add(&mut self, gtid: &MySqlGtid) {
        let new = Interval { start: gtid.gno, end: gtid.gno + 1 };
        // Not `entry`: that would copy the tag of every transaction of a long log.
        match self.sources.get_mut(&gtid.tsid) {
            Some(list) => list.add(new),
            None => {
                self.sources.insert(gtid.tsid.clone(), Intervals::new(vec![new]));
            }
        }
    }

    /// Adds the transactions of `range`.
    ///
    /// # Errors
    /// When the range is empty or not within 1..=[`MAX_GNO`].
    pub fn add_range(&mut self, tsid: impl Into<Tsid>, range: RangeInclusive<u64>) -> Result<()> {
        let new = interval(*range.start(), *range.end())?;
        self.sources.entry(tsid.into()).or_default().add(new);
        Ok(())
    }

    /// What is in this set or in `other`.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut result = self.clone();
        for (tsid, list) in &other.sources {
            let both = result.sources.get(tsid).map_or_else(|| list.clone(), |l| l.union(list));
            result.sources.insert(tsid.clone(), both);
        }
        result
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        self.each(|tsid, list| other.sources.get(tsid).map_or(list.clone(), |o| list.subtract(o)))
    }

    /// What is in this set and in `other`.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        self.each(|tsid, list| {
            other.sources.get(tsid).map_or_else(Intervals::default, |o| list.intersect(o))
        })
    }

    /// What is in this set, of those who counted any transaction of `other`, behind the last that it has of them.
    #[must_use]
    pub fn behind(&self, other: &Self) -> Self {
        self.each(|tsid, list| match other.last(tsid) {
            Some(last) => {
                list.subtract(&Intervals::new(vec![Interval { start: 1, end: last + 1 }]))
            }
            None => Intervals::default(),
        })
    }

    /// What is in this set of those who are `wanted`.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(&Tsid) -> bool) -> Self {
        self.each(|tsid, list| if wanted(tsid) { list.clone() } else { Intervals::default() })
    }

    /// Whether every transaction of this set is in `other`.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.sources.iter().all(|(tsid, list)| {
            other.sources.get(tsid).is_some_and(|others| list.is_subset(others))
        })
    }

    /// The ranges, in the order of the text.
    pub fn intervals(&self) -> impl Iterator<Item = (&Tsid, RangeInclusive<u64>)> {
        self.sources.iter().flat_map(|(tsid, list)| {
            list.as_slice().iter().map(move |i| (tsid, i.start..=i.end - 1))
        })
    }

    /// Who counted the transactions of this set.
    pub fn tsids(&self) -> impl Iterator<Item = &Tsid> {
        self.sources.keys()
    }

    /// The highest number of `tsid` in the set.
    #[must_use]
    pub fn last(&self, tsid: &Tsid) -> Option<u64> {
        self.sources.get(tsid)?.as_slice().last().map(|i| i.end - 1)
    }

    /// Whether any transaction has a tag, which servers before 8.3 do not understand.
    #[must_use]
    pub fn has_tags(&self) -> bool {
        self.sources.keys().any(|tsid| tsid.tag.is_some())
    }

    fn each(&self, change: impl Fn(&Tsid, &Intervals) -> Intervals) -> Self {
        let changed = self.sources.iter().map(|(tsid, list)| (tsid.clone(), change(tsid, list)));
        MySqlGtidSet { sources: changed.filter(|(_, list)| !list.is_empty()).collect() }
    }

    /// The lists as the codec writes them.
    pub(super) fn lists(&self) -> impl ExactSizeIterator<Item = (&Tsid, &[Interval])> {
        self.sources.iter().map(|(tsid, list)| (tsid, list.as_slice()))
    }

    /// Sorts and joins what a parser collected; no list may be empty.
    pub(super) fn from_lists(lists: BTreeMap<Tsid, Vec<Interval>>) -> Self {
        let sources = lists.into_iter().map(|(tsid, list)| (tsid, Intervals::new(list)));
        MySqlGtidSet { sources: sources.collect() }
    }
}

impl Extend<MySqlGtid> for MySqlGtidSet {
    fn extend<I: IntoIterator<Item = MySqlGtid>>(&mut self, gtids: I) {
        gtids.into_iter().for_each(|gtid| self.add(&gtid));
    }
}

impl FromIterator<MySqlGtid> for MySqlGtidSet {
    fn from_iter<I: IntoIterator<Item = MySqlGtid>>(gtids: I) -> Self {
        let mut set = MySqlGtidSet::default();
        set.extend(gtids);
        set
    }
}

impl fmt::Display for MySqlGtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut previous = None;
        for (tsid, list) in &self.sources {
            if previous != Some(tsid.uuid) {
                if previous.is_some() {
                    f.write_str(if f.alternate() { ",\n" } else { "," })?;
                }
                write!(f, "{}", tsid.uuid)?;
                previous = Some(tsid.uuid);
            }
            if let Some(tag) = &tsid.tag {
                write!(f, ":{tag}")?;
            }
            for &Interval { start, end } in list.as_slice() {
                write!(f, ":{start}")?;
                if end - start > 1 {
                    write!(f, "-{}", end - 1)?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for MySqlGtidSet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut cursor = Cursor::new("GTID set", text);
        let mut lists: BTreeMap<Tsid, Vec<Interval>> = BTreeMap::new();
        loop {
            while cursor.eat(',') {}
            if cursor.rest.is_empty() {
                return Ok(MySqlGtidSet::from_lists(lists));
            }
            let mut tsid = Tsid::from(cursor.uuid()?);
            let mut without_numbers = true;
            while cursor.eat(':') {
                if let Some(tag) = cursor.tag()? {
                    tsid.tag = Some(tag);
                    without_numbers = true;
                } else {
                    lists.entry(tsid.clone()).or_default().push(cursor.interval()?);
                    without_numbers = false;
                }
            }
            if without_numbers {
                return Err(cursor.expected("':' and a number"));
            }
            if !cursor.rest.is_empty() && !cursor.rest.starts_with(',') {
                return Err(cursor.expected("':', ',' or the end"));
            }
        }
    }
}

fn check_gno(gno: u64) -> Result<u64> {
    if (1..=MAX_GNO).contains(&gno) {
        return Ok(gno);
    }
    Err(malformed("GTID", &gno.to_string(), "a number from 1 to 2^63-2"))
}

fn interval(first: u64, last: u64) -> Result<Interval> {
    if check_gno(first)? > check_gno(last)? {
        return Err(malformed("GTID", &format!("{first}-{last}"), "a range that rises"));
    }
    Ok(Interval { start: first, end: last + 1 })
}

/// Reads the text of GTIDs; white space is allowed between any two tokens.
struct Cursor<'a> {
    what: &'static str,
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn new(what: &'static str, text: &'a str) -> Self {
        let mut cursor = Cursor { what, rest: text };
        cursor.skip(0);
        cursor
    }

    /// Drops `bytes` and the white space (C's `isspace`, as in the server) that follows.
    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest[bytes..].trim_start_matches(|c| matches!(c, ' ' | '\t'..='\r'));
    }

    fn expected(&self, token: &str) -> Error {
        malformed(self.what, self.rest, token)
    }

    fn eat(&mut self, token: char) -> bool {
        let found = self.rest.starts_with(token);
        if found {
            self.skip(token.len_utf8());
        }
        found
    }

    fn expect(&mut self, token: char) -> Result<()> {
        if self.eat(token) { Ok(()) } else { Err(self.expected(&format!("'{token}'"))) }
    }

    fn uuid(&mut self) -> Result<Uuid> {
        /// The one form that every version takes in a GTID: with hyphens, without braces.
        const LEN: usize = uuid::fmt::Hyphenated::LENGTH;
        let text = self.rest.get(..LEN).and_then(|text| Uuid::try_parse(text).ok());
        let uuid = text.ok_or_else(|| self.expected("a UUID"))?;
        self.skip(LEN);
        Ok(uuid)
    }

    /// A tag, if what follows is no number.
    fn tag(&mut self) -> Result<Option<GtidTag>> {
        if !self.rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return Ok(None);
        }
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let word = &self.rest[..end.unwrap_or(self.rest.len())];
        let tag = word.parse()?;
        self.skip(word.len());
        Ok(Some(tag))
    }

    fn gno(&mut self) -> Result<u64> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let digits = &self.rest[..end];
        // Servers before 9.x take a leading 0 for octal or hexadecimal, which nobody means.
        let number = if digits.starts_with('0') { None } else { digits.parse().ok() };
        let Some(gno) = number.filter(|gno| check_gno(*gno).is_ok()) else {
            return Err(self.expected("a number from 1 to 2^63-2"));
        };
        self.skip(end);
        Ok(gno)
    }

    fn interval(&mut self) -> Result<Interval> {
        let first = self.gno()?;
        let last = if self.eat('-') { self.gno()? } else { first };
        interval(first, last)
    }
}
