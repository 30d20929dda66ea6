//! From texts to tokens: the WordPiece vocabulary of a BERT, published or made from texts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer,
    TruncationParams,
};

use crate::error::Error;

/// A tokenizer, with the JSON that makes it.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    tokenizer: Tokenizer,
    json: String,
}

/// Texts as numbers of tokens, row-major `(texts, length)`; shorter ones are padded at their end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Numbers of tokens, the first of a text is that of its class.
    pub ids: Vec<u32>,
    /// 1 for a token, 0 for padding.
    pub mask: Vec<u8>,
    /// How many texts there are.
    pub texts: usize,
    /// Tokens of the longest text.
    pub length: usize,
    /// Texts that had more tokens than the longest that was allowed, and lost those at their end.
    pub truncated: usize,
}

/// What every BERT vocabulary has besides pieces of words.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
const PADDING: &str = SPECIAL[0];

impl Vocabulary {
    /// A lower-case vocabulary of at most `size` tokens out of `texts`: the special ones, every character that occurs
    /// (as the start of a word and inside of one), and the most frequent words, those of equal frequency in the order
    /// of the alphabet. Other words become their characters. Equal texts, in whatever order, give an equal vocabulary.
    ///
    /// # Errors
    /// If no text has a word, or `size` is too small for the characters.
    pub fn learn(texts: &[&str], size: usize) -> Result<Self, Error> {
        let mut words: BTreeMap<String, usize> = BTreeMap::new();
        for text in texts {
            count_words(text, &mut words)?;
        }
        let characters: BTreeSet<char> = words.keys().flat_map(|word| word.chars()).collect();
        let mut tokens: Vec<String> = SPECIAL.map(str::to_owned).into();
        tokens.extend(characters.iter().map(char::to_string));
        tokens.extend(characters.iter().map(|character| format!("{CONTINUATION}{character}")));
        if characters.is_empty() || tokens.len() > size {
            return Err(Error::Setting(format!(
                "{} texts have {} characters, which need {} tokens, expected some and at most {size}",
                texts.len(),
                characters.len(),
                tokens.len()
            )));
        }
        let mut frequent: Vec<(String, usize)> =
            words.into_iter().filter(|(word, _)| word.chars().nth(1).is_some()).collect();
        // Stable: words of one frequency stay in the order of the alphabet.
        frequent.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let free = size - tokens.len();
        tokens.extend(frequent.into_iter().take(free).map(|(word, _)| word));
        Self::from_tokens(tokens, &TokenizerConfig::default())
    }

    /// The tokenizer of a published model: `tokenizer.json` of its folder, else its `vocab.txt` with the settings of
    /// `tokenizer_config.json` (lower case, if it does not say otherwise).
    ///
    /// # Errors
    /// If the folder has neither, or one cannot be read.
    pub fn from_folder(folder: &Path) -> Result<Self, Error> {
        let [whole, list, settings] =
            ["tokenizer.json", "vocab.txt", "tokenizer_config.json"].map(|name| folder.join(name));
        if whole.is_file() {
            return Self::from_json(read(&whole)?);
        }
        if !list.is_file() {
            return Err(Error::Format(format!(
                "{} has no tokenizer.json and no vocab.txt, expected one of them",
                folder.display()
            )));
        }
        let settings = match settings.is_file() {
            true => serde_json::from_str(&read(&settings)?).map_err(|error| {
                Error::Format(format!("{} is not as expected: {error}", settings.display()))
            })?,
            false => TokenizerConfig::default(),
        };
        Self::from_tokens(read(&list)?.lines().map(|line| line.trim_end().to_owned()).collect(), &settings)
    }

    /// A tokenizer from the JSON that the `tokenizers` library writes, as [`Self::json`] gives it.
    ///
    /// # Errors
    /// If it is no such JSON, or has no token for padding.
    pub fn from_json(json: String) -> Result<Self, Error> {
        let tokenizer = Tokenizer::from_bytes(&json)
            .map_err(|error| Error::Format(format!("the tokenizer cannot be read: {error}")))?;
        if tokenizer.token_to_id(PADDING).is_none() {
            return Err(Error::Format(format!(
                "the tokenizer has no token {PADDING}, expected that of a BERT"
            )));
        }
        Ok(Self { tokenizer, json })
    }

    /// The JSON that makes this tokenizer.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// One more than the largest number of a token: the rows that a table of embeddings needs.
    pub fn size(&self) -> usize {
        self.tokenizer.get_vocab(true).into_values().max().map_or(0, |largest| largest as usize + 1)
    }

    /// The tokens of texts, with that of the class in front and that of the end behind; each text has at most
    /// `max_length` of them.
    ///
    /// # Errors
    /// If `max_length` leaves no room for a word, or a text cannot be tokenised.
    pub fn tokenise(&self, texts: &[&str], max_length: usize) -> Result<Tokens, Error> {
        // That of the class, that of the end, and one between them.
        if max_length < 3 {
            return Err(Error::Setting(format!(
                "the longest text has {max_length} tokens, expected 3 or more"
            )));
        }
        let failed = |error: tokenizers::Error| Error::Data(format!("a text cannot be tokenised: {error}"));
        let mut tokenizer = self.tokenizer.clone();
        let truncation = TruncationParams { max_length, ..Default::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(failed)?.with_padding(None);
        let encodings = tokenizer.encode_batch(texts.to_vec(), true).map_err(failed)?;
        let length = encodings.iter().map(|encoding| encoding.len()).max().unwrap_or_default();
        let padding = self.tokenizer.token_to_id(PADDING).unwrap_or_default();
        let mut tokens =
            Tokens { ids: Vec::new(), mask: Vec::new(), texts: texts.len(), length, truncated: 0 };
        for (index, encoding) in encodings.iter().enumerate() {
            tokens.ids.extend_from_slice(encoding.get_ids());
            tokens.ids.resize((index + 1) * length, padding);
            tokens.mask.resize(index * length + encoding.len(), 1);
            tokens.mask.resize((index + 1) * length, 0);
            tokens.truncated += usize::from(!encoding.get_overflowing().is_empty());
        }
        Ok(tokens)
    }

    fn from_tokens(tokens: Vec<String>, settings: &TokenizerConfig) -> Result<Self, Error> {
        let number = |token: &str| {
            tokens.iter().position(|other| other == token).ok_or_else(|| {
                Error::Format(format!("the vocabulary has no token {token}, expected those of a BERT"))
            })
        };
        let mut special = Vec::new();
        for token in SPECIAL {
            special.push(json!({
                "id": number(token)?, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            }));
        }
        let vocabulary: Map<String, Value> =
            tokens.iter().enumerate().map(|(number, token)| (token.clone(), number.into())).collect();
        let json = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": special,
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": true,
                "handle_chinese_chars": settings.tokenize_chinese_chars,
                "strip_accents": settings.strip_accents,
                "lowercase": settings.do_lower_case,
            },
            "pre_tokenizer": { "type": "BertPreTokenizer" },
            "post_processor": {
                "type": "BertProcessing",
                "sep": ["[SEP]", number("[SEP]")?],
                "cls": ["[CLS]", number("[CLS]")?],
            },
            "decoder": null,
            "model": {
                "type": "WordPiece",
                "unk_token": "[UNK]",
                "continuing_subword_prefix": CONTINUATION,
                "max_input_chars_per_word": 100,
                "vocab": vocabulary,
            },
        });
        Self::from_json(json.to_string())
    }
}

/// What stands before a piece that continues a word.
const CONTINUATION: &str = "##";

/// The settings of a published `vocab.txt`.
#[derive(Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    do_lower_case: bool,
    /// None: as `do_lower_case`.
    strip_accents: Option<bool>,
    tokenize_chinese_chars: bool,
}

impl Default for TokenizerConfig {
    fn default() -> Self {
        Self { do_lower_case: true, strip_accents: None, tokenize_chinese_chars: true }
    }
}

/// Counts the words of a text as a BERT cuts them: lower-case, without accents, punctuation apart.
fn count_words(text: &str, words: &mut BTreeMap<String, usize>) -> Result<(), Error> {
    let failed = |error: tokenizers::Error| Error::Data(format!("a text cannot be cut into words: {error}"));
    let mut normalised = NormalizedString::from(text);
    BertNormalizer::default().normalize(&mut normalised).map_err(failed)?;
    let mut cut = PreTokenizedString::from(normalised.get());
    BertPreTokenizer.pre_tokenize(&mut cut).map_err(failed)?;
    for (word, _, _) in cut.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
        *words.entry(word.to_owned()).or_default() += 1;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path)
        .map_err(|error| Error::Format(format!("{} cannot be read: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORTS: [&str; 3] =
        ["No pleural effusion.", "Small pleural effusion, no pneumothorax.", "Pleural thickening."];

    #[test]
    fn frequent_words_are_tokens_and_others_are_spelt() {
        let vocabulary = Vocabulary::learn(&REPORTS, 60).unwrap();
        let json: Value = serde_json::from_str(vocabulary.json()).unwrap();
        let number = |token: &str| json["model"]["vocab"][token].as_u64().unwrap() as u32;
        let tokens = vocabulary.tokenise(&["NO pleural ölp.", "No"], 16).unwrap();
        let [class, end, padding] = ["[CLS]", "[SEP]", "[PAD]"].map(number);
        assert_eq!((tokens.texts, tokens.length, tokens.truncated), (2, 8, 0));
        let first = ["no", "pleural", "o", "##l", "##p", "."].map(number);
        assert_eq!(tokens.ids[..8], [&[class], &first[..], &[end]].concat());
        assert_eq!(tokens.ids[8..], [&[class, number("no"), end][..], &[padding; 5]].concat());
        assert_eq!(tokens.mask, [[1; 8], [1, 1, 1, 0, 0, 0, 0, 0]].concat());
        let short = vocabulary.tokenise(&["no pleural effusion", "no"], 4).unwrap();
        assert_eq!((short.length, short.truncated), (4, 1));
        assert_eq!(short.ids[..4], [class, number("no"), number("pleural"), end]);
    }

    #[test]
    fn the_order_of_the_texts_does_not_matter() {
        let turned: Vec<&str> = REPORTS.into_iter().rev().collect();
        let vocabulary = Vocabulary::learn(&REPORTS, 48).unwrap();
        assert_eq!(vocabulary.json(), Vocabulary::learn(&turned, 48).unwrap().json());
        assert!(vocabulary.size() <= 48, "{}", vocabulary.size());
        let again = Vocabulary::from_json(vocabulary.json().to_owned()).unwrap();
        assert_eq!(again.tokenise(&REPORTS, 32).unwrap(), vocabulary.tokenise(&REPORTS, 32).unwrap());
    }

    #[test]
    fn a_published_list_of_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let ids = || {
            let vocabulary = Vocabulary::from_folder(folder.path()).unwrap();
            vocabulary.tokenise(&["Effusion"], 8).unwrap().ids
        };
        write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\neff\n##usion\nEff\n");
        assert_eq!(ids(), [2, 5, 6, 3]);
        write("tokenizer_config.json", r#"{"do_lower_case": false, "tokenizer_class": "BertTokenizer"}"#);
        assert_eq!(ids(), [2, 7, 6, 3]);
    }

    #[test]
    fn what_cannot_be_a_vocabulary() {
        let error = Vocabulary::learn(&["some text"], 10).unwrap_err().to_string();
        assert_eq!(error, "1 texts have 6 characters, which need 17 tokens, expected some and at most 10");
        let error = Vocabulary::learn(&["  "], 10).unwrap_err().to_string();
        assert!(error.starts_with("1 texts have 0 characters"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let error = Vocabulary::from_folder(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("has no tokenizer.json and no vocab.txt, expected one of them"), "{error}");
        std::fs::write(folder.path().join("vocab.txt"), "a\nb\n").unwrap();
        let error = Vocabulary::from_folder(folder.path()).unwrap_err().to_string();
        assert_eq!(error, "the vocabulary has no token [PAD], expected those of a BERT");
        let error = Vocabulary::learn(&REPORTS, 60).unwrap().tokenise(&["no"], 2).unwrap_err().to_string();
        assert_eq!(error, "the longest text has 2 tokens, expected 3 or more");
    }
}
