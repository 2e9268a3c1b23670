//! What to do where a transaction cannot be applied.

use backup_core::ErrorKind;

use crate::connect::kind_of_server_error;

/// What to do where the target has no room.
pub(super) const FREE_SPACE: &str = "everything before it is applied; free space at the target, for its data, relay logs and temporary files, \
     then go on with `holdfast binlog apply`";

/// What to do where a private server of ours has none.
pub(super) const PRIVATE_SPACE: &str = "free space for the files that are restored, and in the directory for temporary files, where the private server \
     keeps relay logs and temporary files (--scratch-dir names another one with more room)";

/// Whether an error of an applier says that there is no room: by its number, or by that of the system in it.
pub(super) fn is_full(number: u32, text: &str) -> bool {
    u16::try_from(number).is_ok_and(|n| kind_of_server_error(n) == ErrorKind::Space)
        || [
            "No space left on device",
            "Out of disk space",
            "error 28 ",
            "errno: 28 ",
            "errno 28 ",
            "Errcode: 28 ",
            "failed with error 28",
            "error number 28.",
        ]
        .iter()
        .any(|words| text.contains(words))
}

/// The remedy for the server's error of this number.
pub(super) fn remedy(number: u32) -> &'static str {
    match number {
        // ER_XAER_NOTA
        1397 => {
            "an XA transaction was prepared before the backup was taken and committed after it: a logical \
             backup does not hold what is only prepared. Begin with an earlier backup (`holdfast restore \
             BACKUP …`), which has both halves in its binlogs"
        }
        // ER_NET_PACKET_TOO_LARGE
        1153 => {
            "raise max_allowed_packet at the target (as a replica it goes by replica_max_allowed_packet, on \
             MariaDB slave_max_allowed_packet), then go on with `holdfast binlog apply`"
        }
        _ => {
            "everything before it is applied; put right what the server complains of, or leave that \
             transaction out with --skip-gtid where that is right, and go on with `holdfast binlog apply`"
        }
    }
}
