fn main() {
    for (m, n, k) in [(64usize, 128usize, 1728usize), (64, 432, 448), (512, 128, 1728), (1024, 1024, 1024), (8, 896, 216), (64, 96, 1728), (64,1024,216)] {
        let a = vec![0.5f32; m * k]; let b = vec![0.25f32; k * n]; let mut c = vec![0f32; m * n];
        for trans in [false, true] {
        let r = (2e9 / (2 * m * n * k) as f64) as usize;
        let (rs, cs) = if trans { (1, k as isize) } else { (n as isize, 1) };
        let t = std::time::Instant::now();
        let u0 = cpu();
        for _ in 0..r { unsafe { gemm::gemm(m, n, k, c.as_mut_ptr(), 1, n as isize, false, a.as_ptr(), 1, k as isize, b.as_ptr(), cs, rs, 1f32, 1f32, false, false, false, gemm::Parallelism::None) } }
        let u = cpu() - u0;
        println!("{m} {n} {k} trans {trans}: {:.1} GFLOP/s (wall {:.3})", (2 * m * n * k * r) as f64 / u / 1e9, t.elapsed().as_secs_f64());
        }
    }
}
fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    s.split_whitespace().next().unwrap().parse::<f64>().unwrap() * 1e-9
}
