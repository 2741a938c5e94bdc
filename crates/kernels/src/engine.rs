//! The kernels' front door: which tier and precision, and the three products of a linear layer.
//!
//! Legend: `m` rows (tokens), `k` input width, `n` output width; weights are `[n, k]` row major as in PyTorch.

use std::sync::Arc;

use crate::gemm::{self, PackedB, Right, Store, View};

/// Instruction set in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Plain Rust.
    Portable,
    /// AVX2 and FMA, f32.
    Avx2,
    /// AVX-512 (f32, and bf16 dot products where the CPU has them).
    Avx512,
}

impl Tier {
    /// Name in logs and run.json.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

/// Arithmetic of the matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// f32 throughout.
    F32,
    /// Inputs of products rounded to bf16 and summed in f32 where the CPU has bf16 arithmetic; elsewhere weights
    /// are stored as bf16 and products are f32.
    Bf16,
}

/// A weight matrix `[n, k]`.
#[derive(Clone, Copy)]
pub enum Weight<'a> {
    /// As it lies; packed at every product.
    Plain(&'a [f32]),
    /// Packed once by [`Engine::pack`] (frozen weights, decoding).
    Packed(&'a PackedWeight),
}

/// A frozen weight in the engine's own layout: for `x·Wᵀ`, and for `dy·W` if it was packed for training.
#[derive(Debug, Clone)]
pub struct PackedWeight {
    forward: Arc<PackedB>,
    backward: Option<Arc<PackedB>>,
}

impl PackedWeight {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        4 * (self.forward.data.len() + self.backward.as_ref().map_or(0, |b| b.data.len()))
    }
    /// Reads row `i` of the weight, `[k]`, as it is stored: an embedding looked up in its own head. Panics beyond
    /// the last row.
    pub fn read_row(&self, i: usize, out: &mut [f32]) {
        self.forward.column(i, out);
    }
}

/// Kernel choice; cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engine {
    /// Instruction set.
    pub tier: Tier,
    /// Arithmetic.
    pub precision: Precision,
    dot_bf16: bool,
}

impl Engine {
    /// The best tier of this CPU.
    pub fn detect(precision: Precision) -> Self {
        let tier = *Self::available_tiers().last().unwrap_or(&Tier::Portable);
        Self { tier, precision, dot_bf16: has_bf16_dot() && tier == Tier::Avx512 }
    }
    /// A given tier, or `None` where the CPU lacks it.
    pub fn with_tier(tier: Tier, precision: Precision) -> Option<Self> {
        let here = Self::available_tiers().contains(&tier);
        here.then(|| Self { tier, precision, dot_bf16: has_bf16_dot() && tier == Tier::Avx512 })
    }
    /// The tiers of this CPU, slowest first.
    pub fn available_tiers() -> Vec<Tier> {
        [Tier::Portable, Tier::Avx2, Tier::Avx512].into_iter().filter(|&t| has(t)).collect()
    }
    /// Whether products are made of bf16 dot products.
    pub fn bf16_arithmetic(&self) -> bool {
        self.precision == Precision::Bf16 && self.dot_bf16
    }
    /// Kernel name for run.json: tier and arithmetic.
    pub fn name(&self) -> String {
        let arithmetic = match (self.precision, self.dot_bf16) {
            (Precision::F32, _) => "f32",
            (Precision::Bf16, true) => "bf16",
            (Precision::Bf16, false) => "bf16-stored",
        };
        format!("{}/{arithmetic}", self.tier.name())
    }
    /// How a matrix that is used once is packed.
    fn store(&self) -> Store {
        if self.bf16_arithmetic() { Store::Pairs } else { Store::F32 }
    }
    /// How a frozen weight is packed.
    fn frozen_store(&self) -> Store {
        match (self.precision, self.dot_bf16) {
            (Precision::F32, _) => Store::F32,
            (Precision::Bf16, true) => Store::Pairs,
            (Precision::Bf16, false) => Store::Bf16,
        }
    }
    /// Packs a weight `[n, k]` for forward and backward.
    pub fn pack(&self, n: usize, k: usize, w: &[f32]) -> PackedWeight {
        let mut p = self.pack_forward(n, k, w);
        let mut b = PackedB::empty();
        b.fill(n, k, View::rows(w, k), self.frozen_store(), true);
        p.backward = Some(Arc::new(b));
        p
    }
    /// Packs a weight `[n, k]` for forward only.
    pub fn pack_forward(&self, n: usize, k: usize, w: &[f32]) -> PackedWeight {
        Self::packed(n, k, w, self.frozen_store())
    }
    /// Packs a weight `[n, k]` for decoding: f32 arithmetic whatever the precision, elements stored as f32 or, at
    /// half the memory traffic, as bf16.
    pub fn pack_decode(&self, n: usize, k: usize, w: &[f32], as_bf16: bool) -> PackedWeight {
        Self::packed(n, k, w, if as_bf16 { Store::Bf16 } else { Store::F32 })
    }
    fn packed(n: usize, k: usize, w: &[f32], store: Store) -> PackedWeight {
        assert_eq!(w.len(), n * k, "weight shape");
        let mut b = PackedB::empty();
        b.fill(k, n, View::rows(w, k).t(), store, true);
        PackedWeight { forward: Arc::new(b), backward: None }
    }
    /// `y[m, n] = x[m, k] · wᵀ` (added to `y` if `add`).
    pub fn linear(&self, m: usize, n: usize, k: usize, x: &[f32], w: Weight<'_>, y: &mut [f32], add: bool) {
        let x = View::rows(x, k);
        match w {
            Weight::Packed(p) => {
                assert_eq!((p.forward.n, p.forward.k), (n, k), "packed weight shape");
                gemm::gemm(self.tier(), m, x, Right::Packed(&p.forward), y, n, add, true);
            }
            Weight::Plain(w) => self.product(m, n, k, x, View::rows(w, k).t(), y, n, add),
        }
    }
    /// `dx[m, k] = dy[m, n] · w` (added if `add`).
    pub fn linear_dx(
        &self,
        m: usize,
        n: usize,
        k: usize,
        dy: &[f32],
        w: Weight<'_>,
        dx: &mut [f32],
        add: bool,
    ) {
        let dy = View::rows(dy, n);
        match w {
            Weight::Packed(p) => {
                let b = p.backward.as_ref().unwrap_or_else(|| panic!("weight was packed for forward only"));
                gemm::gemm(self.tier(), m, dy, Right::Packed(b), dx, k, add, true);
            }
            Weight::Plain(w) => self.product(m, k, n, dy, View::rows(w, k), dx, k, add),
        }
    }
    /// `dw[n, k] += dyᵀ[n, m] · x[m, k]`.
    pub fn linear_dw(&self, m: usize, n: usize, k: usize, dy: &[f32], x: &[f32], dw: &mut [f32]) {
        self.product(n, k, m, View::rows(dy, n).t(), View::rows(x, k), dw, k, true);
    }
    /// `C[m, n] (+)= A[m, k] · B[k, n]` on the calling thread, for the many small products of attention.
    /// f32 arithmetic whatever the precision. Rows of `c` are `ldc` apart.
    pub fn matmul(
        &self,
        m: usize,
        n: usize,
        k: usize,
        a: View<'_>,
        b: View<'_>,
        c: &mut [f32],
        ldc: usize,
        add: bool,
    ) {
        gemm::gemm(self.tier(), m, a, Right::Plain(b, k, n, Store::F32), c, ldc, add, false);
    }
    fn product(
        &self,
        m: usize,
        n: usize,
        k: usize,
        a: View<'_>,
        b: View<'_>,
        c: &mut [f32],
        ldc: usize,
        add: bool,
    ) {
        gemm::gemm(self.tier(), m, a, Right::Plain(b, k, n, self.store()), c, ldc, add, true);
    }
    /// The tier, if the CPU has it: the field is public, and kernels must not run where they cannot.
    fn tier(&self) -> Tier {
        if has(self.tier) { self.tier } else { Tier::Portable }
    }
}

/// Whether this CPU has a tier.
fn has(tier: Tier) -> bool {
    #[cfg(target_arch = "x86_64")]
    let (avx2, avx512) = (
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw"),
    );
    #[cfg(not(target_arch = "x86_64"))]
    let (avx2, avx512) = (false, false);
    match tier {
        Tier::Portable => true,
        Tier::Avx2 => avx2,
        Tier::Avx512 => avx2 && avx512,
    }
}

fn has_bf16_dot() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}
