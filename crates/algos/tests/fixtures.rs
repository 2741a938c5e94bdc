//! Numbers of TRL, OpenRLHF and verl (fixtures/rl-fixtures.json, 1e-6), golden vectors, gradients by finite
//! differences, and properties that any implementation must have.

#![allow(clippy::unwrap_used)]

use ecr_algos::dpo::{DpoConfig, PairLogp, pair_loss};
use ecr_algos::losses::*;
use ecr_core::Stream;
use serde_json::Value as Json;

struct Fixtures {
    json: Json,
    lengths: Vec<usize>,
}

impl Fixtures {
    fn load() -> Self {
        let json: Json = serde_json::from_str(include_str!("../../../fixtures/rl-fixtures.json")).unwrap();
        Self { json, lengths: vec![6, 4, 2] }
    }
    /// The valid entries of a padded `[3, 6]` array, laid end to end.
    fn rows(&self, pointer: &str) -> Vec<f64> {
        let rows = self.json.pointer(pointer).unwrap_or_else(|| panic!("{pointer}")).as_array().unwrap();
        let mut out = Vec::new();
        for (row, &len) in rows.iter().zip(&self.lengths) {
            out.extend(row.as_array().unwrap()[..len].iter().map(|x| x.as_f64().unwrap()));
        }
        out
    }
    fn rows32(&self, pointer: &str) -> Vec<f32> {
        self.rows(pointer).iter().map(|&x| x as f32).collect()
    }
    fn list(&self, pointer: &str) -> Vec<f64> {
        self.json.pointer(pointer).unwrap().as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    }
    fn number(&self, pointer: &str) -> f64 {
        self.json.pointer(pointer).unwrap_or_else(|| panic!("{pointer}")).as_f64().unwrap()
    }
    fn old(&self) -> Vec<f32> {
        self.rows32("/inputs/old_logp")
    }
    fn now(&self) -> Vec<f32> {
        self.rows32("/inputs/new_logp")
    }
    fn gae(&self, gamma: f64, lambda: f64) -> Gae {
        let kl = kl_tokens(KlEstimator::K1, &self.old(), &self.rows32("/inputs/ref_logp"));
        let rewards = token_rewards(&self.list("/inputs/score"), &kl, 0.05, &self.lengths);
        gae(&rewards, &self.rows32("/inputs/values"), &self.lengths, gamma, lambda)
    }
    fn whitened(&self) -> Vec<f64> {
        let mut a = self.gae(1.0, 0.95).advantages;
        whiten(&mut a, true, Variance::Unbiased);
        a
    }
}

fn close(what: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() <= 1e-6 * w.abs().max(1.0), "{what}: {got:?} instead of {want:?}");
    }
}

fn wide(xs: &[f32]) -> Vec<f64> {
    xs.iter().map(|&x| f64::from(x)).collect()
}

#[test]
fn kl_estimators() {
    let f = Fixtures::load();
    let reference = f.rows32("/inputs/ref_logp");
    for (k, name) in [(KlEstimator::K1, "k1"), (KlEstimator::K2, "k2"), (KlEstimator::K3, "k3")] {
        let kl = kl_tokens(k, &f.old(), &reference);
        close(name, &kl, &f.rows(&format!("/kl_verl/{name}")));
        let sums = sequence_sums(&kl, &f.lengths);
        let mean = sums.iter().sum::<f64>() / 3.0;
        close(name, &[mean], &[f.number(&format!("/kl_seq_mean_of_sums/{name}"))]);
        if name == "k1" {
            close(name, &sums, &f.list("/kl_seq_sum_k1"));
        }
    }
}

#[test]
fn shaped_rewards() {
    let f = Fixtures::load();
    let reference = f.rows32("/inputs/ref_logp");
    for (k, name) in [(KlEstimator::K1, "k1"), (KlEstimator::K3, "k3")] {
        let kl = kl_tokens(k, &f.old(), &reference);
        let mut r = token_rewards(&f.list("/inputs/score"), &kl, 0.05, &f.lengths);
        close(name, &r, &f.rows(&format!("/token_rewards_{name}")));
        if name == "k1" {
            whiten(&mut r, false, Variance::Unbiased);
            close("whitened, mean kept", &r, &f.rows("/token_rewards_whitened_trl"));
        }
    }
}

#[test]
fn advantages_returns_and_whitening() {
    let f = Fixtures::load();
    for (key, gamma, lambda) in [
        ("gae_openrlhf", 1.0, 0.95),
        ("gae_g1.0_l1.0", 1.0, 1.0),
        ("gae_g0.99_l0.9", 0.99, 0.9),
        ("gae_g0.9_l0.0", 0.9, 0.0),
    ] {
        let g = f.gae(gamma, lambda);
        close(key, &g.advantages, &f.rows(&format!("/{key}/adv")));
        close(key, &g.returns, &f.rows(&format!("/{key}/ret")));
    }
    close("unbiased", &f.whitened(), &f.rows("/adv_whitened_trl"));
    close("unbiased", &f.whitened(), &f.rows("/gae_verl/adv_whitened"));
    let mut biased = f.gae(1.0, 0.95).advantages;
    whiten(&mut biased, true, Variance::Biased);
    close("biased", &biased, &f.rows("/adv_norm_openrlhf"));
    let mut blog: Vec<f64> = (0..9).map(|i| 1.2 + 0.1 * f64::from(i)).collect();
    whiten(&mut blog, false, Variance::Unbiased);
    let want: Vec<f64> = f.json["whiten_blog_unbiased"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|r| r.as_array().unwrap())
        .map(|x| x.as_f64().unwrap())
        .collect();
    close("blog", &blog, &want);
    let g = f.gae(1.0, 0.95);
    let ev = explained_variance(&f.rows("/inputs/values"), &g.returns);
    // verl adds 1e-5 to the (unbiased) variance of the returns; ours does not.
    let mean = g.returns.iter().sum::<f64>() / 12.0;
    let var = g.returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / 11.0;
    let verl = 1.0 - (1.0 - ev) * var / (var + 1e-5);
    close("explained variance", &[verl], &[f.number("/explained_var_verl")]);
}

#[test]
fn golden_vector_of_one_response() {
    let g = gae(&[0.0, 0.0, 1.0], &[0.2, 0.3, 0.5], &[3], 0.99, 0.95);
    for (got, want) in g.advantages.iter().zip([0.722668, 0.66525, 0.5]) {
        assert!((got - want).abs() < 1e-6, "{g:?}");
    }
    for (got, want) in g.returns.iter().zip([0.922668, 0.96525, 1.0]) {
        assert!((got - want).abs() < 1e-6, "{g:?}");
    }
}

#[test]
fn policy_losses() {
    let f = Fixtures::load();
    let (old, new, adv) = (f.old(), f.now(), f.whitened());
    let loss = |how: Aggregation, clip| policy_loss(&new, &old, &adv, &how.weights(&f.lengths), clip);
    let l = loss(Aggregation::TokenMean, Clip::symmetric(0.2));
    close("loss", &[l.loss], &[f.number("/policy_loss_trl/loss")]);
    close("gradient", &wide(&l.d_logp), &f.rows("/policy_loss_trl/grad_new_logp"));
    assert_eq!(l.clipped, 2);
    let keys = [
        "/policy_loss_trl/approxkl_masked",
        "/policy_loss_trl/k3_old_new",
        "/policy_loss_token_mean/k1_old_new",
    ];
    let want: Vec<f64> = keys.iter().map(|k| f.number(k)).collect();
    close("approximate KL", &[l.k2 / 12.0, l.k3 / 12.0, l.k1 / 12.0], &want);
    for (how, key) in [
        (Aggregation::TokenMean, "token-mean"),
        (Aggregation::SeqMeanTokenSum, "seq-mean-token-sum"),
        (Aggregation::SeqMeanTokenMean, "seq-mean-token-mean"),
        (Aggregation::SeqMeanTokenSumNorm, "seq-mean-token-sum-norm"),
    ] {
        let l = loss(how, Clip::symmetric(0.2));
        close(key, &[l.loss], &[f.number(&format!("/policy_loss_verl_{key}/loss"))]);
    }
    let higher = loss(Aggregation::TokenMean, Clip { low: 0.2, high: 0.28, dual: None });
    close("clip-higher", &[higher.loss], &[f.number("/policy_loss_clip_higher_0.28/loss")]);
    let dual = policy_loss(
        &f.rows32("/dualclip_inputs/new_logp"),
        &old,
        &f.rows("/dualclip_inputs/adv"),
        &Aggregation::TokenMean.weights(&f.lengths),
        Clip { low: 0.2, high: 0.2, dual: Some(3.0) },
    );
    close("dual clip", &[dual.loss], &[f.number("/policy_loss_verl_dualclip/loss")]);
    assert_eq!(dual.clipped_dual, 1);
}

#[test]
fn value_losses() {
    let f = Fixtures::load();
    let returns = f.gae(1.0, 0.95).returns;
    let (old, new) = (f.rows32("/inputs/values"), f.rows32("/inputs/new_values"));
    let w = Aggregation::TokenMean.weights(&f.lengths);
    let clipped = value_loss(&new, &old, &returns, &w, Some(0.2));
    close("clipped", &[clipped.loss], &[f.number("/value_loss_clip0.2")]);
    close("gradient", &wide(&clipped.d_value), &f.rows("/value_loss_grad"));
    assert_eq!(clipped.clipped, 4);
    let plain = value_loss(&new, &old, &returns, &w, None);
    close("unclipped", &[plain.loss], &[f.number("/value_loss_noclip")]);
    let policy = policy_loss(&f.now(), &f.old(), &f.whitened(), &w, Clip::symmetric(0.2));
    close("total", &[policy.loss + 0.1 * clipped.loss], &[f.number("/total_loss_trl_vf0.1")]);
}

#[test]
fn adaptive_kl_follows_the_series_and_survives_serialisation() {
    let f = Fixtures::load();
    let mut c = KlController::adaptive(0.2, 6.0, 10_000.0);
    for (kl, want) in f.list("/adaptive_kl/currents").iter().zip(f.list("/adaptive_kl/values")) {
        let json = serde_json::to_string(&c).unwrap();
        c = serde_json::from_str(&json).unwrap();
        c.update(*kl, 256);
        close("beta", &[c.coef], &[want]);
    }
    let mut fixed = KlController::fixed(0.05);
    fixed.update(1e6, 256);
    assert_eq!(fixed.coef, 0.05);
}

#[test]
fn group_advantages() {
    let f = Fixtures::load();
    let (rewards, sizes) = (f.list("/grpo_inputs/rewards"), [4, 4, 2]);
    close("rloo", &leave_one_out(&rewards, &sizes), &f.list("/rloo_verl"));
    close("grpo", &group_relative(&rewards, &sizes, Some(1e-6)), &f.list("/grpo_verl_eps1e-6_unbiasedstd"));
    close("grpo trl", &group_relative(&rewards[..4], &[4], Some(1e-4)), &f.list("/grpo_trl_group0"));
    close("dr grpo", &group_relative(&rewards, &sizes, None), &f.list("/drgrpo_verl"));
    for method in [leave_one_out, |r: &[f64], s: &[usize]| group_relative(r, s, Some(1e-4))] {
        let shifted: Vec<f64> = rewards.iter().map(|r| r + 7.0).collect();
        close("a constant changes nothing", &method(&shifted, &sizes), &method(&rewards, &sizes));
        assert_eq!(method(&[3.0], &[1]), [0.0], "alone in a group");
    }
}

#[test]
fn several_rewards() {
    let f = Fixtures::load();
    let rows = f.json.pointer("/multi_objective/rewards").unwrap().as_array().unwrap();
    let component = |c: usize| rows.iter().map(|r| r[c].as_f64().unwrap()).collect::<Vec<f64>>();
    let (components, w) = ([component(0), component(1)], f.list("/multi_objective/weights"));
    let sum: Vec<f64> = (0..4).map(|i| w[0] * components[0][i] + w[1] * components[1][i]).collect();
    close(
        "sum, then normalise",
        &group_relative(&sum, &[4], Some(1e-4)),
        &f.list("/multi_objective/sum_then_normalize"),
    );
    close(
        "normalise, then sum",
        &normalize_then_sum(&components, &w, &[4], 1e-4),
        &f.list("/multi_objective/normalize_then_sum"),
    );
}

/// Mean loss of the fixture's pairs, and each pair's.
fn pairs(f: &Fixtures, cfg: &DpoConfig) -> (f64, Vec<f64>) {
    let [pc, pr, rc, rr] = ["pc", "pr", "rc", "rr"].map(|k| f.list(&format!("/dpo_inputs/{k}")));
    let [plus, minus] = ["lens_c", "lens_r"].map(|k| f.list(&format!("/ipo_lengthnorm_trl/{k}")));
    let one = |i: usize| {
        let now = PairLogp { chosen: pc[i], rejected: pr[i] };
        let reference = PairLogp { chosen: rc[i], rejected: rr[i] };
        let l = pair_loss(now, reference, (plus[i] as usize, minus[i] as usize), cfg);
        l.preference + cfg.sft_coef * l.sft
    };
    let each: Vec<f64> = (0..4).map(one).collect();
    (each.iter().sum::<f64>() / 4.0, each)
}

#[test]
fn preference_losses() {
    let f = Fixtures::load();
    let base = DpoConfig::default();
    let (loss, each) = pairs(&f, &base);
    close("dpo", &[loss], &[f.number("/dpo_sigmoid/loss")]);
    close("dpo", &each, &f.list("/dpo_sigmoid/per_seq"));
    for (name, cfg, key) in [
        ("cdpo", DpoConfig { label_smoothing: 0.1, ..base.clone() }, "/dpo_label_smoothing0.1"),
        ("ipo", DpoConfig { loss: Preference::Ipo, ..base.clone() }, "/ipo_sum_openrlhf"),
        (
            "ipo, length-normalised",
            DpoConfig { loss: Preference::Ipo, length_normalize: true, ..base.clone() },
            "/ipo_lengthnorm_trl/loss",
        ),
        ("hinge", DpoConfig { loss: Preference::Hinge, ..base.clone() }, "/hinge"),
        ("with SFT", DpoConfig { sft_coef: 0.2, ..base.clone() }, "/dpo_ftx0.2_llmtuner"),
    ] {
        close(name, &[pairs(&f, &cfg).0], &[f.number(key)]);
    }
    // Robust DPO with ε = 0 is DPO; its mean over labels flipped with probability ε is the clean loss.
    let robust = |h, e| Preference::Robust.of(h, 0.1, e).0;
    let clean = |h| Preference::Sigmoid.of(h, 0.1, 0.0).0;
    close("robust", &[robust(1.3, 0.0)], &[clean(1.3)]);
    close("unbiased", &[0.9 * robust(1.3, 0.1) + 0.1 * robust(-1.3, 0.1)], &[clean(1.3)]);
    let (c, r) = (f.list("/bt_pair/chosen"), f.list("/bt_pair/rejected"));
    let mean = |margin| c.iter().zip(&r).map(|(c, r)| bradley_terry(*c, *r, margin).0).sum::<f64>() / 3.0;
    close(
        "pairs of a reward model",
        &[mean(0.0), mean(0.5)],
        &[f.number("/bt_pair/loss"), f.number("/bt_pair/loss_margin")],
    );
}

#[test]
fn preference_gradients_equal_finite_differences() {
    let reference = PairLogp { chosen: -8.0, rejected: -7.5 };
    for loss in [Preference::Sigmoid, Preference::Robust, Preference::Hinge, Preference::Ipo] {
        for length_normalize in [false, true] {
            for (chosen, rejected) in [(-8.1, -7.9), (-3.0, -40.0), (-30.0, -2.0)] {
                let cfg = DpoConfig {
                    loss,
                    length_normalize,
                    label_smoothing: 0.1,
                    sft_coef: 0.2,
                    beta: 0.3,
                    ..DpoConfig::default()
                };
                let total = |chosen: f64, rejected: f64| {
                    let l = pair_loss(PairLogp { chosen, rejected }, reference, (5, 3), &cfg);
                    l.preference + cfg.sft_coef * l.sft
                };
                let l = pair_loss(PairLogp { chosen, rejected }, reference, (5, 3), &cfg);
                let e = 1e-5;
                let plus = (total(chosen + e, rejected) - total(chosen - e, rejected)) / (2.0 * e);
                let minus = (total(chosen, rejected + e) - total(chosen, rejected - e)) / (2.0 * e);
                close(&format!("{loss:?}"), &[l.d_chosen, l.d_rejected], &[plus, minus]);
            }
        }
    }
    let (e, (_, slope)) = (1e-5, bradley_terry(0.4, 0.9, 0.5));
    let numeric = (bradley_terry(0.4 + e, 0.9, 0.5).0 - bradley_terry(0.4 - e, 0.9, 0.5).0) / (2.0 * e);
    close("Bradley-Terry", &[slope], &[numeric]);
}

/// Analytic gradient against central differences of `loss`, at every coordinate.
fn check_gradient(x: &[f32], gradient: &[f32], loss: impl Fn(&[f32]) -> f64) {
    for i in 0..x.len() {
        let mut y = x.to_vec();
        y[i] = x[i] + 1e-3;
        let (up, high) = (loss(&y), f64::from(y[i]));
        y[i] = x[i] - 1e-3;
        let slope = (up - loss(&y)) / (high - f64::from(y[i]));
        assert!((slope - f64::from(gradient[i])).abs() < 1e-6, "{i}: {slope} against {}", gradient[i]);
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let f = Fixtures::load();
    let (old, new, adv) = (f.old(), f.now(), f.whitened());
    let w = Aggregation::SeqMeanTokenMean.weights(&f.lengths);
    let clip = Clip { low: 0.2, high: 0.28, dual: Some(1.5) };
    check_gradient(&new, &policy_loss(&new, &old, &adv, &w, clip).d_logp, |x| {
        policy_loss(x, &old, &adv, &w, clip).loss
    });
    let returns = f.gae(1.0, 0.95).returns;
    let (v_old, v) = (f.rows32("/inputs/values"), f.rows32("/inputs/new_values"));
    for range in [Some(0.2), None] {
        check_gradient(&v, &value_loss(&v, &v_old, &returns, &w, range).d_value, |x| {
            value_loss(x, &v_old, &returns, &w, range).loss
        });
    }
    for (range, delta) in [(None, Some(0.3)), (Some(0.2), Some(0.3)), (None, Some(100.0))] {
        let l = |x: &[f32]| huber_value_loss(x, &v_old, &returns, &w, range, delta);
        check_gradient(&v, &l(&v).d_value, |x| l(x).loss);
    }
    let far = huber_value_loss(&[3.0, -3.0, 0.5], &[0.0; 3], &[0.0; 3], &[1.0; 3], None, Some(2.0));
    close("Huber", &[far.loss], &[4.0 + 4.0 + 0.125]);
    assert_eq!(far.d_value, [2.0, -2.0, 0.5]);
    let reference = f.rows32("/inputs/ref_logp");
    for k in [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3] {
        let l = kl_loss(k, &new, &reference, 0.3, &w);
        let want: f64 = kl_tokens(k, &new, &reference).iter().zip(&w).map(|(k, w)| 0.3 * k * w).sum();
        close("value", &[l.loss], &[want]);
        check_gradient(&new, &l.d_logp, |x| kl_loss(k, x, &reference, 0.3, &w).loss);
    }
    check_gradient(&new, &nll(&new, &w).d_logp, |x| nll(x, &w).loss);
    check_gradient(&new, &entropy_bonus(&new, 0.3, &w).d_entropy, |x| entropy_bonus(x, 0.3, &w).loss);
}

#[test]
fn gae_ends_in_closed_forms() {
    let mut r = Stream::new(5).rng();
    let lengths = [3, 1, 7];
    let rewards: Vec<f64> = (0..11).map(|_| r.normal()).collect();
    let values: Vec<f32> = (0..11).map(|_| r.normal() as f32).collect();
    let (one, zero) =
        (gae(&rewards, &values, &lengths, 0.9, 1.0), gae(&rewards, &values, &lengths, 0.9, 0.0));
    let mut start = 0;
    for len in lengths {
        let mut to_go = 0.0;
        for t in (start..start + len).rev() {
            to_go = rewards[t] + 0.9 * to_go;
            assert!((one.returns[t] - to_go).abs() < 1e-12);
            let next = if t + 1 < start + len { f64::from(values[t + 1]) } else { 0.0 };
            let td = rewards[t] + 0.9 * next - f64::from(values[t]);
            assert!((zero.advantages[t] - td).abs() < 1e-12);
        }
        start += len;
    }
}

#[test]
fn whitened_numbers_have_mean_zero_and_variance_one() {
    let mut r = Stream::new(6).rng();
    let mut x: Vec<f64> = (0..500).map(|_| 3.0 + 10.0 * r.normal()).collect();
    whiten(&mut x, true, Variance::Biased);
    let mean = x.iter().sum::<f64>() / 500.0;
    let var = x.iter().map(|v| v * v).sum::<f64>() / 500.0;
    assert!(mean.abs() < 1e-12 && (var - 1.0).abs() < 1e-6);
    let mut one = [4.0];
    whiten(&mut one, true, Variance::Unbiased);
    assert_eq!(one, [0.0]);
}

#[test]
fn sampled_kl_agrees_with_the_exact_one() {
    let p: [f64; 4] = [0.4, 0.3, 0.2, 0.1];
    let q: [f64; 4] = [0.25, 0.25, 0.2, 0.3];
    let exact: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
    let mut r = Stream::new(9).rng();
    let n = 20_000;
    for k in [KlEstimator::K1, KlEstimator::K3] {
        let (mut sum, mut square) = (0.0, 0.0);
        for _ in 0..n {
            let mut u = r.uniform();
            let mut i = 0;
            while i < 3 && u >= p[i] {
                u -= p[i];
                i += 1;
            }
            let x = k.of((p[i] / q[i]).ln());
            sum += x;
            square += x * x;
        }
        let mean = sum / f64::from(n);
        let error = ((square / f64::from(n) - mean * mean) / f64::from(n)).sqrt();
        assert!((mean - exact).abs() < 3.0 * error, "{k:?}: {mean} instead of {exact} ± {error}");
    }
}

#[test]
fn micro_batches_do_not_change_losses() {
    let f = Fixtures::load();
    let (old, new, adv) = (f.old(), f.now(), f.whitened());
    let w = Aggregation::TokenMean.weights(&f.lengths);
    let whole = policy_loss(&new, &old, &adv, &w, Clip::symmetric(0.2));
    let (mut loss, mut gradient) = (0.0, Vec::new());
    for r in [0..6, 6..10, 10..12] {
        let part =
            policy_loss(&new[r.clone()], &old[r.clone()], &adv[r.clone()], &w[r], Clip::symmetric(0.2));
        loss += part.loss;
        gradient.extend(part.d_logp);
    }
    assert!((loss - whole.loss).abs() < 1e-15);
    assert_eq!(gradient, whole.d_logp);
}

#[test]
fn a_nan_is_never_swallowed() {
    let l = policy_loss(&[f32::NAN], &[-1.0], &[1.0], &[1.0], Clip::symmetric(0.2));
    assert!(l.loss.is_nan() && l.ratio_off.is_infinite());
    assert!(value_loss(&[f32::NAN], &[0.0], &[1.0], &[1.0], Some(0.2)).loss.is_nan());
}
