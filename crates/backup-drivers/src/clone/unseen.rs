//! Tables that an account may not see, so that nobody knows whether a clone leaves them empty.

use std::collections::BTreeSet;

use backup_core::{Finding, Severity};

/// Where such tables are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unseen {
    /// One of the databases; `None` where not even those are known.
    database: Option<String>,
}

/// What lets an account see them.
const REMEDY: &str = "GRANT SELECT ON *.* lets it see";

impl Unseen {
    /// Told by what is granted to the account (`SHOW GRANTS`, with the roles that are active). `None` where it sees
    /// all tables of `databases`, or of every one.
    pub(super) fn of(grants: &[String], databases: Option<BTreeSet<String>>) -> Option<Unseen> {
        // What is taken back of a grant for all (partial revokes) may be anything.
        let revoked = grants.iter().any(|grant| grant.starts_with("REVOKE "));
        let granted = |on: &str| {
            grants.iter().filter_map(|grant| grant.strip_prefix("GRANT ")?.split_once(" ON ")).any(
                |(what, rest)| {
                    let reads =
                        what.split(", ").any(|one| one == "SELECT" || one == "ALL PRIVILEGES");
                    reads && rest.strip_prefix(on).is_some_and(|rest| rest.starts_with(" TO "))
                },
            )
        };
        if granted("*.*") && !revoked {
            return None;
        }
        let Some(databases) = databases else { return Some(Unseen { database: None }) };
        let own = |name: &&String| !["mysql", "sys"].contains(&name.as_str());
        databases.iter().filter(own).find_map(|name| {
            // There `_` stands for any character, and is escaped where it does not.
            let plain = name.replace('`', "``");
            let escaped = plain.replace('_', "\\_").replace('%', "\\%");
            let seen = [plain, escaped].iter().any(|name| granted(&format!("`{name}`.*")));
            (!seen).then(|| Unseen { database: Some(name.clone()) })
        })
    }

    fn problem(&self, user: &str) -> String {
        match &self.database {
            Some(database) => format!(
                "{user} may not see all tables of {database}: whether some are not InnoDB's, and come back empty, is \
                 not known"
            ),
            None => format!(
                "{user} may not see all tables: whether some are not InnoDB's, and come back empty, is not known"
            ),
        }
    }

    /// For a list of findings.
    pub(super) fn finding(&self, user: &str) -> Finding {
        Finding::new(Severity::Warning, "tables", self.problem(user), REMEDY)
    }

    /// For a list of warnings.
    pub(super) fn in_one_line(&self, user: &str) -> String {
        format!("{}; {REMEDY}", self.problem(user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_tell_what_is_seen() {
        let unseen = |grants: &[&str], databases: Option<&[&str]>| {
            let grants: Vec<String> = grants.iter().map(|text| (*text).to_owned()).collect();
            let databases =
                databases.map(|all| all.iter().map(|name| (*name).to_owned()).collect());
            Unseen::of(&grants, databases).map(|unseen| unseen.database)
        };
        let usage = "GRANT USAGE ON *.* TO `b`@`%`";
        let all = "GRANT RELOAD, SELECT, PROCESS ON *.* TO `b`@`%`";
        let one = "GRANT SELECT, INSERT ON `my\\_shop`.* TO `b`@`%`";
        let table = "GRANT SELECT ON `shop`.`t` TO `b`@`%`";
        assert_eq!(unseen(&[all], None), None);
        assert_eq!(
            unseen(&["GRANT ALL PRIVILEGES ON *.* TO `r`@`%` WITH GRANT OPTION"], None),
            None
        );
        assert_eq!(unseen(&[all, "REVOKE SELECT ON `a`.* FROM `b`@`%`"], None), Some(None));
        assert_eq!(unseen(&[usage], None), Some(None));
        assert_eq!(unseen(&[usage], Some(&["mysql", "sys"])), None);
        assert_eq!(unseen(&[usage, one], Some(&["my_shop", "mysql"])), None);
        let shop = Some(Some("shop".to_owned()));
        assert_eq!(unseen(&[usage, one, table], Some(&["my_shop", "shop"])), shop);
    }
}
