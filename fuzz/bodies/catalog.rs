//! Catalogs of data files: any bytes are one or are refused, no path leads elsewhere, and what was read is
//! written as what is read again.

use backup_drivers::files::Catalog;

pub fn run(bytes: &[u8]) {
    let Ok(catalog) = Catalog::parse(bytes) else { return };
    for entry in &catalog.entries {
        let safe = |part: &str| !part.is_empty() && part != "." && part != "..";
        assert!(entry.path.split('/').all(safe) && !entry.path.contains('\0'), "{:?}", entry.path);
        let _ = (entry.artifact(), entry.layout());
    }
    let again = catalog.to_bytes().expect("it was JSON");
    assert_eq!(Catalog::parse(&again).ok(), Some(catalog));
}

pub fn seeds() -> Vec<Vec<u8>> {
    let catalog = concat!(
        r#"{"files_format":1,"state":"unprepared","settings":{"page_size":16384,"lower_case_table_names":0,"#,
        r#""variables":{"innodb_undo_directory":"/undo"},"plugins":["x=y.so"],"keyring":["ring"]},"#,
        r#""left_out":[{"path":"binlog.000001","reason":"log"}]}"#,
        "\n",
        r#"{"path":"shop","kind":"directory","mode":448,"uid":1,"gid":1,"modified":"2026-11-20T10:15:30Z"}"#,
        "\n",
        r#"{"path":"shop/t.ibd","kind":"file","bytes":65536,"page_size":16384,"space_id":7,"sparse":true,"mode":432,"#,
        r#""uid":1,"gid":1,"owner":"mysql","group":"mysql","modified":"2026-11-20T10:15:30Z","origin":"/other/t.ibd","#,
        r#""stored_as":"shop/u.ibd","changes":true}"#,
        "\n",
        r#"{"entries":2}"#,
        "\n"
    );
    vec![
        catalog.as_bytes().to_vec(),
        b"{\"files_format\":1,\"state\":\"clean\"}\n{\"entries\":0}\n".to_vec(),
    ]
}
