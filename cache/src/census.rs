//! A count of what lies in the store: blobs, action records, memos, and what the names stand for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::action::Manifest;
use crate::collect::GRACE;
use crate::digest::Digest;
use crate::durable::storage_error;
use crate::runs::{Head, RunRecord};
use crate::store::{BlobError, Store};

/// All records of the store.
pub struct Records {
    /// What the pipelines' names stand for.
    pub heads: Vec<Head>,
    /// The runs, oldest first.
    pub runs: Vec<RunRecord>,
    /// The results that these and actions name, those apart that are missing or damaged.
    pub manifests: BTreeMap<Digest, Manifest>,
    /// The steps that results belong to.
    pub names: Names,
    pub(crate) actions: Vec<Action>,
}

/// An action record, read.
pub(crate) struct Action {
    pub(crate) path: PathBuf,
    pub(crate) manifest: Digest,
    pub(crate) is_young: bool,
}

/// A file whose name in a folder of shards is a digest.
pub(crate) struct Named {
    /// None if the name is no digest.
    pub(crate) digest: Option<Digest>,
    pub(crate) path: PathBuf,
    pub(crate) metadata: Metadata,
}

/// The steps that results belong to, as `pipeline.step`, by the digest of the manifest.
pub type Names = BTreeMap<Digest, BTreeSet<String>>;

impl Store {
    /// All records. Only who is alone in the store ([`Store::alone`]) knows that no other comes meanwhile.
    ///
    /// It is an error if one of them does not read.
    pub fn records(&self) -> Result<Records> {
        let (heads, runs) = (self.heads()?, self.runs()?);
        let actions =
            self.named_files("actions")?.into_iter().map(Action::read).collect::<Result<Vec<_>>>()?;
        let names = names(&heads, &runs);
        let mut manifests = BTreeMap::new();
        for digest in names.keys().copied().chain(actions.iter().map(|action| action.manifest)) {
            match self.manifest(&digest) {
                Ok(manifest) => drop(manifests.insert(digest, manifest)),
                // What is missing or damaged is made again; there is nothing of it to keep.
                Err(error) if error.is::<BlobError>() && !is_io(&error) => {}
                Err(error) => return Err(error.context("a result does not read; `argent verify` says more")),
            }
        }
        Ok(Records { heads, runs, actions, manifests, names })
    }

    /// The files of `cas` or `actions`, in the order of their names.
    pub(crate) fn named_files(&self, folder: &str) -> Result<Vec<Named>> {
        let listed = list_shards(&self.root().join(folder));
        Ok(listed.map_err(|error| storage_error(self.root(), &format!("list {folder}"), error))?)
    }

    /// The operators and shared questions that have a memo.
    ///
    /// It is an error if the store cannot be listed.
    pub fn memo_digests(&self) -> Result<Vec<Digest>> {
        let listed = list(&self.root().join("memo"));
        let paths = listed.map_err(|error| storage_error(self.root(), "list the memos", error))?;
        Ok(paths.iter().filter_map(|path| path.file_name()?.to_str()?.parse().ok()).collect())
    }
}

/// The steps that the manifests of these records belong to.
pub(crate) fn names(heads: &[Head], runs: &[RunRecord]) -> Names {
    let mut names = Names::new();
    let of_heads =
        heads.iter().flat_map(|h| h.steps.iter().map(|(step, digest)| (&h.pipeline, step, *digest)));
    let of_runs = runs.iter().flat_map(|run| {
        let steps = run.steps.iter().filter(|step| !step.collected);
        steps.filter_map(|step| Some((&run.pipeline, &step.step, step.manifest?)))
    });
    for (pipeline, step, digest) in of_heads.chain(of_runs) {
        names.entry(digest).or_default().insert(format!("{pipeline}.{step}"));
    }
    names
}

/// The blobs that a result consists of, its own manifest apart.
pub(crate) fn blobs_of(manifest: &Manifest) -> impl Iterator<Item = Digest> + '_ {
    manifest.outputs.values().flat_map(|table| table.parts.iter().chain(&table.files).copied())
}

impl Action {
    fn read(file: Named) -> Result<Action> {
        let text = fs::read_to_string(&file.path).context("an action record does not read")?;
        let manifest = text.trim_end().parse().context("an action record does not read; `argent verify`")?;
        Ok(Action { path: file.path, manifest, is_young: is_young(&file.metadata) })
    }
}

fn is_io(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(BlobError::Io(_)))
}

/// A clock that went backwards makes a file young, which only keeps it longer.
pub(crate) fn is_young(metadata: &Metadata) -> bool {
    let age = metadata.modified().ok().and_then(|then| SystemTime::now().duration_since(then).ok());
    age.is_none_or(|age| age < GRACE)
}

fn list_shards(folder: &Path) -> io::Result<Vec<Named>> {
    let mut files = Vec::new();
    for shard in list(folder)? {
        if !shard.is_dir() {
            files.extend(named(shard, None)?);
            continue;
        }
        let start = shard.file_name().unwrap_or_default().to_owned();
        for path in list(&shard)? {
            let name = path.file_name().unwrap_or_default();
            let digest = start.to_str().zip(name.to_str()).and_then(|(a, b)| format!("{a}{b}").parse().ok());
            files.extend(named(path, digest)?);
        }
    }
    Ok(files)
}

/// None if the file has gone meanwhile.
fn named(path: PathBuf, digest: Option<Digest>) -> io::Result<Option<Named>> {
    match fs::metadata(&path) {
        Ok(metadata) => Ok(Some(Named { digest, path, metadata })),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<_> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.sort();
    Ok(paths)
}
