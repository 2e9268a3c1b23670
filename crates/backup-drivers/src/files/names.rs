//! Names of users and groups.

use std::collections::HashMap;

/// Users and groups of this machine, as far as its files tell: a directory service is not asked.
#[derive(Debug, Default)]
pub(super) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    pub(super) fn load() -> Self {
        let read = |path: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let mut names = HashMap::new();
            for line in text.lines() {
                // name:password:number:…
                let mut fields = line.split(':');
                if let (Some(name), Some(Ok(number))) =
                    (fields.next(), fields.nth(1).map(str::parse))
                {
                    names.entry(number).or_insert_with(|| name.to_owned());
                }
            }
            names
        };
        Names { users: read("/etc/passwd"), groups: read("/etc/group") }
    }

    pub(super) fn user(&self, number: u32) -> Option<String> {
        self.users.get(&number).cloned()
    }

    pub(super) fn group(&self, number: u32) -> Option<String> {
        self.groups.get(&number).cloned()
    }

    /// Whose number it is here: that of the name, and only without one that of the other machine.
    pub(super) fn user_number(&self, name: Option<&str>, number: u32) -> u32 {
        find(&self.users, name).unwrap_or(number)
    }

    pub(super) fn group_number(&self, name: Option<&str>, number: u32) -> u32 {
        find(&self.groups, name).unwrap_or(number)
    }
}

fn find(names: &HashMap<u32, String>, wanted: Option<&str>) -> Option<u32> {
    let wanted = wanted?;
    names.iter().find(|(_, name)| *name == wanted).map(|(number, _)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_for_more_than_its_number() {
        let names = Names::load();
        assert_eq!(names.user(0).as_deref(), Some("root"));
        assert_eq!(names.user_number(Some("root"), 4711), 0);
        assert_eq!(names.group_number(Some("no such group"), 4711), 4711);
        assert_eq!(names.user_number(None, 5), 5);
    }
}
