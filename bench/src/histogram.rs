//! Counts durations in a few kilobytes: samples by the million would be the memory that is measured.

use std::time::Duration;

/// Each power of two is divided into so many buckets: a value is known to about 3 %.
const PER_DOUBLING: usize = 32;
const DOUBLINGS: usize = 32;

/// Durations by the microsecond, up to over an hour.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    max: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; PER_DOUBLING * DOUBLINGS], max: Duration::ZERO }
    }
}

impl Histogram {
    pub fn record(&mut self, duration: Duration) {
        self.counts[bucket(duration)] += 1;
        self.max = self.max.max(duration);
    }

    pub fn len(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The duration that this share of all does not exceed, rounded up to the end of its bucket.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (self.len() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                return upper_end(bucket).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let doubling = (micros / PER_DOUBLING as u64 + 1).ilog2() as usize;
    // Doubling `d` begins at `(2^d - 1) * PER_DOUBLING` and has buckets that are `2^d` wide.
    let begin = ((1_u64 << doubling) - 1) * PER_DOUBLING as u64;
    let within = ((micros - begin) >> doubling) as usize;
    (doubling * PER_DOUBLING + within).min(PER_DOUBLING * DOUBLINGS - 1)
}

fn upper_end(bucket: usize) -> Duration {
    let (doubling, within) = (bucket / PER_DOUBLING, bucket % PER_DOUBLING);
    let begin = ((1_u64 << doubling) - 1) * PER_DOUBLING as u64;
    Duration::from_micros(begin + ((within as u64 + 1) << doubling))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_bucket_that_holds_it() {
        let mut before = 0;
        for micros in (0..5_000).chain((5_000..100_000_000).step_by(997)) {
            let bucket = bucket(Duration::from_micros(micros));
            assert!(bucket >= before, "they ascend");
            let end = upper_end(bucket).as_micros() as u64;
            assert!(
                micros < end && end - micros <= 2 + micros / 16,
                "{micros} in a bucket that ends at {end}"
            );
            before = bucket;
        }
        assert_eq!(bucket(Duration::MAX), PER_DOUBLING * DOUBLINGS - 1);
    }

    #[test]
    fn quantiles_are_about_right() {
        let mut histogram = Histogram::default();
        (1..=1_000).for_each(|ms| histogram.record(Duration::from_millis(ms)));
        assert_eq!(histogram.len(), 1_000);
        let p95 = histogram.quantile(0.95).as_secs_f64();
        assert!((0.95..0.99).contains(&p95), "{p95}");
        assert_eq!(histogram.quantile(1.0), Duration::from_secs(1));
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
    }
}
