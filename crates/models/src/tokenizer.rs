//! Tokenizers: HuggingFace's `tokenizers` behind a small face. Truncation and padding that a file asks for are
//! switched off: sequences are packed, and cutting is the caller's visible decision.

use std::path::Path;

use ecr_core::{Error, Result, io};
use serde::de::IgnoredAny;
use serde_json::{Value as Json, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as Inner};

/// A tokenizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Inner,
    /// Largest id + 1.
    vocab_size: usize,
    /// Special tokens, longest first, and their ids.
    specials: Vec<(String, u32)>,
}

impl Tokenizer {
    /// From the bytes of a `tokenizer.json`; `what` names it in errors.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Data`] for anything that `tokenizers` does not understand.
    pub fn from_bytes(bytes: &[u8], what: &str) -> Result<Self> {
        let bad = |got: String| {
            Error::data(format!("read the tokenizer of {what}"))
                .expected("a tokenizer.json of HuggingFace's tokenizers")
                .got(got)
                .hint("the file is damaged or of a kind that is not known: fetch it again")
        };
        // `tokenizers` panics where JSON ends early inside a decoder, and on a broken character map.
        serde_json::from_slice::<IgnoredAny>(bytes).map_err(|e| bad(e.to_string()))?;
        let inner = std::panic::catch_unwind(|| Inner::from_bytes(bytes))
            .map_err(|_| bad("parts that make the tokenizers library panic".into()))?
            .map_err(|e| bad(e.to_string()))?;
        Self::wrap(inner)
    }

    fn wrap(mut inner: Inner) -> Result<Self> {
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|e| Error::internal("switch truncation off").got(e.to_string()))?;
        let vocab_size = inner.get_vocab(true).into_values().max().map_or(0, |m| m as usize + 1);
        let mut specials: Vec<(String, u32)> = inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, t)| t.special && !t.content.is_empty())
            .map(|(id, t)| (t.content, id))
            .collect();
        specials.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then(a.1.cmp(&b.1)));
        Ok(Self { inner, vocab_size, specials })
    }

    /// From a model directory: tokenizer.json, else vocab.txt (WordPiece), else vocab.json and merges.txt
    /// (byte-level BPE, RoBERTa); `None` if there is nothing of the kind. `config` is the model's config.json.
    pub fn from_dir(dir: &Path, config: &Json) -> Result<Option<Self>> {
        let file = |n: &str| Some(dir.join(n)).filter(|p| p.is_file());
        if let Some(p) = file("tokenizer.json") {
            return Self::from_bytes(&io::read(&p)?, &p.display().to_string()).map(Some);
        }
        if let Some(p) = file("vocab.txt") {
            // BERT's own default; cased models say so in tokenizer_config.json.
            let lower = match file("tokenizer_config.json") {
                Some(c) => super::load::hf_dir::read_json(&c)?.get("do_lower_case").and_then(Json::as_bool),
                None => None,
            };
            return Self::word_piece(&io::read_to_string(&p)?, lower.unwrap_or(true)).map(Some);
        }
        if let (Some(v), Some(m)) = (file("vocab.json"), file("merges.txt")) {
            let roberta = config.get("model_type").and_then(Json::as_str) == Some("roberta");
            return Self::byte_level(&io::read_to_string(&v)?, &io::read_to_string(&m)?, roberta).map(Some);
        }
        Ok(None)
    }

    /// BERT's WordPiece from the lines of vocab.txt.
    pub fn word_piece(vocab: &str, lowercase: bool) -> Result<Self> {
        let vocab: serde_json::Map<String, Json> =
            vocab.lines().enumerate().map(|(i, t)| (t.to_owned(), json!(i))).collect();
        let need = |t: &str| {
            vocab
                .get(t)
                .cloned()
                .ok_or_else(|| Error::data("read vocab.txt").expected(format!("the token {t}")))
        };
        let (cls, sep) = (need("[CLS]")?, need("[SEP]")?);
        need("[UNK]")?;
        let added: Vec<Json> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
            .iter()
            .filter_map(|t| Some(added(t, vocab.get(*t)?, false)))
            .collect();
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                "strip_accents": null, "lowercase": lowercase},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", sep], "cls": ["[CLS]", cls]},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": vocab},
        });
        Self::from_bytes(file.to_string().as_bytes(), "vocab.txt")
    }

    /// GPT-2's or RoBERTa's byte-level BPE from vocab.json and merges.txt.
    pub fn byte_level(vocab: &str, merges: &str, roberta: bool) -> Result<Self> {
        let vocab: Json = serde_json::from_str(vocab)
            .map_err(|e| Error::data("read vocab.json").expected("JSON").got(e.to_string()))?;
        let merges: Vec<Json> = merges
            .lines()
            .filter(|l| !l.starts_with("#version") && !l.is_empty())
            .map(|l| l.split_once(' ').map(|(a, b)| json!([a, b])))
            .collect::<Option<_>>()
            .ok_or_else(|| Error::data("read merges.txt").expected("two tokens a line"))?;
        let level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let (mut specials, mut post) = (Vec::new(), Json::Null);
        if roberta {
            for t in ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] {
                if let Some(id) = vocab.get(t) {
                    specials.push(added(t, id, t == "<mask>"));
                }
            }
            let id = |t: &str| {
                vocab
                    .get(t)
                    .cloned()
                    .ok_or_else(|| Error::data("read vocab.json").expected(format!("token {t}")))
            };
            post = json!({"type": "RobertaProcessing", "sep": ["</s>", id("</s>")?], "cls": ["<s>", id("<s>")?],
                "trim_offsets": true, "add_prefix_space": false});
        } else if let Some(id) = vocab.get("<|endoftext|>") {
            specials.push(added("<|endoftext|>", id, false));
        }
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": specials, "normalizer": null,
            "pre_tokenizer": level, "post_processor": post, "decoder": level,
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocab, "merges": merges},
        });
        Self::from_bytes(file.to_string().as_bytes(), "vocab.json and merges.txt")
    }

    /// Trains a byte-level BPE of at most `vocab_size` tokens (at least 256 bytes and the specials). The specials
    /// get the first ids in their order. The result depends on the texts only, not on threads or order.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Config`] for a vocabulary too small for the bytes and the specials.
    pub fn train<S: AsRef<str> + Send>(
        texts: impl Iterator<Item = S> + Send,
        vocab_size: usize,
        specials: &[&str],
    ) -> Result<Self> {
        if vocab_size < 256 + specials.len() {
            return Err(Error::config("train a tokenizer")
                .expected(format!("a vocabulary of at least {} tokens", 256 + specials.len()))
                .got(vocab_size.to_string()));
        }
        let mut inner = Inner::new(BPE::default());
        let level = ByteLevel::new(false, true, true);
        inner.with_pre_tokenizer(Some(level));
        inner.with_decoder(Some(level));
        let mut trainer = TrainerWrapper::from(
            BpeTrainerBuilder::new()
                .vocab_size(vocab_size)
                .min_frequency(2)
                .show_progress(false)
                .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
                .special_tokens(
                    specials.iter().map(|s| AddedToken::from(*s, true).normalized(false)).collect(),
                )
                .build(),
        );
        inner.train(&mut trainer, texts).map_err(|e| Error::data("train a tokenizer").got(e.to_string()))?;
        // Through its own file format, so that a tokenizer just trained equals the one read back.
        let text =
            inner.to_string(false).map_err(|e| Error::internal("write a tokenizer").got(e.to_string()))?;
        Self::from_bytes(text.as_bytes(), "training")
    }

    /// The same tokenizer with each of these texts as one ordinary token, found wherever it stands in a text. A small
    /// model trained from scratch can name an item then, where it could not spell it.
    pub fn with_words<S: AsRef<str>>(&self, words: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut inner = self.inner.clone();
        let tokens: Vec<AddedToken> =
            words.into_iter().map(|w| AddedToken::from(w.as_ref(), false).normalized(false)).collect();
        inner
            .add_tokens(tokens)
            .map_err(|e| Error::internal("add words to a tokenizer").got(e.to_string()))?;
        let text =
            inner.to_string(false).map_err(|e| Error::internal("write a tokenizer").got(e.to_string()))?;
        Self::from_bytes(text.as_bytes(), "added words")
    }

    /// Token ids of a text; special tokens in the text are recognised, none is added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(text, false)
    }
    /// Token ids with what the model's post-processor adds (`[CLS] … [SEP]`, `<s> … </s>`).
    pub fn encode_with_specials(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(text, true)
    }
    fn ids(&self, text: &str, specials: bool) -> Result<Vec<u32>> {
        self.inner
            .encode_fast(text, specials)
            .map(|e| e.get_ids().to_vec())
            .map_err(|e| Error::data("tokenize a text").got(e.to_string()))
    }
    /// The text of token ids, without the special ones if `skip_specials`. Ids outside the vocabulary vanish.
    pub fn decode(&self, ids: &[u32], skip_specials: bool) -> Result<String> {
        self.inner.decode(ids, skip_specials).map_err(|e| Error::data("decode tokens").got(e.to_string()))
    }
    /// Id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
    /// Id of a token that has to be there.
    pub fn need_id(&self, token: &str) -> Result<u32> {
        self.id(token).ok_or_else(|| {
            Error::data("look up a special token").expected(format!("the token {token} in the vocabulary"))
        })
    }
    /// Token of an id, as the vocabulary writes it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
    /// Largest id + 1: rows that an embedding needs.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }
    /// Special tokens and their ids, longest first.
    pub fn specials(&self) -> &[(String, u32)] {
        &self.specials
    }
    /// Whether an id is a special token.
    pub fn is_special(&self, id: u32) -> bool {
        self.specials.iter().any(|s| s.1 == id)
    }
    /// The text with every special token taken out, so that what a user says cannot end a turn.
    pub fn strip_specials(&self, text: &str) -> String {
        let mut s = text.to_owned();
        // Until nothing changes: taking one out may put another together.
        while let Some((t, _)) = self.specials.iter().find(|(t, _)| s.contains(t.as_str())) {
            s = s.replace(t.as_str(), "");
        }
        s
    }
    /// As a `tokenizer.json`.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Internal`] if `tokenizers` cannot write what it has read or trained.
    pub fn to_json(&self) -> Result<String> {
        self.inner.to_string(true).map_err(|e| Error::internal("write a tokenizer").got(e.to_string()))
    }
}

fn added(token: &str, id: &Json, lstrip: bool) -> Json {
    json!({"id": id, "content": token, "single_word": false, "lstrip": lstrip, "rstrip": false,
        "normalized": false, "special": true})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_words_are_single_tokens() {
        let t = Tokenizer::train(["have you seen it", "no, not yet"].iter(), 300, &["<|end|>"]).unwrap();
        let t = t.with_words(["Alien (1979)", "Aliens (1986)"]).unwrap();
        let ids = t.encode("have you seen Aliens (1986), or Alien (1979)?<|end|>").unwrap();
        assert!(
            ids.contains(&t.id("Alien (1979)").unwrap()) && ids.contains(&t.id("Aliens (1986)").unwrap())
        );
        assert_eq!(t.decode(&ids, true).unwrap(), "have you seen Aliens (1986), or Alien (1979)?");
        assert_eq!(t.vocab_size(), t.id("Aliens (1986)").unwrap() as usize + 1);
        let again = Tokenizer::from_bytes(t.to_json().unwrap().as_bytes(), "again").unwrap();
        assert_eq!(again.encode("Alien (1979)").unwrap().len(), 1);
    }
}
