//! Training through the program: what stops it loses nothing, volumes and X-rays alike are learned from, it starts from
//! published and earlier weights, and what would make a worthless network is refused.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use argent_imaging::image::png;
use expect_test::{Expect, expect};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::sandbox::Sandbox;

/// Everything in front of a training on volumes.
const VOLUMES: &str = "argent: 1
name: training
steps:
  demo: { use: demo.chest_ct, with: { patients: 4, seed: 1 } }
  volumes: { use: volumes.scan, from: demo, with: { path: \"volumes/*.nii.gz\", ids: ct-rate } }
  grid: { use: volumes.resample, from: volumes, with: { spacing_mm: [16, 16, 16] } }
  split: { use: split.groups, from: volumes, with: { by: patient, parts: { train: 0.6, val: 0.4 }, seed: 2 } }
  truth:
    use: labels.table
    from: demo
    with: { path: labels.csv, id: VolumeName, ids: ct-rate, findings: pack.yaml, values: { \"1\": present, \"0\": absent } }
  targets: { use: label.policy, from: truth }
";

/// A checkpoint lies in the store after each step.
const ENCODER: &str = "  encoder:
    use: train.classifier
    from: { volumes: grid, labels: targets, split: split }
    match: { split: patient }
    with:
      model: resnet3d-tiny
      epochs: 40
      batch: 2
      checkpoint_seconds: 0
      augment: { flip: [x], crop: true }
      view: { window_hu: [-1000, 600], canvas: [20, 20, 16], crop: [18, 18, 14] }
";

const PACK: &str = "name: small
findings:
  - { id: effusion, name: Pleural effusion, definition: Fluid., synonyms: [effusion] }
  - { id: nodule, name: Lung nodule, definition: A nodule., synonyms: [nodule] }
";

/// A training on X-rays, with what comes of it.
const XRAYS: &str = "argent: 1
name: xrays
steps:
  images: { use: images.scan, with: { path: \"xrays/*.png\", ids: { pattern: '^(?<id>(?<patient>p\\d+)-\\d)\\.' } } }
  prepared: { use: images.prepare, from: images, with: { size: [32, 32] } }
  split: { use: split.groups, from: images, with: { by: patient, parts: { train: 0.6, val: 0.2, test: 0.2 }, seed: 1 } }
  truth: { use: labels.table, with: { path: labels.csv, id: id, findings: pack.yaml, values: { \"1\": present, \"0\": absent } } }
  targets: { use: label.policy, from: truth }
  encoder:
    use: train.classifier
    from: { images: prepared, labels: targets, split: split }
    match: { split: patient }
    with: { model: resnet-tiny, epochs: 8, batch: 8, lr: 0.01, view: { canvas: [32, 32] } }
  predictions: { use: predict, from: { weights: encoder, images: prepared } }
  scores:
    use: eval.classification
    from: { predictions: predictions, labels: truth, split: split }
    match: { split: patient }
    with: { part: test, threshold: 0.5 }
";

/// Patients with two X-rays each.
const PATIENTS: u32 = 24;

/// Noise of 32 x 32 pixels, with a bright disc above where the bone is broken and a dark one below where it is swollen.
fn xray(number: u32, broken: bool, swollen: bool) -> Vec<u8> {
    let mut state = number * 7919 + 17;
    let inside = |x: u32, y: u32, middle: u32| {
        let column = 8 + number % 16;
        x.abs_diff(column).pow(2) + y.abs_diff(middle).pow(2) < 25
    };
    let pixel = |place: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (x, y) = (place % 32, place / 32);
        let tissue = match (broken && inside(x, y, 9), swollen && inside(x, y, 23)) {
            (true, _) => 220,
            (false, true) => 10,
            (false, false) => 110,
        };
        tissue + (state >> 27) as u16
    };
    png::encode_grey(32, 32, &(0..32 * 32).map(pixel).collect::<Vec<u16>>(), 8)
}

/// The X-rays, their labels and a pack, with this pipeline.
fn xrays(spec: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("xrays")).unwrap();
    let mut labels = "id,broken,swollen\n".to_owned();
    for number in 0..2 * PATIENTS {
        let (id, broken, swollen) =
            (format!("p{:02}-{}", number / 2, number % 2), number % 2 == 1, number / 2 % 2 == 1);
        std::fs::write(sandbox.path(&format!("xrays/{id}.png")), xray(number, broken, swollen)).unwrap();
        labels.push_str(&format!("{id},{},{}\n", u8::from(broken), u8::from(swollen)));
    }
    sandbox.write("p.yaml", spec).write("labels.csv", &labels);
    sandbox.write(
        "pack.yaml",
        "name: ankle
findings:
  - { id: broken, name: Fracture, definition: A broken bone., synonyms: [fracture] }
  - { id: swollen, name: Swelling, definition: A swollen joint., synonyms: [swelling] }
",
    );
    sandbox
}

/// A store with all that lies in front of the training, to be copied: its secret makes equal weights equal digests.
fn before_training() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox
        .write("pack.yaml", PACK)
        .write("before.yaml", VOLUMES)
        .write("p.yaml", &format!("{VOLUMES}{ENCODER}"));
    sandbox.succeeds(&["run", "before.yaml", "--store", "before"]);
    sandbox
}

fn copy_store(sandbox: &Sandbox, name: &str) {
    let [from, to] = ["before", name].map(|store| sandbox.path(store));
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
}

/// The states that are kept in a store.
fn checkpoints(sandbox: &Sandbox, store: &str) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(sandbox.path(store).join("checkpoints")).into_iter().flatten();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    let is_kept = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() > 32);
    files.map(|file| file.unwrap().path()).filter(is_kept).collect()
}

/// Trains in a store of its own until a state is kept, and sends a signal then.
fn stopped(sandbox: &Sandbox, store: &str, signal: &str) -> Output {
    copy_store(sandbox, store);
    let mut command = sandbox.command(&["run", "p.yaml", "--store", store]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while checkpoints(sandbox, store).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before a state was kept");
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(checkpoints(sandbox, store).len(), 1, "one state is kept");
    output
}

/// The digest of the weights, and every step of their history.
fn trained(sandbox: &Sandbox, store: &str) -> (Vec<String>, Vec<String>) {
    let ask = |question: &str| {
        let words = ["sql", question, "--format", "csv", "--store", store, "-p", "p.yaml"];
        sandbox.succeeds(&words).out.lines().map(str::to_owned).collect()
    };
    (ask("select model, weights, findings from encoder"), ask("select * from encoder.history order by step"))
}

/// Runs on in a store, expects what a training that nobody stopped comes to, and gives what was said of the training.
fn goes_on(sandbox: &Sandbox, store: &str) -> String {
    let said = sandbox.succeeds(&["run", "p.yaml", "--store", store]);
    assert_eq!(trained(sandbox, store), trained(sandbox, "whole"));
    assert!(checkpoints(sandbox, store).is_empty());
    let told = format!("{}{}", said.out, said.err);
    told.lines().filter(|line| line.contains("step")).map(numbers_hidden).collect::<Vec<_>>().join("\n")
}

/// A line with `#` for each number: when a signal arrives is chance.
fn numbers_hidden(line: &str) -> String {
    let mut hidden = String::new();
    for letter in line.trim().chars() {
        match letter.is_ascii_digit() {
            true if hidden.ends_with('#') => {}
            true => hidden.push('#'),
            false => hidden.push(letter),
        }
    }
    hidden
}

#[test]
fn a_training_that_is_stopped_in_any_way_ends_with_the_same_weights() {
    let sandbox = before_training();
    copy_store(&sandbox, "whole");
    sandbox.succeeds(&["run", "p.yaml", "--store", "whole"]);
    let (weights, history) = trained(&sandbox, "whole");
    assert_eq!(weights.len(), 2);
    assert_eq!(history[0], "epoch,step,lr,train_loss,gradient_norm,val_loss,val_score");
    assert!(history.len() > 80, "{history:?}");

    stopped(&sandbox, "killed", "-KILL");
    expect![[r#"
        encoder              warning   an earlier run kept the state after step # of #; it goes on from there
        # step made, # reused"#]]
    .assert_eq(&goes_on(&sandbox, "killed"));

    let output = stopped(&sandbox, "interrupted", "-INT");
    assert_eq!(output.status.code(), Some(130));
    let told = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    let told: Vec<String> =
        told.lines().filter(|line| line.contains("encoder")).map(numbers_hidden).collect();
    expect![[r#"
        encoder              warning   the state after step # is kept; the next run goes on from there
        encoder              stopped   interrupted before it had a result"#]]
    .assert_eq(&told.join("\n"));
    expect![[r#"
        encoder              warning   an earlier run kept the state after step # of #; it goes on from there
        # step made, # reused"#]]
    .assert_eq(&goes_on(&sandbox, "interrupted"));

    stopped(&sandbox, "damaged", "-KILL");
    let kept = checkpoints(&sandbox, "damaged").remove(0);
    let mut bytes = std::fs::read(&kept).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&kept, bytes).unwrap();
    expect![[r#"
        encoder              warning   the state that an earlier run left is damaged; the step begins anew
        # step made, # reused"#]]
    .assert_eq(&goes_on(&sandbox, "damaged"));
}

#[test]
fn a_network_learns_from_x_rays_and_is_measured_on_other_patients() {
    let sandbox = xrays(XRAYS);
    expect![[r#"
        images made 48 0 0
        prepared made 48 0 0
        split made 48 0 0
        truth made 96 0 0
        targets made 96 0 0
        encoder made 1 0 0
        predictions made 48 0 0
        scores made 2 0 0"#]]
    .assert_eq(&sandbox.run(&["p.yaml"]).join("\n"));
    expect![[r#"
        broken,10,5,true
        swollen,10,2,true"#]]
    .assert_eq(
        &sandbox.sql("select finding, n, positives, auc > 0.9 from scores order by finding").join("\n"),
    );
    let question =
        "select count(*), min(score) >= 0 and max(score) <= 1, count(distinct id) from predictions";
    expect!["96,true,48"].assert_eq(&sandbox.sql(question).join("\n"));
    let question = "select max(epoch), max(step), count(val_loss), last_value(train_loss order by step) < \
                    first_value(train_loss order by step) from encoder.history";
    expect!["8,24,8,true"].assert_eq(&sandbox.sql(question).join("\n"));
}

/// Why the step `encoder` fails.
fn failure(sandbox: &Sandbox) -> String {
    let said = sandbox.argent(&["run", "p.yaml", "--select", "+encoder"]);
    assert_eq!(said.code, 1, "{}\n{}", said.out, said.err);
    let told = format!("{}{}", said.out, said.err);
    let mut lines = told.lines().skip_while(|line| !(line.contains("encoder") && line.contains("failed")));
    lines.by_ref().take_while(|line| !line.contains("steps made")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_patient_in_two_parts_fails_the_step() {
    let by_image = XRAYS.replace("by: patient", "by: id").replace("    match: { split: patient }\n", "");
    expect!["encoder              failed    11 of 24 patients have samples in more than one part: what is learned of a patient would be measured on the same patient; split by patient, and `match: { split: patient }`"].assert_eq(&failure(&xrays(&by_image)));
}

#[test]
fn a_loss_that_is_no_number_names_the_step_and_its_batch() {
    let sandbox = xrays(&XRAYS.replace("lr: 0.01", "lr: 1e30, checkpoint_seconds: 0"));
    let message = failure(&sandbox);
    let prepared = sandbox.sql("select pixels from prepared");
    let mut batch = 0;
    let mut hidden = message;
    for digest in prepared {
        let short = &digest[..12];
        batch += hidden.matches(short).count();
        hidden = hidden.replace(short, "@");
    }
    assert_eq!(batch, 8, "{hidden}");
    expect!["encoder              failed    the loss at step 2 is not a finite number; the batch was of the side files @, @, @, @, @, @, @, @; the state after step 1 is kept; try a lower learning rate, or a warm-up"].assert_eq(&hidden);
}

/// What `check` says of a pipeline.
fn mistakes(sandbox: &Sandbox, spec: &str, expected: Expect) {
    sandbox.write("p.yaml", spec);
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert_eq!(said.code, 2, "{}", said.err);
    expected.assert_eq(&said.err);
}

#[test]
fn mistakes_of_a_training_are_underlined() {
    let sandbox = xrays(XRAYS);
    let with = |old: &str, new: &str| {
        assert!(XRAYS.contains(old), "{old}");
        XRAYS.replace(old, new)
    };
    mistakes(
        &sandbox,
        &with("resnet-tiny", "resnet3d-tiny"),
        expect![[r#"
        error: `resnet3d-tiny` does not look at images
          --> p.yaml:13:20
           |
        13 |     with: { model: resnet3d-tiny, epochs: 8, batch: 8, lr: 0.01, view: { canvas: [32, 32] } }
           |                    ^^^^^^^^^^^^^
           |
        help: networks that do: resnet18, resnet50, resnet-tiny, densenet121, densenet-tiny, vit-b16, vit-tiny

        1 mistake in p.yaml

    "#]],
    );
    mistakes(
        &sandbox,
        &with("resnet-tiny", "resnet-tiney"),
        expect![[r#"
        error: there is no model `resnet-tiney`
          --> p.yaml:13:20
           |
        13 |     with: { model: resnet-tiney, epochs: 8, batch: 8, lr: 0.01, view: { canvas: [32, 32] } }
           |                    ^^^^^^^^^^^^
           |
        help: did you mean `resnet-tiny`?

        1 mistake in p.yaml

    "#]],
    );
    let view = "{ canvas: [32, 32], crop: [8, 8, 8], window_hu: [0, 1] }";
    mistakes(
        &sandbox,
        &with("{ canvas: [32, 32] }", view),
        expect![[r#"
        error: 3 numbers, expected 2, one for each axis
          --> p.yaml:13:96
           |
        13 |     with: { model: resnet-tiny, epochs: 8, batch: 8, lr: 0.01, view: { canvas: [32, 32], crop: [8, 8, 8], window_hu: [0, 1] } }
           |                                                                                                ^^^^^^^^^

        error: images have grey values, not Hounsfield units
          --> p.yaml:13:118
           |
        13 |     with: { model: resnet-tiny, epochs: 8, batch: 8, lr: 0.01, view: { canvas: [32, 32], crop: [8, 8, 8], window_hu: [0, 1] } }
           |                                                                                                                      ^^^^^^
           |
        help: images.prepare has chosen their window; take it away

        2 mistakes in p.yaml

    "#]],
    );
    let both = with("{ images: prepared, labels", "{ images: prepared, volumes: grid, labels")
        + "  scans: { use: volumes.scan, with: { path: \"*.nii\" } }
  grid: { use: volumes.resample, from: scans, with: { spacing_mm: [8, 8, 8] } }
";
    mistakes(
        &sandbox,
        &both,
        expect![[r#"
        error: it reads `volumes` or `images`, found `volumes` and `images`
          --> p.yaml:11:11
           |
        11 |     from: { images: prepared, volumes: grid, labels: targets, split: split }
           |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
           |
        help: fill one of them

        error: no file matches *.nii
          --> p.yaml:20:45
           |
        20 |   scans: { use: volumes.scan, with: { path: "*.nii" } }
           |                                             ^^^^^^^
           |
        help: paths are relative to the spec, here .

        2 mistakes in p.yaml

    "#]],
    );
    mistakes(
        &sandbox,
        &with("images: prepared, labels", "labels"),
        expect![[r#"
        error: it reads `volumes` or `images`, found neither
          --> p.yaml:11:11
           |
        11 |     from: { labels: targets, split: split }
           |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
           |
        help: fill one of them

        1 mistake in p.yaml

    "#]],
    );
    mistakes(
        &sandbox,
        &with("lr: 0.01", "warmup_steps: 5, schedule: one_cycle"),
        expect![[r#"
        error: only a `cosine` schedule has a warm-up
          --> p.yaml:13:68
           |
        13 |     with: { model: resnet-tiny, epochs: 8, batch: 8, warmup_steps: 5, schedule: one_cycle, view: { canvas: [32, 32] } }
           |                                                                    ^
           |
        help: take it away

        1 mistake in p.yaml

    "#]],
    );
    mistakes(
        &sandbox,
        &with("lr: 0.01", "init: { head: published }"),
        expect![[r#"
        error: there are no weights to start from
          --> p.yaml:13:60
           |
        13 |     with: { model: resnet-tiny, epochs: 8, batch: 8, init: { head: published }, view: { canvas: [32, 32] } }
           |                                                            ^^^^^^^^^^^^^^^^^^^
           |
        help: name a file with `path`, or fill the port `init`

        1 mistake in p.yaml

    "#]],
    );
    mistakes(
        &sandbox,
        &with("lr: 0.01", "init: { path: nowhere.pth }"),
        expect![[r#"
        error: `nowhere.pth` cannot be read: No such file or directory (os error 2)
          --> p.yaml:13:68
           |
        13 |     with: { model: resnet-tiny, epochs: 8, batch: 8, init: { path: nowhere.pth }, view: { canvas: [32, 32] } }
           |                                                                    ^^^^^^^^^^^
           |
        help: paths are relative to the spec; this one means ./nowhere.pth

        1 mistake in p.yaml

    "#]],
    );
}

/// A training that begins where `encoder` ended.
const AGAIN: &str = "  again:
    use: train.classifier
    from: { images: prepared, labels: targets, split: split, init: encoder }
    match: { split: patient }
    with: { model: resnet-tiny, epochs: 1, batch: 8, lr: 0.001, init: { head: published }, view: { canvas: [32, 32] } }
";

/// What came of the arrays, by where they come from: how many, and the first and the last by name.
const COVERAGE: &str =
    "select origin, count(*), min(array), max(array) from again.coverage group by origin order by origin";

/// The pipeline with such a training, changed in one place.
fn again(old: &str, new: &str) -> String {
    assert!(AGAIN.contains(old), "{old}");
    format!("{XRAYS}{}", AGAIN.replace(old, new))
}

#[test]
fn a_training_starts_from_the_weights_of_an_earlier_step() {
    let sandbox = xrays(&format!("{XRAYS}{AGAIN}"));
    sandbox.run(&["p.yaml"]);
    expect!["taken,62,bn1.bias,layer4.0.downsample.1.weight"].assert_eq(&sandbox.sql(COVERAGE).join("\n"));
    let question = "select (select train_loss from again.history where step = 1) < 0.5 * (select train_loss from \
                    encoder.history where step = 1)";
    expect!["true"].assert_eq(&sandbox.sql(question).join("\n"));
    sandbox.write("p.yaml", &again("init: { head: published }", "seed: 1"));
    expect!["again made 1 0 0"].assert_eq(&sandbox.run(&["p.yaml"]).pop().unwrap());
    expect![[r#"
        left_over,2,fc.bias,fc.weight
        new,2,fc.bias,fc.weight
        taken,60,bn1.bias,layer4.0.downsample.1.weight"#]]
    .assert_eq(&sandbox.sql(COVERAGE).join("\n"));
    sandbox.write("p.yaml", &again("model: resnet-tiny", "model: densenet-tiny"));
    expect![
        "again                failed    the weights to start from are of resnet-tiny, expected densenet-tiny"
    ]
    .assert_eq(&again_failed(&sandbox));
}

/// Why the step `again` fails.
fn again_failed(sandbox: &Sandbox) -> String {
    let said = sandbox.argent(&["run", "p.yaml", "--select", "+again"]);
    assert_eq!(said.code, 1, "{}\n{}", said.out, said.err);
    let told = format!("{}{}", said.out, said.err);
    told.lines().filter(|line| line.contains("again")).collect::<Vec<_>>().join("\n")
}

/// The weights of `encoder` under a prefix, with a stem of three channels and a head of a thousand classes, as
/// published networks have them.
fn published(sandbox: &Sandbox) -> Vec<u8> {
    let digest = sandbox.sql("select weights from encoder").remove(0);
    let mut find = Command::new("find");
    find.arg(sandbox.path(".argent")).args(["-type", "f", "-name", &format!("*{}*", &digest[4..])]);
    let path = String::from_utf8(find.output().unwrap().stdout).unwrap();
    let bytes = std::fs::read(path.trim()).unwrap();
    let arrays = SafeTensors::deserialize(&bytes).unwrap();
    let mut all: HashMap<String, (Vec<usize>, Vec<u8>)> = HashMap::new();
    for (name, array) in arrays.tensors() {
        let (mut shape, mut data) = (array.shape().to_vec(), array.data().to_vec());
        match name.as_str() {
            "conv1.weight" => {
                let taps = 4 * shape[2..].iter().product::<usize>();
                data = data.chunks(taps).flat_map(|filter| [filter; 3].concat()).collect();
                shape[1] = 3;
            }
            "fc.weight" => (shape, data) = (vec![1000, shape[1]], vec![0; 4000 * shape[1]]),
            "fc.bias" => (shape, data) = (vec![1000], vec![0; 4000]),
            _ => {}
        }
        all.insert(format!("module.{name}"), (shape, data));
    }
    let views = all
        .iter()
        .map(|(name, (shape, data))| (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn a_training_starts_from_published_weights() {
    let sandbox = xrays(XRAYS);
    sandbox.run(&["p.yaml", "--select", "+encoder"]);
    std::fs::write(sandbox.path("published.safetensors"), published(&sandbox)).unwrap();
    let file = |init: &str| again("init: { head: published }", init).replace(", init: encoder }", " }");
    let from_file = file("init: { path: published.safetensors, stem: summed }");
    sandbox.write("p.yaml", &from_file).run(&["p.yaml", "--select", "+again"]);
    expect![[r#"
        left_over,2,module.fc.bias,module.fc.weight
        new,2,fc.bias,fc.weight
        summed,1,conv1.weight,conv1.weight
        taken,59,bn1.bias,layer4.0.downsample.1.weight"#]]
    .assert_eq(&sandbox.sql(COVERAGE).join("\n"));

    // What the file holds counts, and not what it is called.
    std::fs::rename(sandbox.path("published.safetensors"), sandbox.path("renamed.safetensors")).unwrap();
    sandbox.write("p.yaml", &from_file.replace("published.safetensors", "renamed.safetensors"));
    expect!["again reused 0 1 0"].assert_eq(&sandbox.run(&["p.yaml", "--select", "+again"]).pop().unwrap());

    sandbox.write("p.yaml", &file("init: { path: renamed.safetensors }"));
    expect!["again                failed    `module.conv1.weight` has shape [8, 3, 7, 7] in the file, expected [8, 1, 7, 7]; it can be summed over its input channels, or be new"].assert_eq(&again_failed(&sandbox));
    sandbox.write(
        "p.yaml",
        &file("init: { path: renamed.safetensors, stem: new }")
            .replace("resnet-tiny, epochs: 1", "vit-tiny, epochs: 1"),
    );
    expect!["again                failed    no array of the file is one of vit-tiny: it holds 62 arrays (module.bn1.bias, module.bn1.running_mean, module.bn1.running_var, …), expected 32 arrays (class_token, conv_proj.bias, conv_proj.weight, …)"].assert_eq(&again_failed(&sandbox));
}
