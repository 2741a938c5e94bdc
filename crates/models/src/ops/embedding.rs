//! Embedding lookup and its gradient.
//!
//! Legend: `T` tokens, `V` vocabulary, `D` width.

use ecr_core::{Error, Result};
use ecr_kernels::math;
use rayon::prelude::*;

/// `x[t] = table[ids[t]]`; `table`: `[V, D]`, `x`: `[T, D]`.
///
/// # Errors
/// [`ecr_core::Kind::Data`] for an id outside the table.
pub fn forward(ids: &[u32], table: &[f32], d: usize, x: &mut [f32]) -> Result<()> {
    check(ids, table.len() / d)?;
    for (row, &id) in x.chunks_mut(d).zip(ids) {
        row.copy_from_slice(&table[id as usize * d..][..d]);
    }
    Ok(())
}

/// Refuses ids that a table of `v` rows does not have.
pub(crate) fn check(ids: &[u32], v: usize) -> Result<()> {
    match ids.iter().enumerate().find(|(_, id)| **id as usize >= v) {
        None => Ok(()),
        Some((t, id)) => Err(Error::data(format!("look up token {t} of a batch"))
            .expected(format!("an id below the vocabulary's size {v}"))
            .got(id.to_string())
            .hint("the tokenizer belongs to another model")),
    }
}

/// `dtable[ids[t]] += dx[t]`, in the order of tokens; columns are shared out over the threads.
pub fn backward(ids: &[u32], dx: &[f32], d: usize, dtable: &mut [f32]) {
    // Rows of equal tokens meet in one task: group tokens by id, then rows are disjoint.
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by_key(|&t| (ids[t], t));
    let mut rest = dtable;
    let mut base = 0usize;
    let mut jobs: Vec<(&mut [f32], &[usize])> = Vec::new();
    let mut from = 0;
    while from < order.len() {
        let id = ids[order[from]] as usize;
        let to = from + order[from..].iter().take_while(|&&t| ids[t] as usize == id).count();
        let (_, tail) = rest.split_at_mut((id - base) * d);
        let (row, tail) = tail.split_at_mut(d);
        jobs.push((row, &order[from..to]));
        (rest, base, from) = (tail, id + 1, to);
    }
    jobs.into_par_iter().for_each(|(row, tokens)| {
        for &t in tokens {
            math::axpy(1.0, &dx[t * d..(t + 1) * d], row);
        }
    });
}
