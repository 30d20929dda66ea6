//! `eval.retrieval`: whether a report finds its image, and an image those with the same findings.

mod cohort;
mod measures;

use std::collections::BTreeSet;

use argent_engine::joining::UNMATCHED;
use argent_engine::operator::nearest;
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, Signature, column};
use argent_stats::OverlapMeasure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::eval::classification::Bootstrap;
use crate::eval::cohort::truth_columns;
use crate::one_or_many::OneOrMany;

/// Measures retrieval by embeddings: Recall@K of reports that look for their image, and how much the nearest images of an
/// image have in common with it by their labels, in each of the published variants. With chance levels, and intervals
/// over whole patients.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalRetrieval {
    /// One variant or several; left out, `recall_pair` where there are texts and `map_clean` where there are labels.
    #[serde(default)]
    pub variant: Option<OneOrMany<Variant>>,
    /// How many of the nearest count, one number or several; left out, the published ones: 5, 10, 50 and 100 for recall, 1,
    /// 5, 10 and 50 for the others.
    #[serde(default)]
    pub k: Option<OneOrMany<usize>>,
    /// Which images take part. Texts take part with their image.
    #[serde(default)]
    pub gallery: Gallery,
    /// How two vectors are compared.
    #[serde(default)]
    pub similarity: Similarity,
    /// The part that is measured, where there is a split.
    #[serde(default = "test")]
    pub part: String,
    /// The id column of the embeddings whose equal values stay together in a draw; left out, `patient` where there is one,
    /// else `id`.
    #[serde(default)]
    pub group: Option<String>,
    /// How intervals are drawn: queries are drawn, the gallery stays.
    #[serde(default)]
    pub bootstrap: Bootstrap,
    /// The share of rows that may lack their match before the step fails.
    #[serde(default = "unmatched")]
    #[schemars(range(min = 0.0, max = 1.0), extend("x-not-in-key" = "it decides whether there is a result, not which"))]
    pub unmatched: f64,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// Report to image: the share of texts whose own image is among the first K.
    RecallPair,
    /// Report to image: the share of texts for which any reconstruction of the scan is among the first K.
    RecallScan,
    /// Image to image: the mean Jaccard index of the labels of the first K with the query's; the query is not among them. The
    /// gallery is the images with a finding, here and below.
    MapClean,
    /// The same with the query in the gallery, where it finds itself first.
    MapSelfIncluded,
    /// "MAP@K" as CT-CLIP's script computes it: the mean of `map_self_included` over this K and all smaller ones of `k`.
    MapCtClipCumulative,
    /// RadFinder's AP@K: images with a finding look for others that share one, and the precision at each of these is summed
    /// and divided by K.
    ApRadfinder,
}

impl Variant {
    fn name(self) -> &'static str {
        match self {
            Variant::RecallPair => "recall_pair",
            Variant::RecallScan => "recall_scan",
            Variant::MapClean => "map_clean",
            Variant::MapSelfIncluded => "map_self_included",
            Variant::MapCtClipCumulative => "map_ct_clip_cumulative",
            Variant::ApRadfinder => "ap_radfinder",
        }
    }

    /// The measure of overlap; none of those that ask for a certain image.
    fn overlap(self) -> Option<OverlapMeasure> {
        match self {
            Variant::RecallPair | Variant::RecallScan => None,
            Variant::MapClean => Some(OverlapMeasure::Clean),
            Variant::MapSelfIncluded => Some(OverlapMeasure::SelfIncluded),
            Variant::MapCtClipCumulative => Some(OverlapMeasure::Cumulative),
            Variant::ApRadfinder => Some(OverlapMeasure::AveragePrecision),
        }
    }

    /// What a reader of its value has to know, which its name does not say.
    fn quirk(self, gallery: Gallery) -> Option<&'static str> {
        match self {
            Variant::RecallPair if gallery == Gallery::All => {
                Some("other reconstructions of the same scan count as misses")
            }
            Variant::RecallPair | Variant::RecallScan | Variant::MapClean => None,
            Variant::MapSelfIncluded => Some("the query is in the gallery and finds itself"),
            Variant::MapCtClipCumulative => {
                Some("the query finds itself, and the value is the mean over this k and all smaller ones")
            }
            Variant::ApRadfinder => {
                Some("queries without a finding are left out, and any shared finding counts")
            }
        }
    }

    fn published_ks(self) -> Vec<usize> {
        if self.overlap().is_some() { vec![1, 5, 10, 50] } else { vec![5, 10, 50, 100] }
    }
}

/// Which images take part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Gallery {
    /// Every image.
    #[default]
    All,
    /// Of each scan the image with the first id, which is its first reconstruction.
    FirstReconstruction,
}

impl Gallery {
    fn name(self) -> &'static str {
        match self {
            Gallery::All => "all",
            Gallery::FirstReconstruction => "first_reconstruction",
        }
    }
}

/// How two vectors are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Similarity {
    /// The cosine of the angle between them.
    #[default]
    Cosine,
    /// Their dot product.
    Dot,
}

impl Similarity {
    fn kernel(self) -> argent_stats::Similarity {
        match self {
            Similarity::Cosine => argent_stats::Similarity::Cosine,
            Similarity::Dot => argent_stats::Similarity::Dot,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Similarity::Cosine => "cosine",
            Similarity::Dot => "dot",
        }
    }
}

fn test() -> String {
    "test".into()
}

fn unmatched() -> f64 {
    UNMATCHED
}

/// The id column of the scan, of which an image is one reconstruction.
const SCAN: &str = "scan";

impl Operator for EvalRetrieval {
    fn ports(&self) -> Vec<Port> {
        let optional = |port: Port| Port { optional: true, ..port };
        let vectors = [Needed::text("id"), Needed::lists("vector")];
        vec![
            Port::new("embeddings", "Vectors of images, as `embed.images` makes them.", &vectors),
            optional(Port::new(
                "texts",
                "Vectors of reports in the same space, each of the image with its id.",
                &vectors,
            )),
            optional(Port::new(
                "labels",
                "What images have: states, or targets and weights.",
                &[Needed::text("id"), Needed::text("finding")],
            )),
            optional(Port::new(
                "split",
                "Parts, as `split.groups` makes them.",
                &[Needed::text("id"), Needed::text("part")],
            )),
        ]
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let problems = self.problems(inputs);
        if !problems.is_empty() {
            return Err(problems);
        }
        let on = |port: &str| inputs.ports.get(port).map(|input| input.on.clone());
        let mut embeddings = BTreeSet::from(["id".to_owned(), "vector".to_owned()]);
        embeddings.extend(["texts", "labels", "split"].iter().filter_map(|port| on(port)));
        embeddings.insert(self.group(inputs));
        if self.needs_scans(inputs) {
            embeddings.insert(SCAN.to_owned());
        }
        let mut signature = Signature::new(column::schema(measures::fields()), &["variant", "k"])
            .reads("embeddings", embeddings);
        if let Some(on) = on("texts") {
            signature = signature.reads("texts", BTreeSet::from(["id".to_owned(), "vector".to_owned(), on]));
        }
        if let Some(labels) = inputs.ports.get("labels") {
            let truth = truth_columns(labels).into_iter().map(str::to_owned);
            let columns: BTreeSet<String> = truth.chain([labels.on.clone(), "finding".to_owned()]).collect();
            signature = signature.reads("labels", columns);
        }
        if let Some(on) = on("split") {
            signature = signature.reads("split", BTreeSet::from([on, "part".to_owned()]));
        }
        Ok(signature)
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let variants = self.variants(|port| io.has_input(port));
        let images = self.images(io)?;
        let mut rows = Vec::new();
        if variants.iter().any(|variant| variant.overlap().is_none()) {
            let texts = self.texts(io, &images)?;
            for variant in variants.iter().filter(|variant| variant.overlap().is_none()) {
                rows.extend(self.recall(*variant, &images, &texts)?);
            }
        }
        if variants.iter().any(|variant| variant.overlap().is_some()) {
            let labelled = self.labelled(io, &images)?;
            rows.extend(self.overlaps(&variants, &labelled)?);
        }
        io.emit("", measures::batch(io.schema("")?, self, &rows)?)
    }
}

impl EvalRetrieval {
    /// What is measured, in the order of the variants' list.
    fn variants(&self, has: impl Fn(&str) -> bool) -> BTreeSet<Variant> {
        match &self.variant {
            Some(variants) => variants.to_vec().into_iter().collect(),
            None => [("texts", Variant::RecallPair), ("labels", Variant::MapClean)]
                .into_iter()
                .filter(|(port, _)| has(port))
                .map(|(_, variant)| variant)
                .collect(),
        }
    }

    /// The numbers of nearest images, in ascending order.
    fn ks(&self, variant: Variant) -> Vec<usize> {
        let ks = self.k.as_ref().map_or_else(|| variant.published_ks(), OneOrMany::to_vec);
        ks.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn group(&self, inputs: &Inputs) -> String {
        let has_patients = inputs.port("embeddings").schema.field_with_name("patient").is_ok();
        self.group.clone().unwrap_or_else(|| if has_patients { "patient" } else { "id" }.to_owned())
    }

    fn needs_scans(&self, inputs: &Inputs) -> bool {
        self.gallery == Gallery::FirstReconstruction
            || self.variants(|port| inputs.ports.contains_key(port)).contains(&Variant::RecallScan)
    }

    fn problems(&self, inputs: &Inputs) -> Vec<Problem> {
        let mut problems = Vec::new();
        let has = |port: &str| inputs.ports.contains_key(port);
        let variants = self.variants(has);
        if variants.is_empty() {
            let message =
                "the step has neither `texts` nor `labels`, so that nothing says what is to be found";
            problems.push(Problem::at(["from"], message).help("add `texts`, `labels` or both"));
        }
        for variant in &variants {
            let port = if variant.overlap().is_some() { "labels" } else { "texts" };
            if !has(port) {
                let message = format!("`{}` needs `{port}`, which the step does not read", variant.name());
                let problem = Problem::at(["with", "variant"], message);
                problems.push(problem.help(format!("add `{port}` under `from`")));
            }
        }
        if self.k.as_ref().is_some_and(|ks| ks.to_vec().is_empty() || ks.to_vec().contains(&0)) {
            problems.push(Problem::at(["with", "k"], "expected numbers from 1 on, one at least"));
        }
        for port in ["texts", "labels", "split"] {
            let Some(input) = inputs.ports.get(port) else { continue };
            let missing = inputs.missing("embeddings", &[input.on.as_str()]).into_iter();
            problems.extend(missing.map(|p| Problem { path: vec!["match".into(), port.into()], ..p }));
        }
        if inputs.ports.get("labels").is_some_and(|labels| truth_columns(labels).is_empty()) {
            let message = "the table has neither `state` nor `target` and `weight`";
            problems.push(Problem::at(["from", "labels"], message));
        }
        let schema = &inputs.port("embeddings").schema;
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let group = self.group(inputs);
        if !names.contains(&group.as_str()) {
            let message = format!("the embeddings have no column `{group}`");
            problems.push(Problem::at(["with", "group"], message).help(nearest(&group, &names, "columns")));
        }
        if self.needs_scans(inputs) && !names.contains(&SCAN) {
            let message = "the embeddings have no column `scan`, which tells reconstructions of one scan";
            let problem = Problem::at(["from", "embeddings"], message);
            problems.push(problem.help("derive ids where the images are read, as by `ids: ct-rate`"));
        }
        problems
    }
}
