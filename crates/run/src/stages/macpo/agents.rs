//! The agents of MACPO and how they come to be: teachers from shards of the training dialogues, negative agents from
//! spoilt replies.

use ecr_algos::sft::{epoch_batches, sft_step};
use ecr_core::optim::AdamW;
use ecr_core::{Packed, Params, Result, Stream};
use ecr_data::degradations::{Degradation, degrade};
use ecr_data::records::{Example, examples};
use ecr_data::redial::Dialogue;
use ecr_models::Llama;

use crate::config::Config;
use crate::graph::Context;
use crate::measure::batches;
use crate::prompting::{Prompting, pack};
use crate::world::World;

/// Kinds of spoilt replies that negative agents learn; the worst level of each.
const BAD: [Degradation; 4] = [
    Degradation::OtherReply,
    Degradation::RejectedItem,
    Degradation::RepeatedPhrase,
    Degradation::CopiedContext,
];

/// Everyone who speaks in a round, with what is needed to undo it.
pub(super) struct Agents {
    pub(super) student: Params,
    pub(super) student_negative: Params,
    pub(super) student_start: Params,
    pub(super) teachers: Vec<Params>,
    pub(super) teacher_negatives: Vec<Params>,
    pub(super) teacher_starts: Vec<Params>,
    pub(super) teacher_firsts: Vec<Params>,
}

impl Agents {
    /// All agents as copies of `baseline`, to be filled.
    pub(super) fn like(baseline: &Params, teachers: usize) -> Self {
        let learner = || {
            let mut p = baseline.frozen_copy();
            p.make_trainable();
            p
        };
        let frozen = || baseline.frozen_copy();
        Self {
            student: learner(),
            student_negative: frozen(),
            student_start: frozen(),
            teachers: (0..teachers).map(|_| learner()).collect(),
            teacher_negatives: (0..teachers).map(|_| frozen()).collect(),
            teacher_starts: (0..teachers).map(|_| frozen()).collect(),
            teacher_firsts: (0..teachers).map(|_| frozen()).collect(),
        }
    }

    /// Trains them.
    pub(super) fn train(
        cx: &Context,
        c: &Config,
        world: &World,
        prompting: &Prompting,
        baseline: &Params,
        policy: &mut Llama,
        train: &[Dialogue],
        stream: Stream,
    ) -> Result<Self> {
        let k = c.macpo.teachers;
        let mut a = Self::like(baseline, k);
        let steps = (k * c.teachers.steps + (k + 1) * c.teachers.negative_steps) as u64;
        let mut progress = cx.progress("macpo agents", steps, 0);
        for i in 0..k {
            let shard: Vec<Dialogue> = train.iter().skip(i).step_by(k).cloned().collect();
            let windows = world.windows(prompting, &shard)?;
            let packs = |which: &[usize]| {
                let lengths: Vec<usize> = which.iter().map(|&w| windows[w].tokens.len()).collect();
                batches(&lengths, c.sft.micro_batch_tokens)
                    .into_iter()
                    .map(|r| pack(&which[r].iter().map(|&w| &windows[w]).collect::<Vec<_>>()))
                    .collect()
            };
            let order = stream.child("teacher").at(i as u64);
            tune(
                cx,
                c,
                policy,
                &mut a.teachers[i],
                windows.len(),
                &packs,
                c.teachers.steps,
                order,
                &mut progress,
            )?;
            a.teacher_firsts[i] = a.teachers[i].frozen_copy();
        }
        let bad = spoilt(c, world, prompting, train, stream.child("spoilt"))?;
        let packs = |which: &[usize]| {
            let lengths: Vec<usize> = which.iter().map(|&w| bad[w].0.len() + bad[w].1.len()).collect();
            let one = |r: std::ops::Range<usize>| {
                let mut batch = Packed::new();
                which[r].iter().for_each(|&w| batch.push_response(&bad[w].0, &bad[w].1));
                batch
            };
            batches(&lengths, c.sft.micro_batch_tokens).into_iter().map(one).collect()
        };
        for i in 0..=k {
            let mut p = if i == 0 { baseline.frozen_copy() } else { a.teachers[i - 1].frozen_copy() };
            p.make_trainable();
            let order = stream.child("negative").at(i as u64);
            tune(cx, c, policy, &mut p, bad.len(), &packs, c.teachers.negative_steps, order, &mut progress)?;
            let negative = p.frozen_copy();
            if i == 0 {
                a.student_negative = negative;
            } else {
                a.teacher_negatives[i - 1] = negative;
            }
        }
        Ok(a)
    }

    /// Remembers where the round begins.
    pub(super) fn begin_round(&mut self) {
        self.student_start = self.student.frozen_copy();
        self.teacher_starts = self.teachers.iter().map(Params::frozen_copy).collect();
    }
    /// Goes back there.
    pub(super) fn undo_round(&mut self) {
        let back = |now: &mut Params, then: &Params| {
            now.data.copy_from_slice(&then.data);
            now.touch();
        };
        back(&mut self.student, &self.student_start);
        self.teachers.iter_mut().zip(&self.teacher_starts).for_each(|(now, then)| back(now, then));
    }
    /// Learner 0 is the student, k + 1 teacher k.
    pub(super) fn learner(&mut self, i: usize) -> &mut Params {
        if i == 0 { &mut self.student } else { &mut self.teachers[i - 1] }
    }
    /// All with the names that checkpoints use.
    pub(super) fn named(&self) -> Vec<(String, &Params)> {
        let one = [
            ("student", &self.student),
            ("student-negative", &self.student_negative),
            ("student-start", &self.student_start),
        ];
        let mut out: Vec<(String, &Params)> = one.map(|(n, p)| (n.to_owned(), p)).into();
        for (kind, all) in [
            ("", &self.teachers),
            ("-negative", &self.teacher_negatives),
            ("-start", &self.teacher_starts),
            ("-first", &self.teacher_firsts),
        ] {
            out.extend(all.iter().enumerate().map(|(k, p)| (format!("teacher-{k}{kind}"), p)));
        }
        out
    }
    /// Applies `f` to each under its name.
    pub(super) fn each(&mut self, mut f: impl FnMut(&str, &mut Params) -> Result<()>) -> Result<()> {
        f("student", &mut self.student)?;
        f("student-negative", &mut self.student_negative)?;
        f("student-start", &mut self.student_start)?;
        for (kind, all) in [
            ("", &mut self.teachers),
            ("-negative", &mut self.teacher_negatives),
            ("-start", &mut self.teacher_starts),
            ("-first", &mut self.teacher_firsts),
        ] {
            for (k, p) in all.iter_mut().enumerate() {
                f(&format!("teacher-{k}{kind}"), p)?;
            }
        }
        Ok(())
    }
}

/// `steps` steps of fine-tuning on `items` sequences at a constant rate.
fn tune(
    cx: &Context,
    c: &Config,
    policy: &mut Llama,
    params: &mut Params,
    items: usize,
    packs: &dyn Fn(&[usize]) -> Vec<Packed>,
    steps: usize,
    stream: Stream,
    progress: &mut crate::log::Progress,
) -> Result<()> {
    let adam = AdamW { weight_decay: c.sft.weight_decay, ..AdamW::default() };
    let ones = vec![1; items];
    let (mut epoch, mut done) = (0, 0);
    while done < steps && items > 0 {
        for which in epoch_batches(&ones, c.sft.batch_size, stream, epoch) {
            if done == steps {
                break;
            }
            let s = sft_step(
                policy,
                params,
                &packs(&which),
                &adam,
                c.teachers.learning_rate,
                c.sft.max_grad_norm,
            )?;
            done += 1;
            progress.tick(&format!("loss {:.3}", s.loss));
            if cx.interrupted() {
                // Nothing is kept of agents half made; they are made again.
                return Err(cx.stopped("macpo", 0, c.macpo.rounds as u64));
            }
        }
        epoch += 1;
    }
    Ok(())
}

/// Prompts with spoilt replies, end token included.
fn spoilt(
    c: &Config,
    world: &World,
    prompting: &Prompting,
    train: &[Dialogue],
    stream: Stream,
) -> Result<Vec<(Vec<u32>, Vec<u32>)>> {
    let want = c.teachers.negative_steps * c.sft.batch_size;
    let mut order: Vec<usize> = (0..train.len()).collect();
    stream.child("order").rng().shuffle(&mut order);
    let titles = |i| world.catalogue.name(i).map(str::to_owned);
    let end = prompting.chat.end_id(&prompting.tokenizer)?;
    let mut out = Vec::new();
    for chunk in order.chunks(64) {
        let dialogues: Vec<&Dialogue> = chunk.iter().map(|&i| &train[i]).collect();
        let all: Vec<Example> =
            dialogues.iter().flat_map(|d| examples(d)).filter(|e| !e.context.is_empty()).collect();
        for bad in degrade(&all, &BAD, &titles, stream).iter().filter(|b| b.level + 1 == b.kind.levels()) {
            let Some(d) = dialogues.iter().find(|d| d.id == bad.conv_id) else { continue };
            let prompt = prompting.prompt(d, bad.turn_idx, world.recommender.as_ref(), &world.catalogue)?;
            let mut reply = prompting.tokenizer.encode(&prompting.tokenizer.strip_specials(&bad.reply))?;
            reply.truncate(c.eval.max_new.saturating_sub(1));
            reply.push(end);
            out.push((prompt, reply));
        }
        if out.len() >= want {
            break;
        }
    }
    Ok(out)
}
