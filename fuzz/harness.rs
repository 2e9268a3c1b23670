//! Fuzzing without cargo-fuzz: for tests of any toolchain. It knows nothing of coverage; changes of changes come
//! far all the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What is fuzzed, and how long inputs become at most: longer ones take time and find no more.
pub struct Harness {
    /// Its name.
    pub name: &'static str,
    /// Feeds it; a panic is a finding.
    pub run: fn(&[u8]),
    /// The longest input, in bytes.
    pub longest: usize,
}

impl Harness {
    /// `count` changed inputs beside the seeds, the same ones each time.
    pub fn short(&self, count: usize, seeds: &[Vec<u8>]) {
        let mut mutator = Mutator(0x9E37_79B9_7F4A_7C15);
        for input in seeds {
            self.survives(input);
        }
        for _ in 0..count {
            self.survives(&mutator.mutate(seeds, self.longest));
        }
    }

    /// Other inputs each time, on one core.
    #[allow(clippy::print_stdout, reason = "what a run by hand did")]
    pub fn long(&self, time: Duration, mut inputs: Vec<Vec<u8>>) {
        let started = Instant::now();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let mut mutator = Mutator(now.as_nanos() as u64 | 1);
        let seeds = inputs.len();
        let mut count = 0_u64;
        while started.elapsed() < time {
            let input = mutator.mutate(&inputs, self.longest);
            self.survives(&input);
            count += 1;
            // Changes of changes come further; the seeds stay.
            if mutator.next(64) == 0 {
                match inputs.len() {
                    0..4096 => inputs.push(input),
                    len => inputs[seeds + mutator.next(len - seeds)] = input,
                }
            }
        }
        println!("{}: {count} inputs in {} s", self.name, started.elapsed().as_secs());
    }

    fn survives(&self, input: &[u8]) {
        // The input is worth more than the place of the panic.
        if catch_unwind(AssertUnwindSafe(|| (self.run)(input))).is_err() {
            panic!("{} broke a promise for {:?}", self.name, input.escape_ascii().to_string());
        }
    }
}

/// What was found before, and must not come back.
pub fn regressions(name: &str) -> Vec<Vec<u8>> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/regressions");
    let Ok(entries) = std::fs::read_dir(all.join(name)) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// How many seconds a long run takes: `HOLDFAST_FUZZ_SECONDS`.
pub fn seconds() -> Duration {
    Duration::from_secs(std::env::var("HOLDFAST_FUZZ_SECONDS").unwrap().parse().unwrap())
}

/// Changes inputs, the same way each time for one seed.
struct Mutator(u64);

impl Mutator {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as usize % below.max(1)
    }

    /// One to eight changes of the kinds that find most: bits, bytes at the edges, pieces that move,
    /// are missing, come twice or from another input.
    fn mutate(&mut self, inputs: &[Vec<u8>], longest: usize) -> Vec<u8> {
        let mut bytes = inputs[self.next(inputs.len())].clone();
        for _ in 0..=self.next(8) {
            let at = self.next(bytes.len());
            let piece = 1 << self.next(8);
            let len = self.next(piece).min(bytes.len() - at);
            match self.next(7) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.next(8),
                1 if !bytes.is_empty() => {
                    bytes[at] = [0, 1, 9, 0x7f, 0x80, 0xfe, 0xff, b'"', b'{', b'-'][self.next(10)];
                }
                2 if !bytes.is_empty() => bytes[at] = self.next(256) as u8,
                3 => drop(bytes.drain(at..at + len)),
                4 => {
                    let piece = bytes[at..at + len].to_vec();
                    let to = self.next(bytes.len());
                    bytes.splice(to..to, piece);
                }
                5 => {
                    let other = &inputs[self.next(inputs.len())];
                    let from = self.next(other.len());
                    let to = (from + 1 + self.next(64)).min(other.len());
                    bytes.splice(at..at + len, other[from.min(to)..to].iter().copied());
                }
                _ => bytes.extend((0..len).map(|_| 0)),
            }
        }
        bytes.truncate(longest);
        bytes
    }
}
