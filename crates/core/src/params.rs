//! Flat parameter, gradient and moment buffers.
//!
//! A [`Params`] is a *value*: all weights of a model, or one LoRA adapter, or a value head. Policies take it
//! as an argument, so student, reference and any number of agents share one frozen base.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// One named tensor inside a flat buffer, row major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// HuggingFace or PEFT tensor name.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Offset in elements.
    pub offset: usize,
    /// Whether weight decay applies (matrices yes; norms and biases no).
    pub decay: bool,
}

impl TensorSpec {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Element range in the flat buffer.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// Names, shapes and offsets of the tensors of a flat buffer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// Tensors in buffer order, without gaps.
    pub tensors: Vec<TensorSpec>,
    /// Elements in all.
    pub len: usize,
}

impl Layout {
    /// An empty layout.
    pub fn new() -> Self {
        Self::default()
    }
    /// Appends a tensor and returns its index.
    pub fn push(&mut self, name: impl Into<String>, shape: &[usize], decay: bool) -> usize {
        let spec = TensorSpec { name: name.into(), shape: shape.to_vec(), offset: self.len, decay };
        self.len += spec.len();
        self.tensors.push(spec);
        self.tensors.len() - 1
    }
    /// Finds a tensor by name.
    pub fn find(&self, name: &str) -> Option<&TensorSpec> {
        self.tensors.iter().find(|t| t.name == name)
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Parameters with their gradients and AdamW moments, all flat and of `layout.len` elements.
/// `grad`, `m` and `v` stay empty until [`Params::make_trainable`]; frozen parameters never pay for them.
#[derive(Debug)]
pub struct Params {
    /// What lies where.
    pub layout: Arc<Layout>,
    /// Values.
    pub data: Vec<f32>,
    /// Gradients, accumulated until [`Params::zero_grad`].
    pub grad: Vec<f32>,
    /// AdamW first moment.
    pub m: Vec<f32>,
    /// AdamW second moment.
    pub v: Vec<f32>,
    /// Optimiser steps taken.
    pub step: u64,
    /// Identity of these *values*, for caches of packed weights; renewed by [`Params::touch`].
    /// Never saved, never part of a result.
    pub id: u64,
}

impl Params {
    /// Zeros.
    pub fn zeros(layout: Arc<Layout>) -> Self {
        let data = vec![0.0; layout.len];
        Self::from_data(layout, data)
    }
    /// From values. Panics if the length is not the layout's.
    pub fn from_data(layout: Arc<Layout>, data: Vec<f32>) -> Self {
        assert_eq!(layout.len, data.len(), "flat buffer length");
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Self { layout, data, grad: Vec::new(), m: Vec::new(), v: Vec::new(), step: 0, id }
    }
    /// A frozen copy of the values only (a reference model).
    pub fn frozen_copy(&self) -> Self {
        Self::from_data(self.layout.clone(), self.data.clone())
    }
    /// A copy that training can go on from: values, moments and step, gradients zero.
    pub fn snapshot(&self) -> Self {
        let mut copy = self.frozen_copy();
        copy.grad.resize(self.grad.len(), 0.0);
        (copy.m, copy.v, copy.step) = (self.m.clone(), self.v.clone(), self.step);
        copy
    }
    /// Allocates gradients and moments.
    pub fn make_trainable(&mut self) {
        let n = self.layout.len;
        self.grad.resize(n, 0.0);
        self.m.resize(n, 0.0);
        self.v.resize(n, 0.0);
    }
    /// Starts the optimiser afresh: moments and step are zero.
    pub fn forget_moments(&mut self) {
        self.m.fill(0.0);
        self.v.fill(0.0);
        self.step = 0;
    }
    /// Whether gradients are wanted.
    pub fn trainable(&self) -> bool {
        !self.grad.is_empty()
    }
    /// To be called after every change of `data`.
    pub fn touch(&mut self) {
        self.id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    }
    /// Sets all gradients to zero.
    pub fn zero_grad(&mut self) {
        self.grad.fill(0.0);
    }
    /// Values of the tensor with this index.
    pub fn tensor(&self, i: usize) -> &[f32] {
        &self.data[self.layout.tensors[i].range()]
    }
    /// Values of the tensor with this name.
    pub fn get(&self, name: &str) -> Result<&[f32]> {
        let t = self.layout.find(name).ok_or_else(|| Error::internal(format!("look up tensor {name}")))?;
        Ok(&self.data[t.range()])
    }
    /// Gradient and value of the tensor with this index.
    pub fn grad_mut(&mut self, i: usize) -> (&[f32], &mut [f32]) {
        let r = self.layout.tensors[i].range();
        (&self.data[r.clone()], &mut self.grad[r])
    }
}
