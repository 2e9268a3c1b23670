//! Dumps of other programs whose end, or whose beginning, tells less than most do.

use crate::home::Home;

const TABLE: &str = "CREATE TABLE `t` (`a` int);\nINSERT INTO `t` VALUES (1),(2);\n";

#[test]
fn dumps_that_clients_refuse_or_that_were_cut_are_found() {
    let home = Home::with_repo();
    let head = "/*!40111 SET @OLD_SQL_NOTES=@@SQL_NOTES, SQL_NOTES=0 */;\n";
    let end = "-- Dump completed on 2026-11-20 10:15:30\n";
    for (name, text, problem) in [
        ("open.sql", format!("{TABLE}/*!4"), "a comment that begins here is never closed"),
        ("nul.sql", format!("-- MySQL dump 10.13\n{TABLE}-- x\0\0\n{TABLE}{end}"), "NUL bytes"),
        ("block.sql", format!("{TABLE}/* \0 */\n{TABLE}"), "NUL bytes"),
        ("head.sql", format!("{head}{TABLE}"), "@OLD_SQL_NOTES at its beginning"),
    ] {
        home.write(name, &text);
        let run = home.run(["verify", "--file", name]).expect(11);
        assert!(run.stdout.contains(problem) || run.stderr.contains(problem), "{run:?}");
        home.on_repo(["import", name, "--cluster", "old"]).expect(8).says(problem);
        home.on_repo(["import", name, "--cluster", "old", "--salvage"]).expect(14);
        home.on_repo(["verify", "--cluster", "old", "--level", "logical"]).expect(0);
    }
}

#[test]
fn dumps_that_clients_take_are_whole() {
    let home = Home::with_repo();
    let head = "/*!40111 SET @OLD_SQL_NOTES=@@SQL_NOTES, SQL_NOTES=0 */;\n";
    let tail = "/*!40111 SET SQL_NOTES=@OLD_SQL_NOTES */;\n";
    for (name, text) in [
        ("mark.sql", format!("\u{feff}{TABLE}")),
        ("tail.sql", format!("{head}{TABLE}{tail}")),
        ("closed.sql", format!("{TABLE}/*!40000 */")),
    ] {
        home.write(name, &text);
        home.run(["verify", "--file", name]).expect(0);
        home.on_repo(["import", name, "--cluster", "old"]).expect(0);
        home.on_repo(["verify", "--cluster", "old", "--level", "logical"]).expect(0);
    }
}

#[test]
fn a_directory_comes_out_of_the_repository_as_it_was() {
    let home = Home::with_repo();
    let files = [
        ("dump/h d-schema-create.sql", "CREATE DATABASE `h d`;\n".to_owned()),
        ("dump/h d.t.00000.sql", TABLE.to_owned()),
        ("dump/p\u{e9}/100%.sql", TABLE.to_owned()),
        ("dump/metadata", "# Started dump at: x\n# Finished dump at: x\n".to_owned()),
    ];
    std::fs::create_dir_all(home.path("dump/p\u{e9}")).unwrap();
    for (name, text) in &files {
        home.write(name, text);
    }
    home.on_repo(["import", "dump", "--cluster", "old"]).expect(0);
    let export = ["export", "latest", "--cluster", "old", "--format", "files", "--output", "out"];
    home.on_repo(export).expect(0);
    for (name, text) in &files {
        let path = name.replacen("dump", "out/foreign/files", 1);
        assert_eq!(&std::fs::read_to_string(home.path(&path)).unwrap(), text, "{path}");
    }
}
