//! Configuration: one documented structure, filled in layers (built-in defaults, preset, files, `--set`, flags).
//! Every value remembers where it came from; an unknown key is an error that names the nearest known one.

mod aliases;
mod layers;
mod presets;

use ecr_algos::dpo::DpoConfig;
use ecr_algos::grpo::GrpoConfig;
use ecr_algos::guards::GuardConfig;
use ecr_algos::macpo::MacpoConfig;
use ecr_algos::mappo::MappoConfig;
use ecr_algos::ppo::PpoConfig;
use ecr_algos::rloo::RlooConfig;
use serde::{Deserialize, Serialize};

pub use aliases::{ALIASES, alias};
pub use layers::{Layers, Origin};
pub use presets::{PRESETS, all_presets, preset};

/// Keys that hold a path. A relative one in a file is taken from the file's directory; results do not name them.
pub const PATHS: &[&str] = &[
    "data.path",
    "policy.path",
    "encoder.path",
    "critic.pretrained_path",
    "critic.train_data",
    "critic.valid_data",
    "eval.baseline_path",
    "eval.rl_enhanced_path",
    "preferences.path",
];

/// The whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seed, kernels.
    pub run: Run,
    /// Where conversations come from.
    pub data: Data,
    /// The language model.
    pub policy: Policy,
    /// Adapter over a pretrained model.
    pub lora: Lora,
    /// The encoder of emotion scorers and critic.
    pub encoder: Encoder,
    /// Emotion classifiers.
    pub emotion: Emotion,
    /// Classifiers of EPITOME's levels.
    pub empathy: Empathy,
    /// Emotions of the record files.
    pub label: Label,
    /// Quality critic.
    pub critic: Critic,
    /// Supervised baseline.
    pub sft: Sft,
    /// Reward weights.
    pub reward: Reward,
    /// Warm start of the value function.
    pub value: Value,
    /// Alignment.
    pub ppo: PpoConfig,
    /// Which of its students is kept.
    pub select: Select,
    /// In which order it sees prompts.
    pub curriculum: Curriculum,
    /// Alarms of alignment, and what rolling back changes.
    pub guard: GuardConfig,
    /// Critic-free alignment, leave-one-out baseline.
    pub rloo: RlooConfig,
    /// Critic-free alignment, group-relative advantage.
    pub grpo: GrpoConfig,
    /// Alignment of several agents.
    pub mappo: MappoConfig,
    /// Tuning on a file of preferences.
    pub dpo: DpoConfig,
    /// That file.
    pub preferences: Preferences,
    /// Rounds of contrast between teachers and student.
    pub macpo: MacpoConfig,
    /// How MACPO's agents come to be, and what they answer.
    pub teachers: Teachers,
    /// Who the agents are, and what becomes of them.
    pub team: TeamSettings,
    /// Evaluation and comparison.
    pub eval: Eval,
    /// Mirrors of the logs.
    pub track: Track,
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $ty:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }
        impl Default for $name {
            fn default() -> Self { Self { $($field: $default,)* } }
        }
    };
}

section! {
    /// Seed and kernels.
    Run {
        /// Seed of every random stream. Default 42.
        seed: u64 = 42,
        /// Another seed for the stages from `train_seed_from` on that train, 0 = `seed`. Data, test prompts and the
        /// streams of evaluation stay those of `seed`, so that runs can be compared. Default 0.
        train_seed: u64 = 0,
        /// First stage that `train_seed` changes. Default ppo: all runs share one baseline.
        train_seed_from: String = "ppo".into(),
        /// Threads; 0 = all. Results do not depend on it. Default 0.
        threads: usize = 0,
        /// `f32`, or `bf16` (bf16 arithmetic where the CPU has it). Default bf16.
        precision: String = "bf16".into(),
        /// `auto`, `portable`, `avx2` or `avx512`. Default auto.
        tier: String = "auto".into(),
        /// Steps between checkpoints. Default 10.
        checkpoint_every: u64 = 10,
        /// Log prompts, samples and token log-probabilities. Default false.
        debug: bool = false,
        /// Log every sample with its reward breakdown. Default false.
        log_all: bool = false,
        /// Optional stages that belong to the run: `rloo`, `grpo`. Their models are evaluated and compared too.
        also: Vec<String> = Vec::new(),
    }
}
section! {
    /// Where conversations come from.
    Data {
        /// `demo` (embedded generator) or `redial` (raw ReDial files). Default demo.
        source: String = "demo".into(),
        /// Directory of the data sets (`redial/`, `kg/`, `empathy/`); a relative path is from the configuration file.
        path: String = String::new(),
        /// Training dialogues of the demo.
        demo_train: usize = 700,
        /// Validation dialogues of the demo.
        demo_valid: usize = 80,
        /// Test dialogues of the demo.
        demo_test: usize = 200,
        /// Most training dialogues used; 0 = all.
        max_train: usize = 0,
        /// More bad lines than this are an error.
        max_bad_lines: usize = 50,
        /// `resp` of the record files holds `<movie>` slots.
        slots: bool = false,
        /// Write the rows that the critic learns from.
        critic_rows: bool = true,
    }
}
section! {
    /// The language model.
    Policy {
        /// Model directory or GGUF file; empty = trained from scratch in the shape below.
        path: String = String::new(),
        /// Vocabulary of the tokenizer trained from scratch.
        vocab_size: usize = 2048,
        /// Width.
        hidden_size: usize = 128,
        /// Feed-forward width.
        intermediate_size: usize = 384,
        /// Blocks.
        num_layers: usize = 4,
        /// Attention heads.
        num_heads: usize = 4,
        /// Key and value heads.
        num_kv_heads: usize = 2,
        /// First system message; empty = none.
        system: String = String::new(),
        /// Longest prompt, tokens.
        context_max: usize = 192,
        /// Longest training window, tokens.
        window_max: usize = 320,
    }
}
section! {
    /// Adapter over a pretrained model.
    Lora {
        /// Rank; 0 = train all weights.
        rank: usize = 0,
        /// The update is scaled by alpha / rank.
        alpha: f64 = 32.0,
        /// Adapted projections.
        targets: Vec<String> = vec!["q_proj".into(), "v_proj".into()],
    }
}
section! {
    /// The encoder of emotion scorers and critic.
    Encoder {
        /// Model directory or name (`roberta-base`); empty = from scratch in the shape below.
        path: String = String::new(),
        /// Width.
        hidden_size: usize = 96,
        /// Feed-forward width.
        intermediate_size: usize = 192,
        /// Blocks.
        num_layers: usize = 2,
        /// Attention heads.
        num_heads: usize = 4,
        /// Longest input, tokens.
        max_len: usize = 160,
    }
}
section! {
    /// Emotion classifiers.
    Emotion {
        /// Peak learning rate.
        learning_rate: f64 = 1e-3,
        /// Tokens a batch.
        batch_tokens: usize = 768,
        /// Tokens of one forward pass; does not change results.
        micro_batch_tokens: usize = 4096,
        /// Passes over the data.
        epochs: u64 = 3,
        /// Most training texts of each scorer; 0 = all.
        max_texts: usize = 0,
        /// `none`, or `inverse`: classes count alike, however often they occur.
        class_weights: String = "none".into(),
        /// Focusing parameter of the focal loss; 0 = cross-entropy.
        focal_gamma: f64 = 0.0,
    }
}
section! {
    /// Classifiers of EPITOME's levels of empathy (`ecr train empathy`).
    Empathy {
        /// Peak learning rate; the head's is ten times that.
        learning_rate: f64 = 1e-4,
        /// Replies a step.
        batch_size: usize = 16,
        /// Tokens of one forward pass; does not change results.
        micro_batch_tokens: usize = 4096,
        /// Passes over the data.
        epochs: u64 = 4,
        /// Longest input, tokens; the seeker's post is cut from the left, the reply never.
        max_length: usize = 128,
        /// Rarer levels count more, by their frequency to the power of minus this; 0 = all alike, 1 = levels alike.
        balance: f64 = 0.5,
    }
}
section! {
    /// Emotions of the record files.
    Label {
        /// Splits whose records get emotions: `all`, `off`, names with commas, or `auto`: all of the demo, `valid,test`
        /// of ReDial.
        splits: String = "auto".into(),
    }
}
section! {
    /// Quality critic.
    Critic {
        /// Peak learning rate.
        learning_rate: f64 = 1e-3,
        /// Rows a step.
        batch_size: usize = 16,
        /// Tokens of one forward pass; does not change results.
        micro_batch_tokens: usize = 4096,
        /// Passes over the data.
        epochs: u64 = 2,
        /// Most training rows a pass; 0 = all. Each pass sees others.
        max_rows: usize = 3000,
        /// Share of them that people rated, as far as there are so many.
        rated_share: f64 = 0.5,
        /// Longest input, tokens; the context is cut from the left, the reply never.
        max_length: usize = 128,
        /// Weight of the pairwise ranking loss.
        rank_weight: f64 = 0.5,
        /// Weight, in it, of degradations of form for the head that learns satisfaction; 0 = none.
        form_weight: f64 = 0.5,
        /// Errors of a score above this count linearly (Huber); 0 = squared throughout.
        huber: f64 = 0.0,
        /// Trained critic to use instead of training one (a directory, or a file in it).
        pretrained_path: String = String::new(),
        /// Rows to learn from (JSONL, or a directory with `critic_train.jsonl`); empty = the prepared ones.
        train_data: String = String::new(),
        /// Rows to validate on (JSONL, or a directory with `critic_valid.jsonl`); empty = the prepared ones.
        valid_data: String = String::new(),
    }
}
section! {
    /// Supervised baseline.
    Sft {
        /// Peak learning rate.
        learning_rate: f64 = 2e-3,
        /// Weight decay of AdamW.
        weight_decay: f64 = 0.01,
        /// Largest gradient norm.
        max_grad_norm: f64 = 1.0,
        /// Training windows (about a dialogue each) a step.
        batch_size: usize = 12,
        /// Tokens of one forward pass; does not change results.
        micro_batch_tokens: usize = 2048,
        /// Steps at most.
        max_steps: u64 = 300,
        /// Passes over the data at most; 0 = as many as the steps take.
        epochs: u64 = 0,
        /// Warm-up steps.
        warmup_steps: u64 = 10,
        /// Steps between validations.
        eval_every: u64 = 50,
        /// Validations without improvement before stopping.
        patience: usize = 2,
        /// Validation dialogues.
        valid_dialogues: usize = 80,
        /// Candidates of the recommender listed in the prompt: a number, or `auto` to choose between 0 and
        /// `max_candidates` on validation.
        candidates: String = "auto".into(),
        /// What `auto` compares with none.
        max_candidates: usize = 4,
        /// Steps of each trial of `auto`.
        trial_steps: u64 = 40,
        /// Validation prompts that each trial answers `trial_best_of` times; the trial with the higher mean reward (raw
        /// components, weighed) of the best answers is chosen. 0 = by validation loss instead.
        trial_replies: usize = 0,
        /// Answers to each of them. Reinforcement learning sharpens what a policy can already do now and then: the best
        /// of a few answers says more of where it will end than their mean.
        trial_best_of: usize = 4,
    }
}
section! {
    /// The reward. A component of weight 0 is still measured; an optional one is then neither built nor run.
    Reward {
        /// Smoothed BLEU against the human reply.
        bleu: f64 = 1.0,
        /// Distinct n-grams within the reply and against the batch.
        distinct: f64 = 0.5,
        /// Emotional fit.
        empathy: f64 = 2.0,
        /// Fitting, new, known films.
        recommendation: f64 = 1.5,
        /// Form.
        format: f64 = 0.1,
        /// Recommends exactly when the human reply does (optional, as all that follow). Default 0: neither built nor run.
        wrong_moment: f64 = 0.0,
        /// Says nothing twice, within the reply and over the conversation.
        repetition: f64 = 0.0,
        /// Repeats little of the last 512 replies, whatever they answered.
        novelty: f64 = 0.0,
        /// Between `length_least` and `length_most` words.
        length: f64 = 0.0,
        /// Ends by itself.
        eos: f64 = 0.0,
        /// Facts about films that the catalogue knows to be true.
        knowledge: f64 = 0.0,
        /// Nearness of the reply's embedding to the last two turns'.
        relevance: f64 = 0.0,
        /// The critic's head `critic_head`.
        critic: f64 = 0.0,
        /// EPITOME's levels of empathy, beside those of the human reply (needs `ecr train empathy`).
        epitome: f64 = 0.0,
        /// The score of `external_command`.
        external: f64 = 0.0,
        /// Weights of one's own components, e.g. `["safety 0.5"]`.
        own: Vec<String> = Vec::new(),
        /// Fewest words for `length`.
        length_least: usize = 4,
        /// Most words for `length`.
        length_most: usize = 40,
        /// Pretrained encoder (name or directory) for `relevance`.
        relevance_model: String = "all-minilm-l6-v2".into(),
        /// Head for `critic`.
        critic_head: String = "overall".into(),
        /// For `epitome`: `match` the human reply's levels, reach `at_least` them, or `max`.
        epitome_target: String = "match".into(),
        /// Program and arguments for `external`; it reads and writes JSON lines.
        external_command: Vec<String> = Vec::new(),
        /// Least score of `external`.
        external_low: f64 = 0.0,
        /// Greatest score of `external`.
        external_high: f64 = 1.0,
        /// Longest wait of `external` for a batch, seconds.
        external_timeout: f64 = 60.0,
        /// What the user calls this version of `external_command`.
        external_version: String = String::new(),
        /// File of the cache of expensive scores; empty = none. Does not change results.
        cache: String = String::new(),
        /// `sum` (normalise, weigh, sum), `sum_then_normalise`, `worst_case` or `constrained`. Default sum.
        aggregation: String = "sum".into(),
        /// Replies that are none (empty, copied, repeating, a list of words) earn nothing else. Default false.
        gate: bool = false,
        /// Components of which the worst stands for all, for `worst_case`.
        ensemble: Vec<String> = Vec::new(),
        /// Constraints for `constrained`, e.g. `["distinct >= 0.8"]`: bars for mean raw scores.
        at_least: Vec<String> = Vec::new(),
        /// Step of the Lagrange multipliers.
        multiplier_rate: f64 = 0.1,
        /// Greatest Lagrange multiplier.
        multiplier_max: f64 = 10.0,
        /// Weights that change while training, e.g. `["bleu linear 1.0 to 0.2 over 20"]`.
        schedules: Vec<String> = Vec::new(),
    }
}
section! {
    /// Warm start of the value function.
    Value {
        /// Baseline rollouts it is fitted on.
        rollouts: usize = 512,
        /// Rollouts held out for explained variance.
        held_out: usize = 128,
        /// Units of the head's hidden layer.
        hidden: usize = 64,
        /// Learning rate.
        learning_rate: f64 = 3e-3,
        /// Passes over the rollouts in each phase.
        epochs: u64 = 4,
        /// What the value function is fitted to before PPO: `none`, `returns` of the rollouts, or `critic_and_returns`.
        warm_start: String = "critic_and_returns".into(),
    }
}
section! {
    /// Which of the students that PPO passes through is kept.
    Select {
        /// Updates between looks at replies to validation prompts, the baseline's first; 0 = no looks, the last student is
        /// kept. With looks, it is the one of the greatest mean reward among those within the limits below. The
        /// evaluation-only empathy score of the same replies is what guard G4 watches. Default 0.
        every: u64 = 0,
        /// Validation prompts of a look, the same each time.
        prompts: usize = 128,
        /// Least share of the baseline's distinct-2 over those replies that must remain.
        distinct_2: f64 = 0.0,
        /// Least share of the baseline's EOS rate that must remain.
        eos_rate: f64 = 0.0,
    }
}
section! {
    /// Easy prompts first, for `ppo`, `rloo` and `grpo`.
    Curriculum {
        /// Share of the training prompts, the easiest, that the first update draws from; 1 = all, no curriculum.
        start: f64 = 1.0,
        /// Updates until all are in play; the share grows linearly.
        steps: u64 = 0,
        /// Difficulty: `turns` before the reply, or words of the human `reply`.
        by: String = "turns".into(),
    }
}
section! {
    /// A file of preferences.
    Preferences {
        /// JSONL with `prompt`, `chosen` and `rejected` (TRL's formats).
        path: String = String::new(),
        /// Passes over it. Default 1.
        epochs: u64 = 1,
    }
}
section! {
    /// MACPO's agents.
    Teachers {
        /// Fine-tuning steps of each teacher on its shard of the dialogues, from the baseline. Default 20.
        steps: usize = 20,
        /// Fine-tuning steps of each negative agent on spoilt replies. Default 15.
        negative_steps: usize = 15,
        /// Learning rate of both. Default 2e-4.
        learning_rate: f64 = 2e-4,
        /// Training prompts of a round. Default 96.
        prompts: usize = 96,
        /// Temperature of every reply. Default 1.
        temperature: f64 = 1.0,
        /// Validation prompts that judge a round. Default 96.
        held_out: usize = 96,
    }
}
section! {
    /// The agents of MAPPO.
    TeamSettings {
        /// Agents: conversation, empathy, recommendation, and over again. Default 3.
        num_agents: usize = 3,
        /// How many times the components of its role count in an agent's own reward. Default 2.
        emphasis: f64 = 2.0,
        /// What the critic sees: `centralised` (role, prompt, the other agents' replies) or `own` (the prompt: independent
        /// PPO). Default centralised.
        critic: String = "centralised".into(),
        /// What becomes the final model: the `best` agent on validation, or all `averaged`. Default best.
        final_model: String = "best".into(),
        /// Validation prompts that choose it. Default 64.
        selection_prompts: usize = 64,
    }
}
section! {
    /// Evaluation and comparison.
    Eval {
        /// Test prompts.
        prompts: usize = 300,
        /// Test dialogues for the likelihood of human replies.
        dialogues: usize = 200,
        /// Longest response, tokens.
        max_new: usize = 48,
        /// Sampling temperature of evaluation and rollouts' length share `max_new`; 0 is greedy.
        temperature: f64 = 1.0,
        /// Nucleus mass.
        top_p: f64 = 1.0,
        /// Rows decoded together.
        batch: usize = 16,
        /// Bootstrap resamples.
        resamples: usize = 2000,
        /// Samples shown side by side.
        samples: usize = 12,
        /// `test`, or `valid` for choosing settings: a choice made on test prompts cannot be measured on them.
        split: String = "test".into(),
        /// Model directory to evaluate as baseline; empty = the run's.
        baseline_path: String = String::new(),
        /// Model directory to evaluate as student; empty = the run's.
        rl_enhanced_path: String = String::new(),
    }
}
section! {
    /// Mirrors of the logs in `tracking/`; they do not change results.
    Track {
        /// W&B offline run, for `wandb sync`. Default false.
        wandb: bool = false,
        /// TensorBoard event files. Default false.
        tensorboard: bool = false,
        /// Project of W&B. Default ecr.
        project: String = "ecr".into(),
    }
}
