//! `ecr data prepare`: dialogues to the files of a run's `data/` directory, as bytes; the caller writes them.
//!
//! | file | holds |
//! |---|---|
//! | `{split}_data_processed.jsonl` | [`crate::records::Record`]s, ECR's fields |
//! | `{split}_examples.jsonl` | [`crate::records::Example`]s: what our stages read |
//! | `{split}_dialogues.jsonl` | [`Dialogue`]s: packed whole for fine-tuning |
//! | `catalogue.jsonl` | [`crate::catalogue::Movie`]s |
//! | `import_report.json` | counts and bad lines, file by file |
//! | `manifest.json` | schema, input and output hashes, counts; last |

use std::collections::BTreeMap;

use ecr_core::seam::EmotionDistribution;
use ecr_core::{Error, Result, io};
use serde::Serialize;

use crate::catalogue::Catalogue;
use crate::records::{Manifest, RecordOptions, SCHEMA, examples, records, to_jsonl};
use crate::redial::{Corpus, Dialogue, Split};

/// A file of the `data/` directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Name inside `data/`.
    pub name: String,
    /// Content.
    pub bytes: Vec<u8>,
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut out =
        serde_json::to_vec_pretty(value).map_err(|e| Error::internal(format!("write prepared data: {e}")))?;
    out.push(b'\n');
    Ok(out)
}

/// Emotions of each turn of a dialogue, if they were scored.
pub type TurnEmotions<'a> = &'a dyn Fn(&Dialogue) -> Option<Vec<EmotionDistribution>>;

/// Everything that a corpus gives, in an order that depends on the corpus alone. `emotions` gives the distribution
/// of each turn of a dialogue, `None` before emotions are scored.
pub fn prepare(
    corpus: &Corpus,
    catalogue: &Catalogue,
    options: RecordOptions,
    emotions: TurnEmotions<'_>,
) -> Result<Vec<Prepared>> {
    let mut files = Vec::new();
    let mut counts = BTreeMap::new();
    for split in [Split::Train, Split::Valid, Split::Test] {
        if corpus.split(split).next().is_none() {
            continue;
        }
        let name = split.name();
        let rows: Vec<_> = corpus
            .split(split)
            .flat_map(|d| records(d, catalogue, emotions(d).as_deref(), options))
            .collect();
        counts.insert(name.to_string(), rows.len());
        for (kind, bytes) in [
            ("data_processed", to_jsonl(&rows)?),
            ("examples", to_jsonl(corpus.split(split).flat_map(examples))?),
            ("dialogues", to_jsonl(corpus.split(split))?),
        ] {
            files.push(Prepared { name: format!("{name}_{kind}.jsonl"), bytes });
        }
    }
    files.push(Prepared { name: "catalogue.jsonl".into(), bytes: to_jsonl(catalogue.movies())? });
    files.push(Prepared { name: "import_report.json".into(), bytes: json(&corpus.report)? });
    let manifest = Manifest {
        schema: SCHEMA.into(),
        inputs: corpus.report.clone(),
        catalogue: catalogue.len(),
        records: counts,
        outputs: files.iter().map(|f| (f.name.clone(), io::sha256(&f.bytes))).collect(),
    };
    files.push(Prepared { name: "manifest.json".into(), bytes: json(&manifest)? });
    Ok(files)
}
