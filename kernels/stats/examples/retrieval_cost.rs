//! How long a retrieval takes: `cargo run --release --manifest-path kernels/stats/Cargo.toml --example retrieval_cost 3039 512`.

use std::time::Instant;

use argent_stats::{Similarity, StatsError, Vectors, best_ranks, nearest_neighbours};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn main() -> Result<(), StatsError> {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let (rows, dimension) =
        (numbers.first().copied().unwrap_or(3039), numbers.get(1).copied().unwrap_or(512));
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let all: Vec<f32> = (0..rows * dimension).map(|_| random.random_range(-1.0..1.0)).collect();
    let vectors = Vectors::new(all.chunks(dimension))?.prepared(Similarity::Cosine)?;
    let targets: Vec<Vec<usize>> = (0..rows).map(|row| vec![row]).collect();
    let begin = Instant::now();
    let ranks = best_ranks(&vectors, &vectors, &targets)?;
    println!(
        "{rows} x {rows} x {dimension}: ranks {:.2} s, {} first",
        begin.elapsed().as_secs_f64(),
        ranks.iter().filter(|rank| **rank == 1).count()
    );
    let begin = Instant::now();
    let nearest = nearest_neighbours(&vectors, &vectors, 51)?;
    println!("nearest 51 {:.2} s, {} lists", begin.elapsed().as_secs_f64(), nearest.len());
    Ok(())
}
