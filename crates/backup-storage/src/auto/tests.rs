use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

const MS: Duration = Duration::from_millis(1);

fn feed(auto: &Auto, frames: u32, for_store: Duration, for_thread: Duration) -> Compression {
    (0..frames).map(|_| auto.choose(Load { for_store, for_thread })).last().unwrap()
}

#[test]
fn a_slow_store_makes_it_compress_harder_and_slow_threads_less() {
    let auto = Auto::default();
    let zero = Duration::ZERO;
    assert_eq!(feed(&auto, 1000, zero, zero), Compression::Zstd(1), "the source is the slowest");
    assert_eq!(feed(&auto, LOOK, MS, zero), Compression::Zstd(3));
    assert_eq!(feed(&auto, 10 * LOOK, MS, zero), Compression::Zstd(9));
    assert_eq!(feed(&auto, 10 * LOOK, MS, MS), Compression::Zstd(9), "both alike: it stays");
    assert_eq!(feed(&auto, 20 * LOOK, zero, MS), Compression::Lz4);
}

#[test]
fn one_long_wait_for_a_pack_counts_for_all_its_frames() {
    let auto = Auto::default();
    // 90 frames run through when a pack was taken, each waits a little for a thread; the next
    // waits long for the store.
    for _ in 0..20 {
        feed(&auto, 90, Duration::ZERO, MS);
        feed(&auto, 1, 900 * MS, MS);
    }
    assert_eq!(feed(&auto, 1, Duration::ZERO, MS), Compression::Zstd(9));
}

proptest! {
    #[test]
    fn it_never_leaves_the_ladder(loads in prop::collection::vec((0u64..5000, 0u64..5000), 0..2000)) {
        let auto = Auto::default();
        for (for_store, for_thread) in loads {
            let load = Load {
                for_store: Duration::from_micros(for_store),
                for_thread: Duration::from_micros(for_thread),
            };
            prop_assert!(LADDER.contains(&auto.choose(load)));
        }
    }

    /// The whole pipeline in virtual time: whatever is slow, the backup takes little longer than
    /// with the best single compression.
    #[test]
    fn it_keeps_up(
        source in 20.0f64..2000.0,
        store in 5.0f64..1000.0,
        threads in 1usize..5,
        machine in 0.3f64..3.0,
    ) {
        let pipeline = Pipeline { source, store, threads, machine };
        let best = (0..LADDER.len()).map(|rung| pipeline.run(|_| rung)).fold(f64::MAX, f64::min);
        let auto = Auto::default();
        let took = pipeline.run(|load| {
            let chosen = auto.choose(load);
            LADDER.iter().position(|c| *c == chosen).unwrap()
        });
        prop_assert!(took < best * 1.35, "{took:.1} s where {best:.1} s would do: {pipeline:?}");
    }
}

/// MiB per second of a thread, and what remains of a MiB, for each rung: pages of InnoDB.
const SPEED: [f64; 5] = [600.0, 400.0, 250.0, 100.0, 60.0];
const REMAINS: [f64; 5] = [0.50, 0.37, 0.345, 0.325, 0.315];

/// Rates in MiB per second.
#[derive(Debug)]
struct Pipeline {
    source: f64,
    store: f64,
    threads: usize,
    machine: f64,
}

impl Pipeline {
    /// Seconds for 8 GiB in frames of 1 MiB and packs of 32 MiB, two of which may be on their way.
    fn run(&self, mut choose: impl FnMut(Load) -> usize) -> f64 {
        const FRAMES: usize = 8192;
        const PACK: f64 = 32.0;
        let mut threads = vec![0.0f64; self.threads];
        // When each pack on its way will be stored; they share the store's line.
        let mut on_their_way: VecDeque<f64> = VecDeque::new();
        let (mut line, mut pack, mut pack_ready) = (0.0f64, 0.0, 0.0f64);
        let mut now = 0.0f64;
        for _ in 0..FRAMES {
            now += 1.0 / self.source;
            let arrived = now;
            // A pack is being filled; with two more on their way there is no room.
            while on_their_way.front().is_some_and(|stored| *stored <= now) {
                on_their_way.pop_front();
            }
            if on_their_way.len() > 2 {
                now = on_their_way.pop_front().unwrap();
            }
            let for_store = now - arrived;
            let free = threads.iter_mut().min_by(|a, b| a.total_cmp(b)).unwrap();
            let began = now.max(*free);
            let load = Load {
                for_store: Duration::from_secs_f64(for_store),
                for_thread: Duration::from_secs_f64(began - now),
            };
            now = began;
            let rung = choose(load);
            *free = began + 1.0 / (SPEED[rung] * self.machine);
            pack += REMAINS[rung];
            pack_ready = pack_ready.max(*free);
            if pack >= PACK {
                line = line.max(pack_ready) + pack / self.store;
                on_their_way.push_back(line);
                (pack, pack_ready) = (0.0, 0.0);
            }
        }
        line.max(pack_ready) + pack / self.store
    }
}

#[test]
fn what_does_not_get_smaller_is_seen() {
    let mut state = 1u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    let noise: Vec<u8> = (0..1 << 20).map(|_| random()).collect();
    let hex: Vec<u8> = noise.iter().map(|b| b"0123456789abcdef"[usize::from(b & 15)]).collect();
    assert!(!gets_smaller(&noise));
    assert!(gets_smaller(&hex), "there are no repetitions, but an alphabet");
    assert!(gets_smaller(&vec![0; 1 << 20]));
    assert!(gets_smaller(&noise[..SAMPLE]), "small ones are just tried");
    for length in [2 * SAMPLE + 1, 2 * SAMPLE + PIECES, 100_001, 4 << 20] {
        let repeated: Vec<u8> = noise.iter().copied().cycle().take(length).collect();
        gets_smaller(&repeated);
    }
    // Pages whose beginnings alone do not get smaller.
    let mut pages = noise.clone();
    for page in pages.chunks_mut(16_384) {
        page[4096..].fill(0);
    }
    assert!(gets_smaller(&pages));
}
