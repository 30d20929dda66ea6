//! The built-in English cues.
//!
//! Collected from the trigger lists of NegEx and NegBio and from the phrasing of chest radiograph
//! and chest CT reports, including reports translated from Turkish, which negate after the mention.

use crate::cues::CueKind;

pub(crate) fn cues(kind: CueKind) -> &'static [&'static str] {
    match kind {
        CueKind::Pseudo => PSEUDO_NEGATION,
        CueKind::UncertainAfter => UNCERTAIN_AFTER,
        CueKind::UncertainBefore => UNCERTAIN_BEFORE,
        CueKind::NegationAfter => NEGATION_AFTER,
        CueKind::NegationBefore => NEGATION_BEFORE,
        CueKind::Skip => SKIP,
        CueKind::ClauseEnd => CLAUSE_END,
        CueKind::ScopeEnd => SCOPE_END,
        CueKind::Affirmation => AFFIRMATION,
    }
}

/// Headings whose text is not about the image.
pub(crate) const SKIPPED_HEADINGS: &[&str] = &[
    "(clinical )?(information|history|indication|data|details|context|question)s?",
    "indications?( for (exam|examination|study))?",
    "reason for (the )?(exam|examination|study)",
    "technique|procedure|protocol|comparisons?|comparison studies|examination|exam( type)?|study",
    "patient history|(past )?medical history|symptoms",
];

const PSEUDO_NEGATION: &[&str] = &[
    "(no|without|not) (any )?(significant(ly)?|major|definite|substantial|interval|appreciable|apparent|obvious|further|other|relevant|real|marked)? ?(interval |relevant )?(change[sd]?|difference|differ|increase[sd]?|decrease[sd]?|progress(ion|ed)|growth|enlargement|worsening|improvement|improved|resolution|regression)( (in|of|from|since|to|compared))?",
    "no (longer )?significant (interval )?change",
    "did not (show (any )?(significant )?(change|difference)|change|increase|decrease|differ|grow)( significantly)?",
    "does not (show (any )?(significant )?(change|difference)|change|differ)( significantly)?",
    "(has|have) not (significantly )?(changed|resolved|cleared|increased|decreased|improved|progressed|healed)( significantly)?",
    "not (yet |completely |entirely |fully )(resolved|cleared|healed)",
    "(consistent|compatible) with (the |a |an )?(known |given |patient's |prior |previous |old |clinical )*history of",
    "not only|not certain (if|whether)|no doubt|gram negative|not necessarily|not otherwise specified",
    "(is|are|was|were) no longer (small|mild|subtle|as)",
    "(size|nature|etiology|cause|extent|characterization) (of .{0,40})?(is|was|could|can) not",
    "not (include|contain|require)d? (in|on) (the )?(examination|section|image|field)s?",
    "none ?the ?less",
    "non ?-? ?(displaced|united|healed|healing|calcified|obstructive|specific)|not (significantly )?displaced|un-?displaced",
    "without (contrast|iv contrast|intravenous contrast|contrast medium)|non ?-?contrast|no (iv |intravenous )?contrast( agent| material| medium)?( (was|is|has been) (given|used|administered))?",
    "not (well|clearly|fully|optimally|adequately|completely) (evaluated|assessed|characterized|imaged|included|evaluable|defined)",
    "(could|can) ?not be (optimally |clearly |fully |adequately )?(evaluated|assessed|characterized|differentiated|distinguished from|compared|measured|determined)( optimally| clearly)?",
    "not (reach|reaching|exceed|exceeding|in|at|of) (the )?(pathological|significant|pathologic)[a-z ]{0,30}(size|dimension|diameter|level|appearance)s?",
    "(did|does|do|has|have|that did|which did) not (reach|exceed|attain)",
];

const UNCERTAIN_AFTER: &[&str] = &[
    "(can ?not|could not|can't|couldn't|may not|not) (be )?(completely |entirely |definitely |definitively |totally |reliably |fully |clearly )*(be )?(excluded|ruled out|exclude[d]?|ruled-out)",
    "(is|are|was|were|remains?) (not (completely |entirely |definitively )?(excluded|ruled out)|possible|suspected|likely|probable|questionable|questioned|suggested|considered|favored|favoured|a possibility|a consideration|in the differential( diagnosis)?|difficult to exclude|less likely)",
    "(should|may|might|could|can) (also )?be (considered|suspected|possible|present|thought of)",
    "(difficult|hard|not possible) to (exclude|rule out|entirely exclude|completely exclude)",
    "not excluded",
];

const UNCERTAIN_BEFORE: &[&str] = &[
    "(may ?be|possibly|probably|likely|perhaps|presumably) (due|related|secondary|attributable) to",
    "maybe|possibl[ey]|possibility of|probabl[ey]|presumabl[ey]|presumed|potentially|potential|perhaps|likely|questionable|questioned|question of|question|equivocal|suspected|suspect|suspicion (of|for)|suspicious( for| of| in terms of)?|suspiciously|concern(ing)? (for|of|about|in terms of)|worrisome for",
    "(may|might|could|can|would) (also |well |possibly |potentially )?(be (due|related|secondary|compatible|consistent|attributable|attributed|caused|suggestive)|be|represent|reflect|indicate|suggest|relate|correspond|have|belong|include|signify|simulate|mimic|account|healing)( to| of| for| with| by)?",
    "(suggest(s|ed|ing)?|suggestive|suggestion|indicative)( of| that| the)?|indeterminate for|impression of",
    "(can ?not|could not|can't|couldn't) (completely |entirely |definitely |definitively |reliably )?(exclude|rule out)|difficult to (exclude|rule out)|not exclud(e|ing)",
    "versus|vs|differential (diagnosis|diagnoses|considerations?)?( includes?| would include| may include)?|considerations? (includes?|for)|in the differential",
    "(in|is|are|was|were) (primarily )?(evaluated )?in fav(o|ou)r of|primarily evaluated|favor(s|ed|ing)?|favour(s|ed|ing)?|primarily considered|firstly",
    "thought to (be|represent)|felt to (be|represent)|believed to (be|represent)|considered( as| to be)?|in terms of|as if",
    "conceivabl[ey]|borderline",
];

const NEGATION_AFTER: &[&str] = &[
    "(is|are|was|were|be|been|has been|have been|had been|has|have|do|does|did|could|can|being)? ?n(o|')t (been |be |being )?(definitely |definitively |clearly |convincingly |currently |well |readily |apparently |significantly |obviously )?(seen|observed|detected|identified|visuali[sz]ed|visible|noted|found|evident|present|demonstrated|appreciated|apparent|encountered|recogni[sz]ed|distinguished|discerned|discernible|determined|revealed|shown|monitored|watched|followed|selected|remarkable|described|suspected|existent|occur(red)?|available|confirmed|depicted|displayed|traced|exist|in question|appear|defined|reported|noticed|mentioned|viewed|enlarged|dilated|increased|thickened|elevated|widened)",
    "(is|are|was|were|has|have) (un|in)(remarkable|visible|apparent|evident)",
    "(is|are|was|were|be|has been|have been) (absent|excluded|ruled out|negative|nonexistent|unlikely|free|resolved|undetectable|removed|withdrawn|extubated)",
    "(has|have|had|is|are) (since |now |also |completely |subsequently )*(resolved|cleared|disappeared|been removed|been withdrawn|been extubated|gone|regressed completely|completely regressed|completely disappeared)",
    "(is|are|was|were) no longer (seen|visible|visuali[sz]ed|present|identified|evident|observed|appreciated|detected|noted|apparent|demonstrated|distinguished|in place)",
    "no longer (seen|visible|visuali[sz]ed|present|identified|evident|observed|detected)",
    "not (seen|observed|detected|identified|visuali[sz]ed|visible|present|evident|appreciated|demonstrated|found|noted)",
    "((is|are|was|were|appears?|remains?) )?(within|in) (the )?(normal (limits?|range)|limits of normal)|(is|are|was|were) (also )?(grossly |completely |entirely |otherwise )?(normal|natural|unremarkable|clear|preserved)( in (size|appearance|caliber|calibre))?",
    "(also )?(have|has) (a )?(normal|natural) (appearance|size|calibration|caliber)",
    "(is|are|was|were) (of )?(normal|natural)( size| width| caliber| calibration| thickness)?",
    ": *(none|absent|nil|negative|not [a-z]+|no)( *$| *[,.(])",
    "absent|unlikely|ruled out",
];

const NEGATION_BEFORE: &[&str] = &[
    "(no|without|any|not) (radiographic |ct |definite |convincing |clear |imaging |other |specific |direct |significant )*(evidence|sign|signs|indication|finding|findings|suggestion|suspicion|suspicious|feature|features|radiographic evidence)( of| for| to suggest| suggesting)?",
    "((is|are|was|were|remains?|appears?) )?((grossly|otherwise|also|relatively|essentially|currently|clearly) )*(free|clear|devoid) (of|from)( any)?",
    "(do|does|did) not (clearly |definitely )?(demonstrate|show|reveal|contain|have|exhibit|display|suggest|represent|indicate)",
    "no|not|non|without|w/o|never|nor|neither|none( of)?|denies|absence of|absent|lack of|lacks?|lacking|negative for|negative of|exclude[sd]?|excluding|ruled out( for)?|rules? out",
    "resolution of|resolved|resolution|(interval )?removal of|removed|interval clearing of|clearing of|rather than|instead of|no longer|cannot (be )?(see|seen|identify)|unable to (identify|see)|fail(s|ed)? to (show|demonstrate|reveal)|inconsistent with|not (suspicious|suggestive|compatible|consistent)( for| of| with)?|unlikely( to (be|represent))?|doubtful|least likely|rejected",
];

const SKIP: &[&str] = &[
    "(to )?(evaluate|evaluated|evaluation|assess|assessed|assessment|screen|screening|monitor|work-?up|look|looking|search|surveillance|correlate|follow|checked|investigat(e|ed|ion)) (for|of|in terms of)",
    "(to )?(rule out|exclude|r/o)",
    "(if|when|where|as) (there is |there are )?(a )?(clinical |clinically )?(concern|suspicion|indicated|suspected|warranted)( for| of| is)?",
    "(history|hx|h/o) (of|for)?|known history of|past|family history|risk (of|for)|prior to|at risk|treated for|diagnosed with|diagnosis of|operated for",
    "(detecting|detection of|sensitivity (for|of)|(limits?|obscures?|hinders?|limited|obscuration) (the )?(evaluation|assessment|visuali[sz]ation) (of|for))",
];

const SCOPE_END: &[&str] = &[
    "with|due to|secondary to|because of|related to|status post|s/p|consistent with|representing|resulting (in|from)|caus(ing|ed) by|caused|in keeping with|as a result of|attributed to|reflecting|overlying|adjacent to|next to|surrounding|superimposed on|in the setting of|in a patient|given|since|following|after|as well as|including|in addition to|instead|is due|are due|which",
    ", (there|this|these|the|a|an|mild|moderate|severe|stable|unchanged|minimal|scattered|chronic|old|bilateral|left|right|status|again|persistent|mildly|stably|bibasilar|but|and (there|the))",
];

const AFFIRMATION: &[&str] = &[
    "(is|are|was|were|has been|have been|had been|being)( also| again| still| now| currently| noted| clearly| mildly| grossly| otherwise| once again| redemonstrated)* (seen|observed|noted|present|identified|detected|visuali[sz]ed|visible|demonstrated|found|evident|appreciated|stable|unchanged|measured|again|increased|decreased|enlarged|elevated|tortuous|calcified|available|followed|thought|located|in place|intact|there|mild|moderate|prominent|watched|monitored|redemonstrated|suspected|selected|placed|remarkable|compatible|consistent|evaluated|low|hyperexpanded|hyperinflated|clear|normal|natural|unremarkable|open)",
    ", (its|their|the other|there)|there (is|are|was|were|has been|have been)|(remains?|appears?|shows?|showed|demonstrates?|demonstrated|contains?|reveals?|revealed|persists?|exists?|attract(s|ed)? attention|draws? attention|continues?)|measur(es|ing|ed)",
];

const CLAUSE_END: &[&str] = &[
    "but|however|although|though|except( for)?|apart from|other than|aside from|besides|outside of|beside|while|whereas|nevertheless|yet|otherwise|despite|only|in contrast",
    ": ",
];
