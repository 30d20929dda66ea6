//! What a DiagnosticReport resource says.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::reports::decode;

/// A DiagnosticReport, and the entries of the bundle that it stands in.
pub(super) struct Report<'r> {
    pub(super) resource: &'r Value,
    pub(super) bundle: &'r [Value],
}

/// The code of HL7 table 0203 for an accession number.
const ACCESSION: &str = "ACSN";

impl<'r> Report<'r> {
    /// The value of its identifier of this system; without one, the resource's own id.
    ///
    /// # Errors
    /// When it has none.
    pub(super) fn id(&self, system: Option<&str>) -> Result<String, String> {
        let Some(system) = system else {
            return text_of(&self.resource["id"])
                .map(str::to_owned)
                .ok_or("the resource has no `id`".to_owned());
        };
        let mut identifiers = array(&self.resource["identifier"]);
        let found = identifiers.find(|identifier| identifier["system"] == system);
        let value = found.and_then(|identifier| text_of(&identifier["value"]));
        value.map(str::to_owned).ok_or("the resource has no identifier of the system".to_owned())
    }

    pub(super) fn status(&self) -> Option<&'r str> {
        text_of(&self.resource["status"])
    }

    /// Whether it takes back what an earlier version said.
    pub(super) fn is_withdrawn(&self) -> bool {
        matches!(self.status(), Some("entered-in-error" | "cancelled"))
    }

    /// The patient's id: that of the Patient in the same bundle, or the last part of the reference.
    pub(super) fn patient(&self) -> Option<String> {
        let subject = &self.resource["subject"];
        let Some(reference) = text_of(&subject["reference"]) else {
            return text_of(&subject["identifier"]["value"]).map(str::to_owned);
        };
        let named = self.bundle.iter().find(|entry| entry["fullUrl"] == reference);
        let id = named.and_then(|entry| text_of(&entry["resource"]["id"]));
        let last = reference.split("/_history").next().and_then(|url| url.rsplit('/').next());
        id.or(last).filter(|id| !id.is_empty()).map(str::to_owned)
    }

    /// The accession number, its own or that of the order.
    pub(super) fn accession(&self) -> Option<String> {
        let is_accession = |identifier: &&Value| {
            array(&identifier["type"]["coding"]).any(|coding| coding["code"] == ACCESSION)
        };
        let own = array(&self.resource["identifier"]).find(is_accession);
        let ordered =
            || array(&self.resource["basedOn"]).map(|order| &order["identifier"]).find(is_accession);
        own.or_else(ordered).and_then(|identifier| text_of(&identifier["value"])).map(str::to_owned)
    }

    /// When this version was made available.
    pub(super) fn signed_at(&self) -> Option<&'r str> {
        text_of(&self.resource["issued"]).or_else(|| text_of(&self.resource["meta"]["lastUpdated"]))
    }

    /// When the examination was done.
    pub(super) fn performed_at(&self) -> Option<&'r str> {
        text_of(&self.resource["effectiveDateTime"])
            .or_else(|| text_of(&self.resource["effectivePeriod"]["start"]))
    }

    /// What was done, in words.
    pub(super) fn procedure(&self) -> Option<&'r str> {
        let code = &self.resource["code"];
        let display = || array(&code["coding"]).find_map(|coding| text_of(&coding["display"]));
        text_of(&code["text"]).or_else(display)
    }

    pub(super) fn conclusion(&self) -> Option<&'r str> {
        text_of(&self.resource["conclusion"])
    }

    /// The report's text: its presented forms, plain before HTML, else the narrative; none where it has neither.
    ///
    /// # Errors
    /// When there are only forms that are not text, or a text does not decode; the message holds nothing of it.
    pub(super) fn text(&self) -> Result<Option<String>, String> {
        let forms: Vec<&Value> = array(&self.resource["presentedForm"]).collect();
        for wanted in ["text/plain", "text/html"] {
            let some = forms.iter().filter(|form| content_type(form).0 == wanted);
            let texts = some.map(|form| form_text(form)).collect::<Result<Vec<_>, _>>()?;
            let text = texts.join("\n");
            if !text.trim().is_empty() {
                return Ok(Some(text));
            }
        }
        let narrative = &self.resource["text"];
        if narrative["status"] != "empty"
            && let Some(div) = text_of(&narrative["div"])
        {
            return Ok(Some(nanohtml2text::html2text(div)));
        }
        match forms.first() {
            Some(form) if self.conclusion().is_none() => {
                let found = content_type(form).0;
                Err(format!("the report's form is `{found}`, expected text/plain or text/html"))
            }
            _ => Ok(None),
        }
    }
}

/// A form's media type in lower case, and its charset.
fn content_type(form: &Value) -> (String, Option<String>) {
    let whole = text_of(&form["contentType"]).unwrap_or("").to_lowercase();
    let mut parts = whole.split(';').map(str::trim);
    let kind = parts.next().unwrap_or("").to_owned();
    let charset = parts.find_map(|part| part.strip_prefix("charset="));
    (kind, charset.map(|name| name.trim_matches('"').to_owned()))
}

fn form_text(form: &Value) -> Result<String, String> {
    let (kind, charset) = content_type(form);
    let Some(data) = text_of(&form["data"]) else {
        return Err("the report's form has no `data`; a form behind a `url` is not fetched".to_owned());
    };
    // Senders break long lines.
    let data: String = data.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = STANDARD.decode(data).map_err(|_| "the report's form is not base64".to_owned())?;
    let text = decode::text(&bytes, charset.as_deref())?;
    Ok(if kind == "text/html" { nanohtml2text::html2text(&text) } else { text })
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text_of(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.trim().is_empty())
}
