//! Packets of the server's side: `len u24, seq u8, payload`.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A payload of this length goes on in the next packet.
const PART: usize = 0xff_ffff;
/// Nothing that a replica asks is longer; GTID sets are the longest part.
const MAX_REQUEST: usize = 64 << 20;

/// Reads packets; the sequence numbers of what a replica sends are its own business.
pub(super) struct Requests<R> {
    stream: R,
    pub(super) seq: u8,
}

impl<R: AsyncRead + Unpin> Requests<R> {
    pub(super) fn new(stream: R) -> Self {
        Requests { stream, seq: 0 }
    }

    /// The stream, of which nothing was read ahead.
    pub(super) fn into_inner(self) -> R {
        self.stream
    }

    /// The next payload.
    pub(super) async fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut payload = Vec::new();
        loop {
            let mut header = [0; 4];
            self.stream.read_exact(&mut header).await?;
            let len = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
            self.seq = header[3];
            if payload.len() + len > MAX_REQUEST {
                return Err(io::Error::other("a request is too long"));
            }
            let read = (&mut self.stream).take(len as u64).read_to_end(&mut payload).await?;
            if read < len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if len < PART {
                return Ok(payload);
            }
        }
    }
}

/// Writes packets.
pub(super) struct Answers<W> {
    stream: W,
    pub(super) seq: u8,
}

impl<W: AsyncWrite + Unpin> Answers<W> {
    pub(super) fn new(stream: W) -> Self {
        Answers { stream, seq: 0 }
    }

    /// Writes the parts of one payload; [`Answers::flush`] sends it.
    pub(super) async fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut left = total;
        // What of the current packet is not written yet.
        let mut room = 0;
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                if room == 0 {
                    room = left.min(PART);
                    self.header(room).await?;
                }
                let (now, later) = rest.split_at(rest.len().min(room));
                self.stream.write_all(now).await?;
                room -= now.len();
                left -= now.len();
                rest = later;
            }
        }
        if total.is_multiple_of(PART) {
            self.header(0).await?;
        }
        Ok(())
    }

    async fn header(&mut self, len: usize) -> io::Result<()> {
        let [a, b, c, _] = (len as u32).to_le_bytes();
        self.stream.write_all(&[a, b, c, self.seq]).await?;
        self.seq = self.seq.wrapping_add(1);
        Ok(())
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.stream.flush().await
    }

    /// Writes a payload and sends it.
    pub(super) async fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        self.write(&[payload]).await?;
        self.flush().await
    }

    /// OK.
    pub(super) async fn ok(&mut self) -> io::Result<()> {
        self.send(&[0, 0, 0, 2, 0, 0, 0]).await
    }

    /// An error.
    pub(super) async fn error(&mut self, code: u16, state: &str, text: &str) -> io::Result<()> {
        let mut payload = vec![0xff];
        payload.extend(code.to_le_bytes());
        payload.push(b'#');
        payload.extend(state.as_bytes());
        payload.extend(text.as_bytes());
        self.send(&payload).await
    }

    /// A result of one row.
    pub(super) async fn row(&mut self, columns: &[(&str, Option<&str>)]) -> io::Result<()> {
        let eof = [0xfe, 0, 0, 2, 0];
        self.write(&[&[columns.len() as u8]]).await?;
        for (name, _) in columns {
            let mut column = Vec::new();
            for text in ["def", "", "", "", name, ""] {
                column.push(text.len() as u8);
                column.extend(text.as_bytes());
            }
            // Fixed part: charset utf8, length, VAR_STRING, flags, decimals.
            column.extend([0x0c, 33, 0, 0, 1, 0, 0, 0xfd, 0, 0, 0, 0, 0]);
            self.write(&[&column]).await?;
        }
        self.write(&[&eof]).await?;
        let mut row = Vec::new();
        for (_, value) in columns {
            match value {
                None => row.push(0xfb),
                Some(text) => {
                    // Longer ones are not asked for.
                    row.push(text.len().min(250) as u8);
                    row.extend(&text.as_bytes()[..text.len().min(250)]);
                }
            }
        }
        self.write(&[&row]).await?;
        self.send(&eof).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_payloads_go_in_parts() {
        for len in [0, 1, PART - 1, PART, PART + 1, 2 * PART] {
            let payload = vec![7; len];
            let mut out = Answers::new(Vec::new());
            out.write(&[&payload[..len / 3], &payload[len / 3..]]).await.unwrap();
            let parts = len / PART + 1;
            assert_eq!(out.stream.len(), len + 4 * parts, "{len}");
            assert_eq!(usize::from(out.seq), parts);
            let mut back = Requests::new(&out.stream[..]);
            assert_eq!(back.read().await.unwrap(), payload);
        }
    }
}
