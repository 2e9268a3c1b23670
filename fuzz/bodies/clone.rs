//! Answers of a clone's donor: any bytes are read or refused, and no file is placed elsewhere.

use backup_drivers::clone::read_answer;

pub fn run(bytes: &[u8]) {
    read(bytes);
    // What has the right version and length gets further.
    if bytes.len() >= 12 {
        let mut head = bytes.to_vec();
        head[..4].copy_from_slice(&100u32.to_be_bytes());
        head[4..8].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
        read(&head);
    }
}

fn read(bytes: &[u8]) {
    if let Some(path) = read_answer(bytes) {
        let safe = |part: &str| !part.is_empty() && part != "." && part != "..";
        assert!(path.split('/').all(safe) && !path.chars().any(char::is_control), "{path:?}");
    }
}

fn descriptor(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = 12 + body.len() as u32;
    [&100u32.to_be_bytes()[..], &length.to_be_bytes(), &kind.to_be_bytes(), body].concat()
}

fn file(name: &[u8], flags: u16, space: u32, key: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(2u32.to_be_bytes());
    body.extend([114_688u64.to_be_bytes(); 2].concat());
    body.extend([space.to_be_bytes(), 4096u32.to_be_bytes()].concat());
    body.extend(flags.to_be_bytes());
    for number in [7, 3, 1, 1, name.len() as u32] {
        body.extend(u32::to_be_bytes(number));
    }
    body.extend(name);
    body.extend(key);
    descriptor(4, &body)
}

pub fn seeds() -> Vec<Vec<u8>> {
    let locator = descriptor(1, &[[7; 20].as_slice(), &[2, 1]].concat());
    let mut announced = 0x0103u32.to_le_bytes().to_vec();
    announced.push(12);
    announced.extend((locator.len() as u32).to_le_bytes());
    announced.extend(&locator);
    let texts = [&7u32.to_le_bytes()[..], b"version", &5u32.to_le_bytes(), b"9.7.4"].concat();
    vec![
        locator,
        descriptor(2, &[0; 12]),
        descriptor(3, &[[0, 0, 0, 2].as_slice(), &[1; 28], &[0, 1]].concat()),
        file(b"./shop/orders#p#p0.ibd\0", 8, 0x4021, &[]),
        file(b"/srv/ts/general.ibd\0", 0, 1 << 11, &[]),
        file(b"./secret/t.ibd\0", 32, 1 << 13, &[9; 64]),
        descriptor(5, &[[0, 0, 0, 3].as_slice(), &[0; 20], &[0, 0, 1, 0], &[0; 12]].concat()),
        announced,
        texts,
    ]
}
