use argent_learn::{model::ModelKind, train::*, view::View};
use std::ops::ControlFlow;
fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let model: ModelKind = a[1].parse().unwrap();
    let n: usize = a[2].parse().unwrap();
    let batch: usize = a[3].parse().unwrap();
    let epochs: usize = a[4].parse().unwrap();
    let shape = [a[5].parse::<usize>().unwrap(), a[6].parse().unwrap(), a[7].parse().unwrap()];
    let data = TrainData {
        targets: (0..n).map(|i| (i % 2) as f32).collect(),
        weights: vec![1.0; n],
        parts: vec![Part::Train; n],
        load: Box::new(move |s| {
            let mut st = s as u32;
            Ok((
                (0..shape.iter().product())
                    .map(|_| {
                        st = st.wrapping_mul(1664525).wrapping_add(1013904223);
                        (st >> 22) as i16 - 800 + (s % 2) as i16 * 100
                    })
                    .collect(),
                shape,
            ))
        }),
    };
    let config = TrainConfig {
        model,
        classes: vec!["a".into()],
        epochs,
        batch,
        lr: 1e-3,
        view: View::default(),
        ..TrainConfig::default()
    };
    let mut last = cpu();
    let r = train(&config, &data, None, &mut |p| {
        match p {
            Progress::Step { record, .. } if a.len() > 8 => {
                let c = cpu();
                println!(
                    "step {} loss {:.4} wall {:.3} cpu {:.3}",
                    record.step,
                    record.loss,
                    record.seconds,
                    c - last
                );
                last = c;
            }
            Progress::Epoch(e) => {
                println!("epoch {} {:.4} wall {:.2} cpu {:.2}", e.epoch, e.train_loss, e.seconds, cpu())
            }
            _ => {}
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    println!("{} bytes", r.weights.len());
}
