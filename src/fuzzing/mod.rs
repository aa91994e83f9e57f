//! What the fuzz targets call: each function takes any bytes, makes a case of them, and panics where something does not hold.
//!
//! Only there under `cfg(fuzzing)`, and in this crate's own tests, which run the kept corpus.

mod checkpoint;
mod entry_id;
mod letter;
mod source;

pub use checkpoint::checkpoint;
pub use entry_id::entry_id;
pub use letter::letter;

pub use crate::consumer::fuzzing::{machine, tracker};
pub use source::Source;

#[cfg(test)]
mod tests {
    use super::*;

    type Target = fn(&[u8]);

    const TARGETS: &[(&str, Target)] = &[
        ("checkpoint", checkpoint),
        ("entry_id", entry_id),
        ("letter", letter),
        ("machine", machine),
        ("tracker", tracker),
    ];

    #[test]
    fn the_kept_corpus_holds() {
        for (name, target) in TARGETS {
            let folder = format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
            let mut files = 0;
            for file in std::fs::read_dir(folder).unwrap() {
                target(&std::fs::read(file.unwrap().path()).unwrap());
                files += 1;
            }
            assert!(files > 0, "{name}");
        }
    }

    /// Without a fuzzer: bytes by chance, which also find what is not deep.
    #[test]
    fn bytes_by_chance_hold() {
        let mut random = fastrand::Rng::with_seed(7);
        for (_, target) in TARGETS {
            for _ in 0..2_000 {
                let data: Vec<u8> = (0..random.usize(0..300)).map(|_| random.u8(..)).collect();
                target(&data);
            }
        }
    }
}
