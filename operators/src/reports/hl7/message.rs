//! HL7 version 2 messages: segments, fields, components and their escapes, as far as result messages need them.
//!
//! HL7 Version 2.5.1, chapter 2 (delimiters, escapes) and chapter 7 (OBR, OBX).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::reports::decode;

/// A field of a segment, by its position: `OBR-3.1`.
pub(super) struct FieldPath {
    segment: String,
    field: usize,
    component: usize,
}

impl FieldPath {
    /// Reads `SEG-field` or `SEG-field.component`.
    ///
    /// # Errors
    /// When the text is neither, or the segment is not one that a report has one of.
    pub(super) fn parse(text: &str) -> Result<FieldPath, String> {
        let wrong = || format!("`{text}` names no field; expected one such as OBR-3.1, OBR-2 or MSH-10");
        let (segment, rest) = text.split_once('-').ok_or_else(wrong)?;
        let (field, component) = rest.split_once('.').unwrap_or((rest, "1"));
        let number = |text: &str| text.parse::<usize>().ok().filter(|n| *n > 0).ok_or_else(wrong);
        if !["MSH", "PID", "OBR", "ORC", "PV1"].contains(&segment) {
            return Err(wrong());
        }
        Ok(FieldPath { segment: segment.to_owned(), field: number(field)?, component: number(component)? })
    }
}

/// The messages in a file's bytes: each begins with a line of MSH. Bytes in front of the first one make a message of
/// their own, which does not read; batch headers and trailers are left out.
pub(super) fn messages(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0x0b | 0x1c);
    for line in bytes.split(is_end).filter(|line| !line.trim_ascii().is_empty()) {
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        if [&b"FHS"[..], b"BHS", b"BTS", b"FTS"].iter().any(|name| line.starts_with(name)) {
            continue;
        }
        match all.last_mut() {
            Some(message) if !line.starts_with(b"MSH") => {
                message.push(b'\r');
                message.extend_from_slice(line);
            }
            _ => all.push(line.to_vec()),
        }
    }
    all
}

/// The characters that part a message.
#[derive(Clone, Copy)]
struct Delimiters {
    field: char,
    component: char,
    repetition: char,
    escape: Option<char>,
    subcomponent: char,
}

/// One OBR of a message with what belongs to it.
pub(super) struct Report {
    delimiters: Delimiters,
    /// MSH, PID, ORC, PV1: what the message says of all of its reports, or was said last before this one.
    shared: Vec<Vec<String>>,
    order: Vec<String>,
    observations: Vec<Vec<String>>,
}

/// The reports of a message.
///
/// # Errors
/// When it is no result message; the message holds nothing of its text.
pub(super) fn reports_of(bytes: &[u8], encoding: Option<&str>) -> Result<Vec<Report>, String> {
    if !bytes.starts_with(b"MSH") {
        return Err("not an HL7 message: it does not begin with MSH".to_owned());
    }
    let text = decode::text(bytes, encoding.or(charset(bytes)))?;
    let delimiters = delimiters(&text)?;
    let mut segments: Vec<Vec<String>> = Vec::new();
    for line in text.split('\r') {
        let is_segment = line.chars().nth(3) == Some(delimiters.field)
            && line.chars().take(3).all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
        match segments.last_mut().and_then(|segment| segment.last_mut()) {
            // Some senders break the lines of a text where a repetition or an escape should stand.
            Some(field) if !is_segment => {
                field.push('\n');
                field.push_str(line);
            }
            _ => segments.push(line.split(delimiters.field).map(str::to_owned).collect()),
        }
    }
    let kind = segments[0].get(8).cloned().unwrap_or_default();
    let kind: Vec<&str> = kind.split(delimiters.component).take(2).collect();
    if kind != ["ORU", "R01"] {
        return Err(format!("the message is {}, expected ORU^R01", plain_code(&kind)));
    }
    let (mut shared, mut reports): (Vec<Vec<String>>, Vec<Report>) = (Vec::new(), Vec::new());
    for segment in segments {
        match segment[0].as_str() {
            "OBR" => reports.push(Report {
                delimiters,
                shared: shared.clone(),
                order: segment,
                observations: Vec::new(),
            }),
            "OBX" => {
                if let Some(report) = reports.last_mut() {
                    report.observations.push(segment);
                }
            }
            "MSH" | "PID" | "ORC" | "PV1" => {
                shared.retain(|known| known[0] != segment[0]);
                shared.push(segment);
            }
            _ => {}
        }
    }
    if reports.is_empty() { Err("the message has no OBR segment".to_owned()) } else { Ok(reports) }
}

/// A message's type as far as it consists of codes: anything else might be somebody's text.
fn plain_code(kind: &[&str]) -> String {
    let is_code = |part: &&str| part.len() <= 3 && part.chars().all(|c| c.is_ascii_alphanumeric());
    if kind.iter().all(is_code) { kind.join("^") } else { "of a type that does not read".to_owned() }
}

fn delimiters(text: &str) -> Result<Delimiters, String> {
    let mut characters = text.chars().skip(3);
    let mut next = || characters.next().filter(|c| !c.is_alphanumeric() && !c.is_whitespace());
    let field = next().ok_or("MSH names no field separator")?;
    let (component, repetition) = (next(), next());
    let (Some(component), Some(repetition)) = (component, repetition) else {
        return Err("MSH-2 does not name the delimiters".to_owned());
    };
    // Messages without escapes and subcomponents leave these out.
    let escape = next().filter(|c| *c != field);
    let subcomponent = if escape.is_some() { next().filter(|c| *c != field) } else { None };
    Ok(Delimiters { field, component, repetition, escape, subcomponent: subcomponent.unwrap_or('&') })
}

/// The encoding that MSH-18 names (HL7 table 0211).
fn charset(bytes: &[u8]) -> Option<&'static str> {
    let line = bytes.split(|byte| *byte == b'\r').next()?;
    let name = line.split(|byte| Some(byte) == bytes.get(3)).nth(17)?;
    let name = std::str::from_utf8(name).ok()?.split('~').next()?.trim().to_ascii_uppercase();
    Some(match name.as_str() {
        "UNICODE UTF-8" | "UTF-8" | "ASCII" => "utf-8",
        "8859/1" => "iso-8859-1",
        "8859/2" => "iso-8859-2",
        "8859/15" => "iso-8859-15",
        "WINDOWS-1252" | "CP1252" => "windows-1252",
        _ => return None,
    })
}

impl Report {
    /// The first repetition of a field's component, its escapes undone; empty where it is not there.
    pub(super) fn field(&self, path: &FieldPath) -> String {
        let segment = match path.segment.as_str() {
            "OBR" => Some(&self.order),
            name => self.shared.iter().find(|segment| segment[0] == name),
        };
        // The first field of MSH is the separator itself.
        let place = if path.segment == "MSH" { path.field.saturating_sub(1) } else { path.field };
        segment.map_or(String::new(), |segment| self.component(segment, place, path.component))
    }

    fn component(&self, segment: &[String], field: usize, component: usize) -> String {
        let whole = segment.get(field).map_or("", String::as_str);
        let first = whole.split(self.delimiters.repetition).next().unwrap_or("");
        let part = first.split(self.delimiters.component).nth(component - 1).unwrap_or("");
        unescaped(part, &self.delimiters).trim().to_owned()
    }

    /// Patient, accession number, status, time of signing, time of the examination, procedure.
    pub(super) fn columns(&self) -> [String; 6] {
        let order = |field, component| self.component(&self.order, field, component);
        let patient = self.shared.iter().find(|segment| segment[0] == "PID");
        let procedure = order(4, 2);
        [
            patient.map_or(String::new(), |segment| self.component(segment, 3, 1)),
            order(18, 1),
            order(25, 1),
            order(22, 1),
            order(7, 1),
            if procedure.is_empty() { order(4, 1) } else { procedure },
        ]
    }

    /// Whether it takes back what an earlier version said: its results are cancelled (`X`) or deleted (`D`).
    pub(super) fn is_withdrawn(&self) -> bool {
        matches!(self.component(&self.order, 25, 1).as_str(), "X" | "D")
    }

    /// The report's text: one line for each text observation and repetition. With `headings`, a line for each section
    /// that OBX-3 names, by the suffix (`&GDT`, `&IMP`) or in words.
    ///
    /// # Errors
    /// When there is no text; the message holds nothing of what there is.
    pub(super) fn text(&self, headings: bool) -> Result<String, String> {
        let (mut lines, mut under, mut others) = (Vec::new(), String::new(), 0);
        for observation in &self.observations {
            // Deleted, or posted as wrong.
            if matches!(self.component(observation, 11, 1).as_str(), "D" | "W" | "X") {
                continue;
            }
            let Some(text) = self.value(observation)? else {
                others += 1;
                continue;
            };
            let heading = self.heading(observation);
            if headings && !heading.is_empty() && heading != under {
                lines.push(format!("{heading}:"));
                under = heading;
            }
            lines.push(text);
        }
        let text = lines.join("\n");
        match text.trim().is_empty() {
            false => Ok(text),
            true if others > 0 => Err(format!("none of the {others} observations is text (TX, FT, ST)")),
            true => Err("the report has no text".to_owned()),
        }
    }

    /// An observation's text; none where it is of another type.
    fn value(&self, observation: &[String]) -> Result<Option<String>, String> {
        let value = observation.get(5).map_or("", String::as_str);
        match observation.get(2).map_or("", String::as_str) {
            "TX" | "FT" | "ST" => {
                let lines = value.split(self.delimiters.repetition);
                Ok(Some(lines.map(|line| unescaped(line, &self.delimiters)).collect::<Vec<_>>().join("\n")))
            }
            "ED" => {
                let parts: Vec<&str> = value.split(self.delimiters.component).collect();
                let is_text = parts.get(1).is_some_and(|kind| kind.eq_ignore_ascii_case("TEXT"));
                let [.., "Base64", data] = parts.as_slice() else { return Ok(None) };
                if !is_text {
                    return Ok(None);
                }
                let data: String = data.chars().filter(|c| !c.is_ascii_whitespace()).collect();
                let bytes =
                    STANDARD.decode(data).map_err(|_| "an encapsulated text is not base64".to_owned())?;
                decode::text(&bytes, None).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The heading that an observation's identifier stands for; empty where it names no section.
    fn heading(&self, observation: &[String]) -> String {
        let identifier = observation.get(3).map_or("", String::as_str);
        let code = identifier.split(self.delimiters.component).next().unwrap_or("");
        match code.split(self.delimiters.subcomponent).nth(1) {
            Some("GDT") => return "Findings".to_owned(),
            Some("IMP") => return "Impression".to_owned(),
            _ => {}
        }
        let words = self.component(observation, 3, 2);
        let splitter = argent_reports::Splitter::new([]);
        // A heading with nothing but a word behind it is a section of that word.
        let names_section = splitter.split(&format!("Findings: x\n{words}: y")).len() > 1;
        if names_section { words } else { String::new() }
    }
}

/// A text with its escapes undone: delimiters, line breaks, hexadecimal bytes. Marks of emphasis go.
fn unescaped(text: &str, delimiters: &Delimiters) -> String {
    let Some(escape) = delimiters.escape else { return text.to_owned() };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(escape) {
        out.push_str(&rest[..start]);
        let behind = &rest[start + escape.len_utf8()..];
        let Some(end) = behind.find(escape) else {
            // A lone escape is a backslash that somebody typed.
            out.push_str(&rest[start..]);
            return out;
        };
        let (code, after) = (&behind[..end], &behind[end + escape.len_utf8()..]);
        match code {
            "F" => out.push(delimiters.field),
            "S" => out.push(delimiters.component),
            "T" => out.push(delimiters.subcomponent),
            "R" => out.push(delimiters.repetition),
            "E" => out.push(escape),
            "H" | "N" => {}
            _ if code.starts_with(".br") || code.starts_with(".sp") => out.push('\n'),
            _ if code.starts_with('.') => out.push(' '),
            _ => match hexadecimal(code) {
                Some(text) => out.push_str(&text),
                None => {
                    // Not an escape, so that the second mark may begin one.
                    out.push(escape);
                    out.push_str(code);
                    rest = &behind[end..];
                    continue;
                }
            },
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn hexadecimal(code: &str) -> Option<String> {
    let digits = code.strip_prefix('X').filter(|digits| digits.len() % 2 == 0 && digits.is_ascii())?;
    let pairs = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok());
    let bytes: Vec<u8> = pairs.collect::<Option<_>>()?;
    decode::text(&bytes, None).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = "MSH|^~\\&|RIS|H|EHR|H|20240501||ORU^R01|1|P|2.5.1\r\
        PID|1||77^^^H^MR~8^^^X||Doe^J\r\
        OBR|1|P9|F1^RIS|71250^CT chest|||20240501080000|||||||||||A1||||202405010930|||F\r\
        OBX|1|TX|71250&GDT^CT chest||Small effusion\\.br\\on the left \\T\\ no nodule.~Heart normal.||||||F\r\
        OBX|2|NM|SIZE^mm||5||||||F\r\
        OBX|3|TX|71250&IMP^CT chest||Effusion.||||||F\r\
        OBX|4|TX|71250&IMP^CT chest||Wrong.||||||W\r\
        OBR|2|P9|F2^RIS|1^Later|||20240501|||||||||||||||20240501|||X\r";

    fn reports(text: &str) -> Vec<Report> {
        let all = messages(text.as_bytes());
        assert_eq!(all.len(), 1);
        reports_of(&all[0], None).expect("reads")
    }

    #[test]
    fn a_message_has_a_report_for_each_order() {
        let reports = reports(MESSAGE);
        assert_eq!(reports.len(), 2);
        let id = FieldPath::parse("OBR-3.1").expect("a path");
        assert_eq!([reports[0].field(&id), reports[1].field(&id)], ["F1", "F2"]);
        assert_eq!(reports[0].field(&FieldPath::parse("MSH-10").expect("a path")), "1");
        assert_eq!(
            reports[0].columns(),
            ["77", "A1", "F", "202405010930", "20240501080000", "CT chest"].map(str::to_owned)
        );
        let expected =
            "Findings:\nSmall effusion\non the left & no nodule.\nHeart normal.\nImpression:\nEffusion.";
        assert_eq!(reports[0].text(true).as_deref(), Ok(expected));
        assert!(!reports[0].is_withdrawn() && reports[1].is_withdrawn());
        assert_eq!(reports[1].text(true), Err("the report has no text".to_owned()));
    }

    #[test]
    fn framing_batches_line_ends_and_broken_lines_are_read() {
        let framed = format!("\u{b}{MESSAGE}\u{1c}\r\u{b}{MESSAGE}\u{1c}\r");
        assert_eq!(messages(framed.as_bytes()).len(), 2);
        let batch = format!("FHS|^~\\&\rBHS|^~\\&\r{MESSAGE}BTS|1\rFTS|1\r").replace('\r', "\r\n");
        assert_eq!(messages(batch.as_bytes()).len(), 1);
        let broken = MESSAGE.replace("\\.br\\", "\n");
        let text = reports(&broken)[0].text(false).expect("a text");
        assert!(text.starts_with("Small effusion\non the left & no nodule."), "{text}");
    }

    #[test]
    fn what_is_no_result_message_is_told_without_a_word_of_it() {
        let said = |text: &str| reports_of(text.as_bytes(), None).err().expect("refused");
        assert_eq!(said("PID|1"), "not an HL7 message: it does not begin with MSH");
        assert_eq!(said("MSH|^~\\&|||||||ADT^A01|1"), "the message is ADT^A01, expected ORU^R01");
        assert_eq!(
            said("MSH|^~\\&|||||||Mr Smith^x|1"),
            "the message is of a type that does not read, expected ORU^R01"
        );
        assert_eq!(said("MSH|^~\\&|||||||ORU^R01|1"), "the message has no OBR segment");
    }

    #[test]
    fn escapes_are_undone_and_typed_backslashes_stay() {
        let delimiters =
            Delimiters { field: '|', component: '^', repetition: '~', escape: Some('\\'), subcomponent: '&' };
        for (text, expected) in [
            ("a\\F\\b\\S\\c\\R\\d\\E\\e", "a|b^c~d\\e"),
            ("\\H\\bold\\N\\", "bold"),
            ("\\XC3A4\\", "ä"),
            ("5 mm \\ 3 mm", "5 mm \\ 3 mm"),
            ("c:\\a\\.br\\b", "c:\\a\nb"),
        ] {
            assert_eq!(unescaped(text, &delimiters), expected, "{text}");
        }
    }

    #[test]
    fn the_character_set_of_the_message_counts() {
        let latin = MESSAGE.replace("|2.5.1\r", "|2.5.1||||||8859/1\r").replace("effusion", "Ergu\u{df}");
        let bytes: Vec<u8> = latin.chars().map(|c| u8::try_from(u32::from(c)).expect("latin")).collect();
        let message = messages(&bytes).remove(0);
        let text = reports_of(&message, None).expect("reads")[0].text(false).expect("a text");
        assert!(text.contains("Small Erguß"), "{text}");
    }
}
