//! What the memo promises: torn and flipped records, sealing, several processes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use super::sealing::SMALL_SEGMENTS;
use super::*;
use crate::digest::Secret;

const OP: Digest = Digest([5; 32]);

/// Where a child that this file starts finds its store; without it the child's tests do nothing.
const CHILD_STORE: &str = "ARGENT_CACHE_TEST_STORE";

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A store as another process would have it: nothing is shared but the folder.
fn store(folder: &tempfile::TempDir) -> Store {
    Store::open_with_secret(folder.path(), Secret::from_bytes([1; 32])).unwrap()
}

fn key(number: u32) -> Digest {
    Digest(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn value(number: u32) -> Vec<u8> {
    format!("answer {number} ").repeat(1 + number as usize % 7).into_bytes()
}

fn fill(memo: &Memo, numbers: std::ops::Range<u32>) {
    numbers.for_each(|number| memo.put(key(number), &value(number)).unwrap());
    memo.sync().unwrap();
}

#[track_caller]
fn assert_holds(memo: &Memo, numbers: std::ops::Range<u32>) {
    let keys: Vec<Digest> = numbers.clone().map(key).collect();
    let many = memo.get_many(&keys).unwrap();
    assert_eq!(many.len(), keys.len());
    for (place, number) in numbers.enumerate() {
        assert!(memo.contains(&key(number)), "{number}");
        assert_eq!(many.get(place), Some(value(number).as_slice()), "{number}");
        assert_eq!(memo.get(&key(number)).unwrap(), Some(value(number)), "{number}");
    }
}

fn files(folder: &tempfile::TempDir, suffix: &str) -> Vec<PathBuf> {
    let memo = folder.path().join("memo").join(OP.to_string());
    let Ok(entries) = fs::read_dir(memo) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == suffix));
    paths.sort();
    paths
}

fn flip(path: &PathBuf, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn many_answers_of_many_row_groups_are_read_at_once() {
    let folder = folder();
    let memo = store(&folder).memo(&OP).unwrap();
    fill(&memo, 0..40_000);
    memo.seal().unwrap();
    fill(&memo, 40_000..50_000);
    let keys: Vec<Digest> = (0..50_001).rev().map(key).collect();
    for _ in 0..3 {
        let many = memo.get_many(&keys).unwrap();
        assert!(many.get(0).is_none());
        for (place, number) in (0..50_000).rev().enumerate() {
            assert_eq!(many.get(place + 1), Some(value(number).as_slice()), "{number}");
        }
    }
}

#[test]
fn answers_outlive_the_process_in_journal_and_segment() {
    let folder = folder();
    let memo = store(&folder).memo(&OP).unwrap();
    assert!(memo.is_empty());
    assert_eq!(memo.get(&key(0)).unwrap(), None);
    fill(&memo, 0..500);
    memo.put(key(500), b"").unwrap();
    assert_holds(&memo, 0..500);
    drop(memo);

    let memo = store(&folder).memo(&OP).unwrap();
    assert_eq!(memo.len(), 501);
    assert_holds(&memo, 0..500);
    memo.seal().unwrap();
    assert_eq!((files(&folder, "journal").len(), files(&folder, "parquet").len()), (0, 1));
    assert_holds(&memo, 0..500);

    let memo = store(&folder).memo(&OP).unwrap();
    assert_eq!((memo.len(), memo.damaged()), (501, 0));
    assert_holds(&memo, 0..500);
    assert_eq!(memo.get(&key(500)).unwrap(), Some(Vec::new()), "an empty answer is an answer");
    assert!(store(&folder).memo(&Digest([6; 32])).unwrap().is_empty(), "another operator");
}

#[test]
fn the_first_value_of_a_key_stays() {
    let folder = folder();
    let one = store(&folder).memo(&OP).unwrap();
    let two = store(&folder).memo(&OP).unwrap();
    one.put_durable(key(1), b"first").unwrap();
    one.put_durable(key(1), b"again").unwrap();
    two.put_durable(key(1), b"second").unwrap();
    assert_eq!(one.get(&key(1)).unwrap().unwrap(), b"first");
    for _ in 0..2 {
        let reader = store(&folder).memo(&OP).unwrap();
        assert_eq!(reader.get(&key(1)).unwrap().unwrap(), b"first");
        drop(reader);
        // The later journal is sealed first, and still its value does not count.
        two.seal().unwrap();
    }
    one.seal().unwrap();
    let reader = store(&folder).memo(&OP).unwrap();
    assert_eq!(reader.get(&key(1)).unwrap().unwrap(), b"first");
}

#[test]
fn processes_see_each_other_and_seal_only_what_is_theirs_or_nobodys() {
    let folder = folder();
    let one = store(&folder).memo(&OP).unwrap();
    let two = store(&folder).memo(&OP).unwrap();
    fill(&one, 0..50);
    assert!(!two.contains(&key(0)));
    two.refresh().unwrap();
    assert_holds(&two, 0..50);
    fill(&two, 50..100);
    fill(&one, 100..150);
    two.seal().unwrap();
    assert_eq!(files(&folder, "journal").len(), 1, "the journal of the first is still being written");
    one.refresh().unwrap();
    two.refresh().unwrap();
    for memo in [&one, &two, &store(&folder).memo(&OP).unwrap()] {
        assert_holds(memo, 0..150);
        assert_eq!(memo.len(), 150);
    }
    fill(&one, 150..160);
    drop(one);
    two.seal().unwrap();
    assert_eq!(files(&folder, "journal").len(), 0, "the first is gone, so its journal was sealed");
    assert_holds(&two, 0..160);
}

#[test]
fn a_put_is_on_disk_soon_without_being_asked_for() {
    let folder = folder();
    let memo = store(&folder).memo(&OP).unwrap();
    memo.put(key(1), b"answer").unwrap();
    let begun = std::time::Instant::now();
    while memo.shared().lock_writer().synced == 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "never synced");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn threads_that_wait_for_the_disk_share_its_syncs() {
    let folder = folder();
    let memo = store(&folder).memo(&OP).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let memo = memo.clone();
            scope.spawn(move || {
                for number in thread * 100..thread * 100 + 100 {
                    memo.put_durable(key(number), &value(number)).unwrap();
                    let writer = memo.shared().lock_writer();
                    assert!(writer.pending.iter().all(|(pending, _)| *pending != key(number)));
                }
            });
        }
        for _ in 0..5 {
            memo.seal().unwrap();
        }
    });
    assert_holds(&memo, 0..800);
    drop(memo);
    assert_holds(&store(&folder).memo(&OP).unwrap(), 0..800);
}

#[test]
fn a_torn_tail_is_cut_off_at_every_byte() {
    let folder = folder();
    let memo = store(&folder).memo(&OP).unwrap();
    fill(&memo, 0..3);
    drop(memo);
    let path = files(&folder, "journal").remove(0);
    let whole = fs::read(&path).unwrap();
    let ends = [0, 1, 2, 3].map(|records| 16 + (0..records).map(|n| 64 + value(n).len()).sum::<usize>());
    assert_eq!(ends[3], whole.len());
    for cut in (0..whole.len()).rev() {
        File::options().write(true).open(&path).unwrap().set_len(cut as u64).unwrap();
        let memo = store(&folder).memo(&OP).unwrap();
        let sound = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1) as u32;
        assert_eq!((memo.len() as u32, memo.damaged()), (sound, 0), "cut at {cut}");
        assert_holds(&memo, 0..sound);
    }
    // What was lost can be put again, beside the torn journal, and sealing tidies up.
    fs::write(&path, &whole[..ends[2] + 5]).unwrap();
    let memo = store(&folder).memo(&OP).unwrap();
    fill(&memo, 0..3);
    memo.seal().unwrap();
    assert_eq!((files(&folder, "journal").len(), files(&folder, "parquet").len()), (0, 1));
    assert_holds(&store(&folder).memo(&OP).unwrap(), 0..3);
}

#[test]
fn a_flipped_bit_costs_one_record_wherever_it_is() {
    let folder = folder();
    let memo = store(&folder).memo(&OP).unwrap();
    fill(&memo, 0..4);
    drop(memo);
    let path = files(&folder, "journal").remove(0);
    let whole = fs::read(&path).unwrap();
    let start = 16 + 64 + value(0).len();
    for at in start..start + 64 + value(1).len() {
        flip(&path, at as u64);
        let memo = store(&folder).memo(&OP).unwrap();
        assert_eq!((memo.len(), memo.damaged()), (3, 1), "flipped at {at}");
        assert_eq!(memo.get(&key(1)).unwrap(), None);
        assert_holds(&memo, 0..1);
        assert_holds(&memo, 2..4);
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn damage_after_the_journal_was_read_is_found_too() {
    let folder = folder();
    let memo = store(&folder).memo(&OP).unwrap();
    fill(&memo, 0..2);
    flip(&files(&folder, "journal").remove(0), 16 + 48);
    assert_eq!(memo.get(&key(0)).unwrap(), None);
    assert!(!memo.contains(&key(0)));
    assert_eq!(memo.damaged(), 1);
    memo.put(key(0), &value(0)).unwrap();
    assert_holds(&memo, 0..2);
}

#[test]
fn a_damaged_segment_gives_what_is_sound_and_is_mended() {
    let folder = folder();
    // Values that do not compress, in several row groups.
    let noise = |number: u32| {
        let mut bytes = vec![0; 40_000];
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    };
    let memo = store(&folder).memo(&OP).unwrap();
    (0..600).for_each(|number| memo.put(key(number), &noise(number)).unwrap());
    memo.seal().unwrap();
    drop(memo);
    let path = files(&folder, "parquet").remove(0);
    flip(&path, fs::metadata(&path).unwrap().len() / 2);

    let memo = store(&folder).memo(&OP).unwrap();
    let (sound, lost) = (memo.len() as u64, memo.damaged());
    assert!(lost > 0 && sound > 300, "{sound} sound, {lost} lost");
    assert_eq!(sound + lost, 600);
    let absent: Vec<u32> = (0..600).filter(|number| !memo.contains(&key(*number))).collect();
    assert_eq!(absent.len() as u64, lost);
    absent.iter().for_each(|number| memo.put(key(*number), &noise(*number)).unwrap());
    memo.seal().unwrap();
    let mended = store(&folder).memo(&OP).unwrap();
    assert_eq!((mended.len(), mended.damaged()), (600, 0));
    for number in 0..600 {
        assert_eq!(mended.get(&key(number)).unwrap(), Some(noise(number)), "{number}");
    }

    // Without a footer nothing can be found, and nothing is thrown away.
    let path = files(&folder, "parquet").remove(0);
    flip(&path, fs::metadata(&path).unwrap().len() - 1);
    let memo = store(&folder).memo(&OP).unwrap();
    assert_eq!((memo.len(), memo.damaged()), (0, 1));
    memo.seal().unwrap();
    assert!(path.exists());
}

#[test]
fn small_segments_are_merged() {
    let folder = folder();
    let memo = store(&folder).memo(&OP).unwrap();
    for round in 0..20 {
        fill(&memo, round * 10..round * 10 + 10);
        memo.seal().unwrap();
        assert!(files(&folder, "parquet").len() <= SMALL_SEGMENTS, "round {round}");
    }
    assert_holds(&memo, 0..200);
    assert_holds(&store(&folder).memo(&OP).unwrap(), 0..200);
    // A reader that opened the segments before they were merged still has them.
    let reader = store(&folder).memo(&OP).unwrap();
    for round in 20..30 {
        fill(&memo, round * 10..round * 10 + 10);
        memo.seal().unwrap();
    }
    assert_holds(&reader, 0..200);
    reader.refresh().unwrap();
    assert_holds(&reader, 0..300);
}

/// The child of the two tests below: puts answers, saying of each that it is durable, until it is stopped.
#[test]
fn child_that_puts() {
    let Ok(path) = std::env::var(CHILD_STORE) else { return };
    let store = Store::open(std::path::Path::new(&path)).unwrap();
    let memo = store.memo(&OP).unwrap();
    for number in 0.. {
        if let Err(error) = memo.put_durable(key(number), &value(number)) {
            println!("\nrefused {error:#}");
            assert_eq!(memo.get(&key(number)).unwrap(), None, "what was refused is not there");
            return;
        }
        println!("\ndurable {number}");
        if number % 50 == 49
            && let Err(error) = memo.seal()
        {
            println!("\nrefused {error:#}");
            return;
        }
    }
}

fn child(folder: &tempfile::TempDir, launcher: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{launcher} exec \"$0\" --exact memo::tests::child_that_puts --nocapture"));
    command.arg(std::env::current_exe().unwrap()).env(CHILD_STORE, folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

#[test]
fn kill_9_loses_nothing_that_was_durable() {
    let folder = folder();
    drop(store(&folder));
    let mut durable = 0u32;
    for round in 0..4 {
        let mut running = child(&folder, "").spawn().unwrap();
        // The pipe stays open until the child is dead: it is to die of the signal.
        let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
        let enough = 60 + 37 * round;
        while durable < enough {
            let line = lines.next().unwrap().unwrap();
            if let Some(number) = line.strip_prefix("durable ") {
                durable = number.parse().unwrap();
            }
        }
        running.kill().unwrap();
        running.wait().unwrap();
        let memo = store(&folder).memo(&OP).unwrap();
        assert_eq!(memo.damaged(), 0);
        assert_holds(&memo, 0..durable + 1);
    }
    let memo = store(&folder).memo(&OP).unwrap();
    memo.seal().unwrap();
    assert_eq!(files(&folder, "journal").len(), 0, "the journals of the dead were sealed");
    assert_holds(&store(&folder).memo(&OP).unwrap(), 0..durable + 1);
    let left = fs::read_dir(folder.path().join("tmp"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().is_dir());
    assert!(left.count() <= 1, "leftovers of the dead are in tmp");
}

#[test]
fn a_full_disk_is_said_and_costs_only_what_did_not_fit() {
    let folder = folder();
    drop(store(&folder));
    // The shell's limit on the size of files stands for a disk that is full: a write ends in the middle.
    let output = child(&folder, "trap '' XFSZ; ulimit -f 2;").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let refused = said.lines().find_map(|line| line.strip_prefix("refused ")).unwrap();
    assert!(refused.starts_with("cannot write a memo journal in the store at /"), "{refused}");
    assert!(refused.ends_with("what is finished is kept"), "{refused}");
    let durable =
        said.lines().filter_map(|line| line.strip_prefix("durable ")?.parse::<u32>().ok()).max().unwrap();
    let memo = store(&folder).memo(&OP).unwrap();
    assert_eq!((memo.len() as u32, memo.damaged()), (durable + 1, 0));
    assert_holds(&memo, 0..durable + 1);
    fill(&memo, durable + 1..durable + 20);
    assert_holds(&memo, 0..durable + 20);
}
