//! Does: one file per operator, a typed struct that turns tables into a table.

pub mod columns;
pub mod command;
pub mod demo;
pub mod dicom;
mod each_row;
pub mod embed;
pub mod eval;
mod findings;
pub mod gpus;
pub mod ids;
pub mod images;
#[cfg(test)]
mod keys;
pub mod label;
pub mod one_or_many;
pub mod pictures;
pub mod plot;
pub mod predicate;
pub mod predict;
pub mod prompt;
pub mod pseudonyms;
pub mod records;
pub mod reports;
mod sights;
pub mod split;
#[cfg(feature = "sql")]
pub mod sql;
mod tabular;
pub mod train;
pub mod volumes;

use argent_engine::{Entry, Kind, Registry};

/// The names of the memos whose answers are keyed by themselves and shared by all pipelines of a store.
pub const SHARED_MEMOS: [&str; 2] = [label::llm::tries::ANSWERS, label::llm::provider_batch::BATCHES];

/// Every operator, in the order of the documentation: from files through labels and volumes to metrics.
pub fn registry() -> Registry {
    let mut entries = vec![
        Entry::new::<demo::DemoChestCt>("demo.chest_ct", 1, Kind::Table),
        Entry::new::<reports::table::ReportsTable>("reports.table", 2, Kind::Table).quick(),
        Entry::new::<reports::folder::ReportsFolder>("reports.folder", 1, Kind::Table).quick(),
        Entry::new::<reports::fhir::ReportsFhir>("reports.fhir", 1, Kind::Table).quick(),
        Entry::new::<reports::hl7::ReportsHl7>("reports.hl7", 1, Kind::Table).quick(),
        Entry::new::<label::table::LabelsTable>("labels.table", 1, Kind::Table).quick(),
        Entry::new::<label::rules::LabelRules>("label.rules", 2, Kind::Row("reports")).quick().remembered(),
        Entry::new::<label::llm::LabelLlm>("label.llm", 3, Kind::Row("reports")),
        Entry::new::<label::merge::LabelMerge>("label.merge", 1, Kind::Table).quick(),
        Entry::new::<label::map::LabelMap>("label.map", 1, Kind::Table).quick(),
        Entry::new::<label::review::export::ReviewExport>("review.export", 1, Kind::Table).quick(),
        Entry::new::<label::review::import::ReviewImport>("review.import", 1, Kind::Table).quick(),
        Entry::new::<label::policy::LabelPolicy>("label.policy", 2, Kind::Row("labels")).quick(),
        Entry::new::<dicom::headers::DicomHeaders>("dicom.headers", 2, dicom::headers::KIND),
        Entry::new::<dicom::series::DicomSeries>("dicom.series", 1, Kind::Table).quick(),
        Entry::new::<volumes::scan::VolumesScan>("volumes.scan", 3, volumes::scan::KIND),
        Entry::new::<volumes::resample::VolumesResample>("volumes.resample", 3, volumes::resample::KIND),
        Entry::new::<images::scan::ImagesScan>("images.scan", 2, images::scan::KIND),
        Entry::new::<images::prepare::ImagesPrepare>("images.prepare", 2, images::prepare::KIND),
        Entry::new::<split::groups::SplitGroups>("split.groups", 1, Kind::Table).quick(),
        Entry::new::<train::classifier::TrainClassifier>("train.classifier", 3, Kind::Table),
        Entry::new::<train::clip::TrainClip>("train.clip", 2, Kind::Table),
        Entry::new::<predict::Predict>("predict", 1, predict::KIND),
        Entry::new::<embed::images::EmbedImages>("embed.images", 1, embed::images::KIND),
        Entry::new::<embed::text::EmbedText>("embed.text", 1, embed::text::KIND),
        Entry::new::<eval::classification::EvalClassification>("eval.classification", 2, Kind::Table).quick(),
        Entry::new::<eval::zero_shot::EvalZeroShot>("eval.zero_shot", 1, Kind::Table),
        Entry::new::<eval::retrieval::EvalRetrieval>("eval.retrieval", 1, Kind::Table).quick(),
        Entry::new::<eval::agreement::EvalAgreement>("eval.agreement", 1, Kind::Table).quick(),
        Entry::new::<prompt::sweep::PromptSweep>("prompt.sweep", 3, Kind::Table),
    ];
    entries.push(Entry::new::<command::Command>("command", 1, Kind::Table));
    #[cfg(feature = "sql")]
    entries.push(Entry::new::<sql::operator::Sql>("sql", 1, Kind::Table).quick().remembered());
    Registry::new(entries)
}
