//! Whoever connects to the replay server, and whatever they say: they do not get in without the
//! password, nobody panics, and no length makes room for itself.

use backup_core::{Flavor, Secret, Uuid};
use tokio::io::sink;

use super::super::event::Checksum;
use super::packet::{Answers, Requests};
use super::session::Identity;

const INPUTS: u64 = 20_000;

fn packet(seq: u8, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_le_bytes();
    [&[len[0], len[1], len[2], seq][..], payload].concat()
}

/// What a replica says, with some answer to the nonce.
fn conversation(plugin: &[u8], answer: &[u8]) -> Vec<u8> {
    let mut login = (1_u32 | 0x200 | 0x8000 | 0x8_0000).to_le_bytes().to_vec();
    login.extend([0, 0, 0, 1, 0x2d]);
    login.extend([0; 23]);
    login.extend(b"holdfast-1\0");
    login.push(answer.len() as u8);
    login.extend(answer);
    login.extend(plugin);
    login.push(0);
    let query = |sql: &str| packet(0, &[&[3], sql.as_bytes()].concat());
    let mut dump = vec![0x1e];
    dump.extend([0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0]);
    dump.extend([0; 8]);
    [
        packet(1, &login),
        query("SELECT @@GLOBAL.SERVER_ID"),
        query("SET @master_heartbeat_period = 5000000000, @source_heartbeat_period = 1"),
        query("SET @slave_connect_state='0-1-5,7-2-9'"),
        packet(0, &[0x15, 1, 0, 0, 0, 0, 0, 0]),
        packet(0, &dump),
        packet(0, b"\x12\x04\0\0\0\0\0\x01\0\0\0holdfast.000001"),
    ]
    .concat()
}

#[tokio::test]
async fn strangers_stay_out() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as usize % below.max(1)
    };
    let plugins: [&[u8]; 2] = [b"caching_sha2_password", b"mysql_native_password"];
    let mut dumps = 0;
    for n in 0..INPUTS {
        let flavor = if n % 2 == 0 { Flavor::MySql } else { Flavor::MariaDb };
        let identity = Identity {
            flavor,
            version: "9.7.4".into(),
            server_id: 7,
            uuid: Uuid::from_u128(7),
            user: "holdfast-1".into(),
            password: Secret::new("secret".to_owned()),
            gtid_mode: "ON".into(),
            checksum: Checksum::Crc32,
            tls: n % 4 < 2,
        };
        let mut bytes = conversation(plugins[next(2)], &vec![7; [20, 32][next(2)]]);
        for _ in 0..next(5) {
            let at = next(bytes.len());
            match next(4) {
                0 => bytes[at] ^= 1 << next(8),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xfb, 0xfc, 0xfe, 0xff][next(8)],
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, next(256) as u8),
            }
        }
        let mut requests = Requests::new(&bytes[..]);
        let mut answers = Answers::new(sink());
        let nonce = [b'n'; 20];
        // The end of the bytes is an error of the line.
        if let Ok(login) = requests.read().await
            && let Ok(signed_in) =
                identity.sign_in(&nonce, &login, &mut requests, &mut answers).await
        {
            assert!(!signed_in, "{:?}", bytes.escape_ascii().to_string());
        }
        // As if it had been let in.
        if let Ok(Some(_)) = identity.negotiate(&mut requests, &mut answers).await {
            dumps += 1;
        }
    }
    assert!(dumps > 1000, "{dumps}");
}
