//! The sentences that reports are made of: ordinary radiology English in several wordings.
//!
//! `{…}` is a place that the report fills in from the scan's appearance.

use super::{Appearance, Device, Finding};

/// What can be said of one finding.
pub(super) struct Phrases {
    /// The finding in a list or after "no".
    pub(super) noun: &'static str,
    /// That it is there, in the findings section.
    pub(super) present: &'static [&'static str],
    /// That it may be there. Without particulars, for the finding may be absent.
    pub(super) doubtful: &'static [&'static str],
    /// That it is not there.
    pub(super) absent: &'static [&'static str],
    /// That it is there, in the impression.
    pub(super) short: &'static [&'static str],
}

impl Phrases {
    /// What can be said of `finding` when it looks like `appearance`.
    pub(super) fn of(finding: Finding, appearance: &Appearance) -> Self {
        match finding {
            Finding::MedicalMaterial => medical_material(appearance.device),
            Finding::ArterialWallCalcification => ARTERIAL_WALL_CALCIFICATION,
            Finding::Cardiomegaly => CARDIOMEGALY,
            Finding::HiatalHernia => HIATAL_HERNIA,
            Finding::Emphysema => EMPHYSEMA,
            Finding::LungNodule => LUNG_NODULE,
            Finding::PleuralEffusion => PLEURAL_EFFUSION,
            Finding::Consolidation => CONSOLIDATION,
        }
    }
}

const CARDIOMEGALY: Phrases = Phrases {
    noun: "cardiomegaly",
    present: &[
        "The heart is enlarged.",
        "Cardiomegaly is present.",
        "The heart is larger than normal, with a cardiothoracic ratio of {ratio}.",
        "Heart size has increased.",
        "The cardiac silhouette is increased in size.",
        "There is cardiac enlargement with a cardiothoracic ratio of {ratio}.",
        "An enlarged heart is observed.",
        "Moderate cardiomegaly is noted.",
    ],
    doubtful: &[
        "The heart is at the upper limit of normal; mild cardiomegaly cannot be excluded.",
        "Possible cardiomegaly.",
        "The cardiac contour is suspicious for cardiomegaly.",
    ],
    absent: &[
        "Heart size is normal.",
        "The heart is not enlarged.",
        "The heart is of normal size.",
        "Cardiomegaly was not observed.",
        "There is no cardiomegaly.",
        "No cardiac enlargement is seen.",
    ],
    short: &["Cardiomegaly.", "Enlarged heart.", "Cardiac enlargement."],
};

const PLEURAL_EFFUSION: Phrases = Phrases {
    noun: "pleural effusion",
    present: &[
        "{side} pleural effusion is observed, measuring {depth} mm at its deepest point.",
        "There is pleural effusion {on side}, {depth} mm thick.",
        "Pleural fluid with a depth of {depth} mm is seen {on side}.",
        "Fluid layers dependently in the {space}.",
        "Effusion measuring {depth} mm is present in the {space}.",
        "{side} pleural effusion.",
        "Free pleural fluid is noted {on side}.",
    ],
    doubtful: &[
        "A small pleural effusion cannot be excluded.",
        "There may be a small pleural effusion.",
        "Dependent pleural density is suspicious for effusion.",
        "Possible pleural effusion.",
    ],
    absent: &[
        "No pleural effusion.",
        "Pleural effusion was not observed.",
        "There is no evidence of pleural effusion.",
        "No effusion was detected in either pleural space.",
        "The pleural spaces are normal without effusion.",
        "Pleural effusion or thickening was not detected.",
        "No pleural or pericardial effusion is seen.",
    ],
    short: &["{side} pleural effusion.", "Pleural effusion {on side}.", "Pleural fluid {on side}."],
};

const CONSOLIDATION: Phrases = Phrases {
    noun: "consolidation",
    present: &[
        "Consolidation is observed in the {lobe}.",
        "There is airspace consolidation in the {lobe}.",
        "An area of consolidation with air bronchograms is seen in the {lobe}.",
        "The {lobe} is partly consolidated, and bronchi within it remain open.",
        "A consolidative area is present in the {lobe}.",
        "In the {lobe}, consolidated lung parenchyma containing air bronchograms is noted.",
    ],
    doubtful: &[
        "Findings are suspicious for early consolidation.",
        "Possible focus of consolidation.",
        "A small consolidation cannot be excluded.",
        "Increased density may represent consolidation.",
    ],
    absent: &[
        "No consolidation.",
        "Consolidation was not observed in either lung.",
        "There is no evidence of consolidation.",
        "Both lungs are well aerated without consolidation.",
        "No active infiltration or consolidation was detected.",
        "The lungs are free of consolidation.",
    ],
    short: &[
        "Consolidation in the {lobe}.",
        "{lobe} consolidation.",
        "Airspace consolidation in the {lobe}.",
    ],
};

const LUNG_NODULE: Phrases = Phrases {
    noun: "lung nodule",
    present: &[
        "Multiple pulmonary nodules are observed, the largest in the {nodule lobe} with a diameter of {diameter} mm.",
        "There are numerous lung nodules; the largest measures {diameter} mm and lies in the {nodule lobe}.",
        "Solid nodules are seen in both lungs, up to {diameter} mm in the {nodule lobe}.",
        "Multiple nodular densities are present, the largest of which measures {diameter} mm in the {nodule lobe}.",
        "Both lungs contain round nodular lesions, for example one of {diameter} mm in the {nodule lobe}.",
        "A {diameter} mm nodule in the {nodule lobe} and many smaller nodules are noted.",
    ],
    doubtful: &[
        "Possible small pulmonary nodules.",
        "A small nodule next to a vessel cannot be excluded.",
        "Focal densities are suspicious for lung nodules.",
        "There may be subcentimetre nodules.",
    ],
    absent: &[
        "No pulmonary nodule.",
        "No nodule was detected in either lung.",
        "Lung nodules were not observed.",
        "There is no evidence of a pulmonary nodule or mass.",
        "The lungs are aerated without nodules.",
        "No suspicious mass or nodule is seen.",
    ],
    short: &["Pulmonary nodules.", "Multiple lung nodules up to {diameter} mm.", "Nodules in both lungs."],
};

const EMPHYSEMA: Phrases = Phrases {
    noun: "emphysema",
    present: &[
        "Emphysematous changes are observed in both lungs, mainly in the upper lobes.",
        "Centrilobular emphysema is present, predominantly in the upper lobes.",
        "There is emphysema in both lungs.",
        "Areas of low attenuation in keeping with emphysema are seen in the upper zones.",
        "Both lungs are emphysematous.",
        "Patchy destruction of the lung parenchyma due to emphysema is noted.",
    ],
    doubtful: &[
        "Possible mild emphysema.",
        "Lucent areas may represent early emphysema.",
        "Mild emphysema cannot be excluded.",
    ],
    absent: &[
        "No emphysema.",
        "Emphysema was not observed.",
        "There are no emphysematous changes.",
        "No evidence of emphysema is seen.",
        "Lung attenuation is normal without emphysema.",
    ],
    short: &["Emphysema.", "Emphysematous changes in both lungs.", "Upper lobe predominant emphysema."],
};

const ARTERIAL_WALL_CALCIFICATION: Phrases = Phrases {
    noun: "aortic wall calcification",
    present: &[
        "Calcified atheromatous plaques are observed in the aortic wall.",
        "There are wall calcifications in the thoracic aorta.",
        "Atherosclerotic calcification of the aortic arch and descending aorta is present.",
        "Calcific plaques are seen in the wall of the thoracic aorta.",
        "The aortic wall is calcified.",
        "Vascular calcification is noted along the aorta.",
    ],
    doubtful: &[
        "Possible minimal calcification of the aortic wall.",
        "A punctate density may represent aortic wall calcification.",
        "Early atherosclerotic calcification of the aorta cannot be excluded.",
    ],
    absent: &[
        "No calcification is seen in the wall of the aorta.",
        "Arterial wall calcification was not observed.",
        "The thoracic aorta is of normal calibre without calcified plaque.",
        "There is no atherosclerotic calcification of the aorta.",
        "No calcified atheromatous plaque was detected.",
    ],
    short: &[
        "Calcified plaques in the aorta.",
        "Aortic wall calcification.",
        "Atherosclerotic aortic calcification.",
    ],
};

const HIATAL_HERNIA: Phrases = Phrases {
    noun: "hiatal hernia",
    present: &[
        "A hiatal hernia is observed.",
        "There is a hiatus hernia behind the heart.",
        "Sliding type hiatal hernia is present.",
        "Part of the stomach lies above the diaphragm, in keeping with a hiatal hernia.",
        "A hiatal hernia containing gas is seen in the lower mediastinum.",
        "Herniation of the stomach through the oesophageal hiatus is noted.",
    ],
    doubtful: &[
        "Possible small hiatal hernia.",
        "A small sliding hiatal hernia cannot be excluded.",
        "Fullness at the oesophageal hiatus may represent a hiatal hernia.",
    ],
    absent: &[
        "No hiatal hernia.",
        "Hiatal hernia was not observed.",
        "There is no hiatus hernia.",
        "No evidence of hiatal hernia is seen.",
    ],
    short: &["Hiatal hernia.", "Hiatus hernia.", "Sliding type hiatal hernia."],
};

fn medical_material(device: Device) -> Phrases {
    Phrases {
        noun: "implanted device",
        present: match device {
            Device::Pacemaker => &[
                "A pacemaker is observed in the left pectoral region, with its lead in the right heart.",
                "There is a left-sided cardiac pacemaker.",
                "Pacemaker generator and lead are in place.",
            ],
            Device::PortCatheter => &[
                "A port catheter is observed on the right, with its tip in the superior vena cava.",
                "There is a right-sided port with a central venous catheter.",
                "A right-sided port chamber is present, and its catheter ends in the superior vena cava.",
            ],
            Device::SternotomyWires => &[
                "Sternotomy wires are observed.",
                "There are metallic sternal sutures from previous cardiac surgery.",
                "Sternotomy wires are in place after open heart surgery.",
            ],
        },
        doubtful: match device {
            Device::Pacemaker => &["A metallic density may represent a pacemaker lead."],
            Device::PortCatheter => &["A linear density is suspicious for a retained catheter."],
            Device::SternotomyWires => &["Punctate metallic densities may represent sternal sutures."],
        },
        absent: &[
            "No implanted device is seen.",
            "No pacemaker or central venous catheter is seen.",
            "There is no catheter or other medical device.",
            "No medical material was observed.",
        ],
        short: match device {
            Device::Pacemaker => &["Pacemaker in place.", "Cardiac pacemaker."],
            Device::PortCatheter => &["Port catheter in place.", "Right-sided port catheter."],
            Device::SternotomyWires => {
                &["Sternotomy wires.", "Status after sternotomy with sternal sutures."]
            }
        },
    }
}

/// Sentences that deny a list of findings.
pub(super) const DENIALS: &[&str] = &[
    "No {list}.",
    "No {list} was observed.",
    "There is no {list}.",
    "There is no evidence of {list}.",
    "The examination is without {list}.",
];

/// What follows a finding that the scan before had too.
pub(super) const UNCHANGED: &[&str] = &[
    "This is unchanged compared with the previous examination.",
    "It was also present on the previous examination.",
    "There is no significant change compared with the previous scan.",
];

/// That a finding of the scan before is gone.
pub(super) const RESOLVED: &[&str] = &[
    "The previously described {noun} has resolved.",
    "The {noun} of the previous examination is no longer seen.",
    "The {noun} seen on the previous scan was not observed in this examination.",
];

/// That a finding may be there, in the impression.
pub(super) const DOUBTFUL_IMPRESSION: &[&str] =
    &["Possible {noun}.", "Findings suspicious for {noun}.", "Questionable {noun}."];

/// The impression when there is nothing of note.
pub(super) const NORMAL_IMPRESSION: &[&str] = &[
    "Chest CT within normal limits.",
    "No acute finding in the chest.",
    "No pathological finding was detected.",
    "Normal examination of the chest.",
];

/// The impression when it leaves out what there is.
pub(super) const SEE_FINDINGS: &[&str] = &["Findings as described above.", "As described above."];

/// Why a scan was asked for. Drawn without regard to what is there, and never a statement about the scan.
pub(super) const CLINICAL_INFORMATION: &[&str] = &[
    "Not given.",
    "Not given.",
    "Cough.",
    "Cough and fever, rule out pneumonia.",
    "Shortness of breath, pleural effusion?",
    "Dyspnoea. Question: pleural effusion or consolidation?",
    "Smoker, evaluate for emphysema.",
    "Follow-up of a pulmonary nodule.",
    "Nodule suspected on chest radiograph.",
    "Chest pain, rule out cardiomegaly and aortic disease.",
    "Reflux, hiatal hernia?",
    "Preoperative evaluation.",
    "Weight loss.",
    "Routine control.",
];

/// How a scan was made.
pub(super) const TECHNIQUE: &[&str] = &[
    "Non-contrast chest CT in the supine position, reconstructed with a slice thickness of {thickness} mm.",
    "Axial sections of the chest were obtained without intravenous contrast. Slice thickness is {thickness} mm.",
    "Unenhanced CT of the thorax in deep inspiration. Slice thickness: {thickness} mm.",
];

/// What is said of the airways, which are always normal.
pub(super) const AIRWAYS: &[&str] = &[
    "Trachea and both main bronchi are open.",
    "The trachea and main bronchi are patent.",
    "No occlusive pathology was observed in the trachea and main bronchi.",
    "The central airways are clear.",
];

/// What is said of the lymph nodes, which are not drawn.
pub(super) const LYMPH_NODES: &[&str] = &[
    "No pathologically enlarged mediastinal lymph nodes were observed.",
    "There is no mediastinal or hilar lymphadenopathy.",
    "Lymph nodes of pathological size were not detected.",
];

/// What is said of the upper abdomen.
pub(super) const ABDOMEN: &[&str] = &[
    "Upper abdominal organs included in the sections are normal.",
    "The imaged parts of liver and spleen are unremarkable.",
    "No free fluid was observed in the upper abdomen.",
];

/// What is said of the bones.
pub(super) const BONES: &[&str] = &[
    "Bone structures in the examination area are normal.",
    "Vertebral body heights are preserved.",
    "No lytic or destructive bone lesion was observed.",
    "Thoracic vertebrae show no fracture.",
];
