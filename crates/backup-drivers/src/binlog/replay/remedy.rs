//! What to do where a transaction cannot be applied.

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
