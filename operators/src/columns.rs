//! What the columns of results mean. A name means the same in every table, so that one list is enough; a name
//! that an operator uses in a sense of its own stands there as `operator.column`.

/// What a column means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    /// The unit of its numbers; empty where they have none.
    pub unit: &'static str,
    /// One sentence.
    pub doc: &'static str,
}

/// By name, in the order of the alphabet: unit and sentence.
const MEANINGS: &[(&str, &str, &str)] = &[
    ("ac1", "", "Gwet's AC1: agreement beyond chance that stays meaningful for rare findings."),
    ("accession", "", "The accession number of the examination."),
    ("accuracy", "", "The share of decisions that are right."),
    ("affine", "", "From voxel indices to millimetres in RAS: a 4 x 4 matrix, row by row."),
    (
        "affine_source",
        "",
        "Where the affine comes from: `sform`, `qform`, the positions of `slices`, a `table`, or `assumed`.",
    ),
    ("agreement", "", "The share of samples that say the state."),
    (
        "air_peak_hu",
        "HU",
        "Where the histogram has its peak of air, which is near -1000; null where there is none.",
    ),
    ("answer", "", "What the model answered, as it came."),
    ("array", "", "The array of the archive that is the volume; null where none was named."),
    ("attempts", "", "How often it was tried."),
    ("auc", "", "The area under the ROC curve; null without positives or without negatives."),
    ("auc_high", "", "The upper end of its 95 % interval (DeLong)."),
    ("auc_low", "", "The lower end of its 95 % interval (DeLong)."),
    ("auc_other", "", "The AUC of the other labeling."),
    ("auc_p_value", "", "The p value of the difference in AUC (DeLong)."),
    ("average", "", "How findings are averaged: `macro`, each counts alike."),
    ("average_precision", "", "The area under the precision-recall curve, by steps."),
    ("bits", "", "How many bits a pixel has."),
    ("bits_allocated", "bits", "The bits in which a sample is kept."),
    ("bits_stored", "bits", "The bits that a sample has."),
    ("bytes", "bytes", "The size of the file."),
    ("call", "", "The key of the request that the label came from; `.calls` has a row for it."),
    (
        "cohort_digest",
        "",
        "A digest of the ids that were measured: where it is equal, tables may be compared.",
    ),
    ("columns", "pixels", "The columns of the image."),
    ("comparison", "", "The section about earlier examinations."),
    ("config", "", "The labelling configuration to paste into that program."),
    (
        "content",
        "pixels",
        "Where the kept part lies in the result: column and row of its first pixel, columns, rows.",
    ),
    (
        "crop",
        "pixels",
        "The part of the original that was kept: column and row of its first pixel, columns, rows.",
    ),
    ("demo.chest_ct.path", "", "The path of the file, as if the table were a folder."),
    ("dicom.headers.patient_age", "", "The patient's age: a number and `D`, `W`, `M` or `Y`."),
    ("dicom.series.digest", "", "The digest of the digests of the slices, in their order."),
    ("dicom.series.path", "", "The folder that the slices share."),
    ("difference", "", "The value of the labeling less that of the other."),
    ("difference_high", "", "The upper end of its 95 % interval (paired bootstrap over groups)."),
    ("difference_low", "", "The lower end of its 95 % interval (paired bootstrap over groups)."),
    ("digest", "", "The digest of the file's bytes."),
    (
        "direction_cosines",
        "",
        "Where columns count to, then where rows count to, as unit vectors in DICOM's axes.",
    ),
    ("dtype", "", "The type of the stored voxels, as numpy names it."),
    ("epoch", "", "How often each training volume was seen, counted from 1."),
    ("eval.agreement.other", "", "The value of the other labeling."),
    ("eval.classification.findings", "", "How many findings are in the average."),
    ("evidence", "", "The words of the report that the label rests on."),
    ("excluded", "", "Rows of the part that have no truth to measure by."),
    (
        "exif_orientation",
        "",
        "How the file says that the image was turned, from 1 to 8; null where it does not.",
    ),
    ("f1", "", "The harmonic mean of precision and sensitivity."),
    ("f1_high", "", "The upper end of its 95 % interval (bootstrap over groups)."),
    ("f1_low", "", "The lower end of its 95 % interval (bootstrap over groups)."),
    ("f1_other", "", "F1 of the other labeling."),
    ("failed", "", "Labels that failed: counted here and scored nowhere."),
    ("finding", "", "The finding's id in its pack."),
    (
        "findings",
        "",
        "The findings that the network tells, in the order of its outputs, with commas between.",
    ),
    (
        "fleiss_kappa",
        "",
        "Fleiss' kappa: agreement beyond chance of three or more labellers; null where it is not defined.",
    ),
    ("format", "", "The kind of file: `dicom`, `png` or `jpeg`."),
    (
        "frame_positions_mm",
        "mm",
        "Of a file of several images, the centre of the first pixel of each, three numbers after three, in DICOM's axes: x to \
         the patient's left, y to posterior, z to superior.",
    ),
    ("frames", "", "The images in the file."),
    (
        "gantry_tilt_degrees",
        "degrees",
        "The tilt that the scanner was set to; its sign differs between makers.",
    ),
    ("height", "pixels", "Rows of the image."),
    ("high", "", "The upper end of the value's 95 % interval."),
    ("high_bit", "", "The place of a sample's highest bit."),
    ("hounsfield_max", "HU", "The highest value."),
    ("hounsfield_mean", "HU", "The mean value."),
    ("hounsfield_min", "HU", "The lowest value."),
    ("hounsfield_source", "", "Where Hounsfield units come from: `header`, `already` or `table`."),
    ("id", "", "The row's id."),
    (
        "image_type",
        "",
        "The values of the image type, with backslashes between, such as `ORIGINAL\\PRIMARY\\AXIAL`.",
    ),
    (
        "imager_pixel_spacing_mm",
        "mm",
        "The distance of rows, then of columns, at the detector; null where it is 0.",
    ),
    (
        "images.prepare.spacing_mm",
        "mm",
        "The distance of pixel centres along x and y; null where the file does not say it.",
    ),
    (
        "images.scan.spacing_mm",
        "mm",
        "The distance of pixel centres along x and y; null where the file does not say it.",
    ),
    (
        "images.scan.warnings",
        "",
        "What looks odd about the image, with semicolons between; null where nothing does.",
    ),
    ("impression", "", "The section that says what the findings mean."),
    ("indication", "", "The section that says why the examination was asked for."),
    ("instance_number", "", "The number of the image in its series; it says nothing of the place."),
    (
        "inverted",
        "",
        "Whether dark and light were exchanged, because the file wants its lowest value to be white.",
    ),
    ("kappa", "", "Cohen's kappa: agreement with the truth beyond chance."),
    ("kappa_high", "", "The upper end of its 95 % interval (bootstrap over groups)."),
    ("kappa_low", "", "The lower end of its 95 % interval (bootstrap over groups)."),
    ("kappa_standard_error", "", "The asymptotic standard error of kappa."),
    ("kind", "", "A word for the kind of failure."),
    ("krippendorff_alpha", "", "Krippendorff's alpha for nominal values; null where it is not defined."),
    (
        "label_mass",
        "",
        "The share of all that the model might have said that lies on the states; null where it does not tell.",
    ),
    ("labelings", "", "How many of the labelings have a label of this id and finding."),
    ("low", "", "The lower end of the value's 95 % interval."),
    ("lr", "", "The learning rate of the step."),
    ("macro_accuracy", "", "The mean over findings of the accuracy."),
    ("macro_accuracy_high", "", "The upper end of its 95 % interval (bootstrap over reports)."),
    ("macro_accuracy_low", "", "The lower end of its 95 % interval (bootstrap over reports)."),
    ("macro_f1", "", "The mean over findings of F1."),
    ("macro_f1_high", "", "The upper end of its 95 % interval (bootstrap over reports)."),
    ("macro_f1_low", "", "The lower end of its 95 % interval (bootstrap over reports)."),
    ("macro_kappa", "", "The mean over findings of Cohen's kappa."),
    ("macro_kappa_high", "", "The upper end of its 95 % interval (bootstrap over reports)."),
    ("macro_kappa_low", "", "The lower end of its 95 % interval (bootstrap over reports)."),
    ("macro_sensitivity", "", "The mean over findings of the sensitivity."),
    ("macro_sensitivity_high", "", "The upper end of its 95 % interval (bootstrap over reports)."),
    ("macro_sensitivity_low", "", "The lower end of its 95 % interval (bootstrap over reports)."),
    ("macro_specificity", "", "The mean over findings of the specificity."),
    ("macro_specificity_high", "", "The upper end of its 95 % interval (bootstrap over reports)."),
    ("macro_specificity_low", "", "The lower end of its 95 % interval (bootstrap over reports)."),
    ("mcc", "", "Matthews' correlation coefficient."),
    ("measure", "", "The measure that is averaged."),
    ("message", "", "What is there and what was expected."),
    ("missing", "", "Rows of the truth that have no label."),
    ("modality", "", "The kind of machine, such as `CT`."),
    ("model", "", "The model's name."),
    ("n", "", "Rows that were measured."),
    ("npv", "", "The negative predictive value."),
    ("npv_high", "", "The upper end of its 95 % interval (Wilson)."),
    ("npv_low", "", "The lower end of its 95 % interval (Wilson)."),
    ("observed", "", "The share of pairs of labels that agree."),
    ("only_labels_right", "", "Rows that the labeling has right and the other has wrong."),
    ("only_other_right", "", "Rows that the other labeling has right and this one has wrong."),
    ("orientation", "", "Where the axes run to, such as `RAS`: right, anterior, superior."),
    ("other", "", "What stands before the first heading, where the findings have a heading of their own."),
    ("p1", "", "The value at the first percentile of the pixels."),
    ("p50", "", "The median of the pixels."),
    ("p99", "", "The value at the 99th percentile of the pixels."),
    ("p_absent", "", "How likely the model takes the report to say that the finding is not there."),
    ("p_holm", "", "The p value adjusted for the number of findings (Holm)."),
    ("p_not_mentioned", "", "How likely the model takes the report to say nothing about the finding."),
    ("p_present", "", "How likely the model takes the report to say that the finding is there."),
    ("p_uncertain", "", "How likely the model takes the report to leave the finding open."),
    (
        "p_value",
        "",
        "The p value of no difference: McNemar's mid-p by finding, of the paired bootstrap for an average.",
    ),
    ("padding_value", "", "The stored value outside the field of view."),
    ("part", "", "The part that the row belongs to."),
    ("path", "", "The path of the file."),
    ("patient", "", "The patient's id."),
    ("patient_id", "", "The patient's id in the hospital."),
    ("performed_at", "", "When the examination was done, as the source writes it."),
    (
        "photometric",
        "",
        "What the stored samples mean: `grey`, another kind that holds grey, such as `rgb` with equal colours, or DICOM's word.",
    ),
    ("photometric_interpretation", "", "How samples make colours, such as `MONOCHROME2`."),
    ("pixel_data", "", "Whether there is an image in the file."),
    ("pixel_spacing_mm", "mm", "The distance of rows, then of columns; null where it is 0."),
    ("pixels", "", "The side file of pixels: a grey PNG file."),
    ("port", "", "The input whose row it is about."),
    (
        "position_mm",
        "mm",
        "The centre of the first pixel in DICOM's axes: to the left, to posterior, to superior.",
    ),
    ("positives", "", "Rows whose truth is positive."),
    ("ppv", "", "The positive predictive value, also called precision."),
    ("ppv_high", "", "The upper end of its 95 % interval (Wilson)."),
    ("ppv_low", "", "The lower end of its 95 % interval (Wilson)."),
    ("presentation_lut_shape", "", "How values are shown: `IDENTITY`, or `INVERSE`, the lowest as white."),
    ("procedure", "", "What was done, in words."),
    ("program", "", "The program that the configuration is for."),
    ("prompt", "", "The prompt's file."),
    ("prompt_digest", "", "The digest of the prompt's text."),
    ("rank", "", "The place among the tasks, the least certain first, counted from 1."),
    ("reason", "", "Why the report was chosen."),
    ("reconstruction", "", "Which reconstruction of the scan it is."),
    ("reports", "", "Reports that the prompt was tried on."),
    ("reports.fhir.findings", "", "The section that says what is seen."),
    ("reports.folder.findings", "", "The section that says what is seen."),
    ("reports.hl7.findings", "", "The section that says what is seen."),
    ("request", "", "What the model was asked, as it was sent."),
    ("rescale_intercept", "", "What is added behind the slope."),
    ("rescale_slope", "", "The factor from stored values to Hounsfield units."),
    ("rescale_type", "", "What rescaled values are, such as `HU`."),
    ("retryable", "", "Whether the next run tries again by itself."),
    ("review", "", "Where the reviewer writes the state; empty as exported."),
    ("rows", "pixels", "The rows of the image."),
    ("samples_per_pixel", "", "The samples of a pixel: 1, or 3 for colours."),
    (
        "saturated_voxels",
        "voxels",
        "Voxels outside the range of Hounsfield units that is kept, set to its nearer end.",
    ),
    ("scan", "", "The scan's id."),
    ("score", "", "How likely the finding is there, from 0 to 1; null where the labeller gives none."),
    ("section", "", "The section that the text belongs to."),
    ("selected", "", "Whether this prompt was selected."),
    ("sensitivity", "", "The share of positives that are found."),
    ("sensitivity_high", "", "The upper end of its 95 % interval (Wilson)."),
    ("sensitivity_low", "", "The lower end of its 95 % interval (Wilson)."),
    ("series_description", "", "What the series is called."),
    ("series_instance_uid", "", "The UID of the series."),
    ("series_number", "", "The number of the series in its study."),
    ("shape", "voxels", "The number of voxels along each axis."),
    ("signed", "", "Whether samples are signed."),
    ("signed_at", "", "When this version of the report was signed, as the source writes it."),
    (
        "slice_thickness_mm",
        "mm",
        "The thickness that the slice is said to have; it is not the distance of slices.",
    ),
    ("slices", "", "The files of the volume in the order of their positions; null where it is one file."),
    ("sop_class_uid", "", "What kind of object the file is, by UID."),
    ("sop_instance_uid", "", "The UID of the object."),
    (
        "source",
        "",
        "Which of the labelings the label came from; several, where they agree, with commas between.",
    ),
    ("spacing_mm", "mm", "The distance of voxel centres along each axis."),
    ("specificity", "", "The share of negatives that are not found."),
    ("specificity_high", "", "The upper end of its 95 % interval (Wilson)."),
    ("specificity_low", "", "The lower end of its 95 % interval (Wilson)."),
    ("stack_ids", "", "The stacks that the images of a file belong to, between backslashes."),
    ("state", "", "What the report says: `present`, `absent`, `uncertain`, `not_mentioned`; or `failed`."),
    ("status", "", "The status of the report, as the source calls it."),
    ("step", "", "The step of the optimiser, counted from 1."),
    ("study_instance_uid", "", "The UID of the study."),
    ("target", "", "What a model is to learn, from 0 to 1; null where the weight is 0."),
    ("task", "", "The task as Label Studio reads it, in JSON."),
    ("technique", "", "The section about how the examination was done."),
    ("text", "", "The text as it came, where the main table has it in another spelling."),
    ("threshold", "", "From which score on a decision is positive."),
    ("tokens", "tokens", "The tokens of the questions, by estimate."),
    ("tokens_cached", "tokens", "Those of the input that the server had cached."),
    ("tokens_in", "tokens", "The tokens of the request."),
    ("tokens_out", "tokens", "The tokens of the answer."),
    ("train_loss", "nats", "The loss of the step's volumes."),
    ("transfer_syntax_uid", "", "How the file is written, by UID; null where it does not say."),
    ("truth", "", "What the truth is called, from the parameter."),
    ("truth_state", "", "What the truth says."),
    ("uncertainty", "", "How uncertain the labels of the report are; more comes first."),
    ("undefined", "", "How many findings are left out because the measure is not defined for them."),
    ("undefined_draws", "", "Draws of the bootstrap in which the value was not defined."),
    ("usd", "USD", "What the request cost; null where the price is not known."),
    ("val_loss", "nats", "The loss of the validation part after the epoch; null within one."),
    ("value", "", "The average."),
    ("vector", "", "The volume's features, before the last layer."),
    ("voi_window", "", "The values that the file wants to be black and white; null where it says nothing."),
    ("votes", "", "How many of the labelings say what the label says."),
    ("voxels", "", "The side file of voxels: 16-bit Hounsfield units behind a header of 192 bytes."),
    ("warnings", "", "What looks odd about the volume, with semicolons between; null where nothing does."),
    ("weight", "", "How much the row counts in training: 1, or 0 where the target is masked."),
    ("weights", "", "The side file of weights, with the `view` that they were trained with."),
    ("width", "pixels", "Columns of the image."),
    ("window", "", "The values of the original that became black and white."),
    ("window_center", "", "The centres of the windows to look through."),
    ("window_width", "", "The widths of the same windows."),
];

/// Operators whose columns are named by pipelines alone.
pub const NAMED_BY_PIPELINES: [&str; 2] = ["command", "sql"];

/// What a column of an operator's table means; none where the pipeline names the column.
pub fn meaning(operator: &str, column: &str) -> Option<Meaning> {
    if NAMED_BY_PIPELINES.contains(&operator) {
        return None;
    }
    let of = |name: &str| MEANINGS.iter().find(|(known, _, _)| *known == name);
    let found = of(&format!("{operator}.{column}")).or_else(|| of(column));
    found.map(|(_, unit, doc)| Meaning { unit, doc })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_and_every_doc_is_a_sentence() {
        assert!(MEANINGS.is_sorted_by(|one, other| one.0 < other.0));
        for (name, _, doc) in MEANINGS {
            assert!(doc.ends_with('.') && doc.starts_with(char::is_uppercase), "{name}: {doc}");
        }
    }

    #[test]
    fn an_operator_may_use_a_name_in_a_sense_of_its_own() {
        let doc = |operator: &str| meaning(operator, "findings").map(|meaning| meaning.doc);
        assert_ne!(doc("eval.classification"), doc("train.classifier"));
        assert_eq!(meaning("sql", "whatever"), None);
        assert_eq!(meaning("volumes.resample", "spacing_mm").map(|meaning| meaning.unit), Some("mm"));
    }
}
