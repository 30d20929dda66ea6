//! The built-in German cues.

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
    "(klinische )?(angaben?|fragestellung|information(en)?|indikation|anamnese)|klinik|rechtfertigende indikation",
    "technik|methodik|untersuchungstechnik|vergleich|voraufnahmen?|voruntersuchung(en)?|untersuchung",
];

const PSEUDO_NEGATION: &[&str] = &[
    "(keine?n?|ohne) (signifikante?n?|wesentliche?n?|relevante?n?|sichere?n?|neue?n?)? ?(änderung|veränderung|befundänderung|größenzunahme|zunahme|progress|befundwandel|dynamik)( (der|des|von))?",
    "nicht (wesentlich |signifikant |relevant )?(verändert|größenprogredient|progredient|vergrößert|zugenommen|abgenommen)",
    "nicht (wesentlich |signifikant |nennenswert |mehr )?(disloziert|dislozierte?[rnms]?|verschoben|verschobene?[rnms]?|verkalkte?[rnms]?)|nicht-disloziert\\w*",
    "(ohne|keine?) (wesentliche |relevante |signifikante |nennenswerte |sekundäre |erkennbare )?(dislokation|fehlstellung|stufenbildung|gelenkstufe|gelenkbeteiligung|verkürzung|rotationsfehler|achsabweichung|achsfehlstellung)( (der|des|im|am|einer|eines))?",
    "nicht nur|ohne (kontrastmittel|km)|nativ",
    "nicht (sicher |vollständig |eindeutig |ausreichend )?(beurteilbar|beurteilt|abgrenzbar von)",
];

const UNCERTAIN_AFTER: &[&str] = &[
    "nicht (sicher |vollständig |völlig |eindeutig |gänzlich )?(auszuschließen|ausgeschlossen|ausschließbar)",
    "(ist|sind|erscheint|wäre|bleibt) (möglich|denkbar|wahrscheinlich|fraglich|nicht ausgeschlossen)|möglich|denkbar|fraglich|nicht sicher|in betracht zu ziehen",
];

const UNCERTAIN_BEFORE: &[&str] = &[
    "(hochgradiger? |dringender? |klinischer? )?verdacht( auf)?|v\\. ?a\\.|va|vd|verdächtig auf|suspekt( auf)?|suspekte?[rnms]?|verdächtige?[rnms]?|hinweisend auf|fragl\\.|fraglich(e|er|es|en)?|möglich(e|er|es|en|erweise)?|wahrscheinlich(e|er|es|en)?|vermutlich(e|er|es|en)?|a\\. ?e\\.|am ehesten|ehesten|eher|vereinbar mit|passend zu|dd|differentialdiagnostisch|differenzialdiagnostisch|könnten? .{0,30}entsprechen|kann .{0,30}entsprechen",
];

const NEGATION_AFTER: &[&str] = &[
    "(ist |sind |war |waren |wird |werden |lässt sich |lassen sich )?(aktuell |derzeit |sicher |eindeutig )?(nicht|nirgends) (mehr )?(sicher |eindeutig )?(nachweisbar|nachgewiesen|nachzuweisen|erkennbar|sichtbar|abgrenzbar|vorhanden|zu erkennen|darstellbar|dargestellt|gesehen|abgegrenzt|vergrößert|erweitert|verbreitert|verdickt)",
    "(ist|sind|wurde|wurden) (ausgeschlossen|entfernt|unauffällig|normal|regelrecht|frei)|ausgeschlossen|entfernt",
    ": *(keine?r?|nein|nicht [a-zäöü]+|negativ|entfällt)( *$| *[,.(])",
];

/// The longer ones stand first, because of the alternatives of an expression the first that matches is taken.
const NEGATION_BEFORE: &[&str] = &[
    "keine?n? ((sicherer?|eindeutiger?|direkter?|radiologischer?) )?(anhalt|hinweise?|nachweis|zeichen|anzeichen|verdacht)( (für|auf|von|einer|eines))?",
    "fehlender nachweis|zustand nach entfernung|z\\. ?n\\. entfernung|ausschluss( von| einer| eines)?|frei von",
    "keine?n?|keiner(lei)?|keinem|keines|nicht|ohne|weder|noch|fehlende?r?",
];

const SKIP: &[&str] = &[
    "(anamnestisch|frage nach|ausschluss\\?|bekannte? anamnese|kontrolle bei|zum ausschluss|bei klinischem verdacht|verlaufskontrolle bei)",
];

const SCOPE_END: &[&str] = &[
    "mit|bei|aufgrund|infolge|im sinne|entsprechend|wegen|durch|nach",
    ", (die|der|das|ein|eine|geringe?|mäßige?|deutliche?|diskrete?|bekannte?|kleine?)",
];

const AFFIRMATION: &[&str] = &[
    "(zeigt|zeigen|findet|finden|stellt|stellen) sich|es (zeigt|zeigen|findet|finden|besteht|bestehen)|besteht|bestehen|nachweisbar|(ist|sind) (erkennbar|sichtbar|vorhanden|nachweisbar|abgrenzbar|vergrößert)|nachweis (von|einer|eines)",
];

const CLAUSE_END: &[&str] =
    &["aber|jedoch|allerdings|außer|bis auf|abgesehen von|hingegen|dagegen|sondern|ansonsten|sonst", ": "];
