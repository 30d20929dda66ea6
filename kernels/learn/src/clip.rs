//! Contrastive training of an image encoder and a text encoder on pairs (CLIP, Radford et al., 2021, arXiv:2103.00020).

use std::ops::Range;

use candle_core::{D, Device as Opened, Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::batches::{Batch, LoadVoxels, Order, Plan, Voxels};
use crate::contrast::{Contrast, contrast};
use crate::course::{self, Finished, Learner, Validation, resumed};
use crate::device::Device;
use crate::error::Error;
use crate::gradients::Gradients;
use crate::history::{History, Observer, Part};
use crate::model::ModelKind;
use crate::network::{Encoder, Mode};
use crate::parameters::{Array, Arrays, Builder, Init, Parameters};
use crate::settings::{Select, Settings};
use crate::text_encoder::{TextEncoder, TextHeader};
use crate::view::{Crop, View};
use crate::weights::{Weights, read_arrays, write_arrays};

/// Fits an image encoder and a text encoder, each with a linear projection, so that a sample's image and text are more
/// alike than those of different samples of its batch.
///
/// `text` is the text encoder to start from. `image` are weights whose encoder the image encoder starts from; without,
/// it is drawn from the seed. The steps of an epoch that would have fewer samples than `batch` are left out. Where
/// `micro_batch` is smaller than `batch`, all embeddings of a batch are computed first and the gradients of their
/// similarities are carried back part by part (gradient caching, Gao et al., 2021, arXiv:2101.06983), so that a batch may
/// be larger than memory; batch normalisation sees the parts alone.
///
/// Observer, `resume` and the result are as for [`crate::classifier::train`].
///
/// # Errors
/// As for [`crate::classifier::train`], and where `image` are weights of another network.
pub fn train(
    config: &ClipConfig,
    data: &ClipData,
    text: TextEncoder,
    image: Option<&Weights>,
    device: Device,
    resume: Option<&[u8]>,
    observer: &mut Observer,
) -> Result<TrainedClip, Error> {
    config.check()?;
    let plan = data.plan(config)?;
    let clip = Clip::seeded(config, text, image, &device.open()?)?;
    let digest = data.digest(config, &clip)?;
    let resume = resumed(resume, &digest)?;
    let mut learner = Pairs { config, data, clip, validation: [0.0; 2] };
    let settings = &config.settings;
    let Finished { arrays, history } =
        course::train(settings, &plan, &data.load, &mut learner, &digest, resume, observer)?;
    Ok(TrainedClip { weights: write_arrays(&arrays, &learner.clip.header(config))?, history })
}

/// The settings of a contrastive training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipConfig {
    /// The image encoder.
    pub model: ModelKind,
    /// Values of the common embedding.
    pub dim: usize,
    /// How an image and a text are compared.
    pub similarity: Similarity,
    /// What all trainings have.
    pub settings: Settings,
}

/// How an image and a text are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Similarity {
    /// The product of their embeddings, as they are.
    Dot,
    /// The cosine of the angle between them, times a learned scale, which starts at 1/0.07 and stays at 100 or below.
    Cosine,
}

/// Pairs to fit to. The samples are numbered from 0.
pub struct ClipData<'a> {
    /// One per sample.
    pub texts: Vec<String>,
    /// One per sample.
    pub parts: Vec<Part>,
    /// Where the images come from.
    pub load: Box<LoadVoxels<'a>>,
}

/// The result of a contrastive training.
#[derive(Clone, Debug)]
pub struct TrainedClip {
    /// Bytes for [`ClipModel::load`].
    pub weights: Vec<u8>,
    /// The course of the training.
    pub history: History,
}

/// A trained pair of encoders. It can be shared between threads.
#[derive(Clone, Debug)]
pub struct ClipModel {
    clip: Clip,
    view: View,
}

impl ClipModel {
    /// Reads weights that [`train`] returned, to apply them on `device`.
    ///
    /// # Errors
    /// If the bytes are no such weights, or if the device cannot be used.
    pub fn load(bytes: &[u8], device: Device) -> Result<Self, Error> {
        let (header, arrays): (Header, Arrays) = read_arrays(bytes)?;
        if header.kind != HEADER_KIND {
            return Err(Error::Format(format!("the file is `{}`, expected `{HEADER_KIND}`", header.kind)));
        }
        header.view.check()?;
        let view = header.view.clone();
        Ok(Self { clip: Clip::stored(header, arrays, &device.open()?)?, view })
    }

    /// The embedding of an image or a volume in the common space, not normalised. `voxels` and `shape` are as for
    /// [`crate::infer::Model::predict`].
    ///
    /// # Errors
    /// As there.
    pub fn embed(&self, voxels: &Voxels, shape: [usize; 3]) -> Result<Vec<f32>, Error> {
        voxels.check(shape).map_err(Error::Data)?;
        let (values, [depth, height, width]) = voxels.seen(&self.view, shape, Crop::Centre);
        let input = Tensor::from_vec(values, (1, 1, depth, height, width), self.clip.device())?;
        finite("an embedding value", self.clip.images(&input, Mode::Eval)?.flatten_all()?.to_vec1()?)
    }

    /// The embeddings of texts in the common space, not normalised, one after another: a text's embedding does not depend
    /// on its neighbours.
    ///
    /// # Errors
    /// If a text cannot be tokenised, or a value is not finite.
    pub fn embed_texts(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Error> {
        let one =
            |text: &&str| finite("an embedding value", self.clip.texts(&[text])?.flatten_all()?.to_vec1()?);
        texts.iter().map(one).collect()
    }

    /// How an image and a text are compared, and what the similarity is multiplied by before a softmax.
    ///
    /// # Errors
    /// If the scale cannot be read.
    pub fn similarity(&self) -> Result<(Similarity, f64), Error> {
        Ok((self.clip.similarity, f64::from(self.clip.scale()?)))
    }

    /// How images are shown to the network.
    pub fn view(&self) -> &View {
        &self.view
    }
}

fn finite(what: &str, values: Vec<f32>) -> Result<Vec<f32>, Error> {
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(values),
        false => Err(Error::NotFinite { what: what.into(), samples: Vec::new() }),
    }
}

pub(crate) const HEADER_KIND: &str = "clip/1";

#[derive(Clone, Serialize, Deserialize)]
struct Header {
    kind: String,
    model: ModelKind,
    dim: usize,
    similarity: Similarity,
    view: View,
    text: TextHeader,
}

/// Two encoders with their projections.
#[derive(Clone, Debug)]
struct Clip {
    similarity: Similarity,
    image: Encoder,
    text: TextEncoder,
    /// `(dim, embedding)`.
    image_projection: Var,
    text_projection: Var,
    /// The logarithm of the scale.
    log_scale: Option<Var>,
    parameters: Parameters,
}

/// Where the learned scale starts and where it ends.
const FIRST_SCALE: f64 = 1.0 / 0.07;
const LARGEST_SCALE: f64 = 100.0;

/// What stands before the names of the encoders' variables.
const IMAGE: &str = "image.";
const TEXT: &str = "text.";

/// Sets the draws of the projections apart from those of the encoders.
const PROJECTIONS: u64 = 0x9E37_79B9_7F4A_7C15;

impl Clip {
    fn seeded(
        config: &ClipConfig,
        text: TextEncoder,
        image: Option<&Weights>,
        device: &Opened,
    ) -> Result<Self, Error> {
        let seed = config.settings.seed;
        let builder = match image {
            None => Builder::seeded(seed),
            Some(weights) if weights.model == config.model => {
                let mut arrays = weights.arrays.clone();
                let head = format!("{}.", config.model.head_name());
                arrays.retain(|name, _| !name.starts_with(&head));
                Builder::stored(arrays)
            }
            Some(weights) => {
                return Err(Error::Setting(format!(
                    "the image encoder is {} and the weights to start from are of {}, expected the same",
                    config.model, weights.model
                )));
            }
        };
        let mut builder = builder.on(device);
        let encoder = Encoder::new(config.model, &mut builder)?;
        let projections = Builder::seeded(seed.wrapping_add(PROJECTIONS)).on(device);
        Self::build(
            config.model,
            config.dim,
            config.similarity,
            (encoder, builder.finish()?),
            text.on(device)?,
            projections,
        )
    }

    fn stored(header: Header, arrays: Arrays, device: &Opened) -> Result<Self, Error> {
        let [mut image, mut text, mut projections] = [Arrays::new(), Arrays::new(), Arrays::new()];
        for (name, array) in arrays {
            match (name.strip_prefix(IMAGE), name.strip_prefix(TEXT)) {
                (Some(name), _) => image.insert(name.to_owned(), array),
                (_, Some(name)) => text.insert(name.to_owned(), array),
                (None, None) => projections.insert(name, array),
            };
        }
        let mut builder = Builder::stored(image).on(device);
        let encoder = Encoder::new(header.model, &mut builder)?;
        let text = TextEncoder::stored(header.text, text, device)?;
        let image = (encoder, builder.finish()?);
        let projections = Builder::stored(projections).on(device);
        Self::build(header.model, header.dim, header.similarity, image, text, projections)
    }

    fn build(
        model: ModelKind,
        dim: usize,
        similarity: Similarity,
        (image, image_parameters): (Encoder, Parameters),
        text: TextEncoder,
        mut projections: Builder,
    ) -> Result<Self, Error> {
        let mut projection = |name: &str, inputs: usize| {
            projections.trainable(format!("{name}.weight"), &[dim, inputs], Init::Uniform { inputs })
        };
        let image_projection = projection("image_projection", model.embedding_dim())?;
        let text_projection = projection("text_projection", text.embedding_dim())?;
        let log_scale = match similarity {
            Similarity::Dot => None,
            Similarity::Cosine => {
                let first = Init::Constant(FIRST_SCALE.ln() as f32);
                Some(projections.trainable("log_scale".into(), &[1], first)?)
            }
        };
        let mut parameters = projections.finish()?;
        for (prefix, of) in [(IMAGE, &image_parameters), (TEXT, &text.parameters)] {
            let named = |(name, var): (&String, &Var)| (format!("{prefix}{name}"), var.clone());
            parameters.trainable.extend(of.trainable.iter().map(named));
            parameters.buffers.extend(of.buffers.iter().map(named));
        }
        Ok(Self { similarity, image, text, image_projection, text_projection, log_scale, parameters })
    }

    fn header(&self, config: &ClipConfig) -> Header {
        Header {
            kind: HEADER_KIND.into(),
            model: config.model,
            dim: config.dim,
            similarity: config.similarity,
            view: config.settings.view.clone(),
            text: self.text.header(),
        }
    }

    /// Where its variables are.
    fn device(&self) -> &Opened {
        self.image_projection.device()
    }

    /// `(N, 1, D, H, W)` to `(N, dim)`.
    fn images(&self, input: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        Ok(self.image.embed(input, mode)?.matmul(&self.image_projection.t()?)?)
    }

    /// `(N, dim)` of N texts.
    fn texts(&self, texts: &[&str]) -> Result<Tensor, Error> {
        let tokens = self.text.tokenise(texts)?;
        Ok(self.text.encode(&tokens)?.matmul(&self.text_projection.t()?)?)
    }

    /// What similarities are multiplied by.
    fn scale(&self) -> Result<f32, Error> {
        match &self.log_scale {
            None => Ok(1.0),
            Some(log_scale) => {
                let value: Vec<f32> = log_scale.to_vec1()?;
                Ok(f64::from(value[0]).exp().min(LARGEST_SCALE) as f32)
            }
        }
    }

    /// The similarities `(N, N)` of images (rows) and texts (columns), with their scale.
    fn similarities(&self, images: &Tensor, texts: &Tensor) -> Result<Tensor, Error> {
        let Some(log_scale) = &self.log_scale else { return Ok(images.matmul(&texts.t()?)?) };
        let products = normalised(images)?.matmul(&normalised(texts)?.t()?)?;
        // Behind its limit the scale has no gradient, so that it can only come back.
        let scale = log_scale
            .as_tensor()
            .exp()?
            .minimum(&Tensor::new(&[LARGEST_SCALE as f32], log_scale.device())?)?;
        Ok(products.broadcast_mul(&scale)?)
    }
}

/// Rows of length one.
fn normalised(rows: &Tensor) -> Result<Tensor, Error> {
    // The addend keeps the gradient finite where a row is zero.
    let length = (rows.sqr()?.sum_keepdim(D::Minus1)? + 1e-12)?.sqrt()?;
    Ok(rows.broadcast_div(&length)?)
}

/// Two encoders and the loss of their similarities.
struct Pairs<'a> {
    config: &'a ClipConfig,
    data: &'a ClipData<'a>,
    clip: Clip,
    /// Sums over the validation batches of the epoch so far: loss times samples, and samples.
    validation: [f64; 2],
}

impl Learner for Pairs<'_> {
    fn parameters(&self) -> &Parameters {
        &self.clip.parameters
    }

    /// A softmax does not see what is added to all of its values alike, as a key's bias is.
    fn may_have_no_gradient(&self, name: &str) -> bool {
        name.ends_with("attention.self.key.bias")
    }

    fn gradients(&mut self, batch: &Batch) -> Result<(f64, Gradients), Error> {
        let (samples, size) = (&batch.job.samples, self.config.settings.micro_batch());
        if samples.len() <= size {
            let all = 0..samples.len();
            let images = self.clip.images(&self.image_input(batch, all.clone())?, Mode::Train)?;
            let texts = self.clip.texts(&self.texts(batch, all))?;
            let similarities = self.clip.similarities(&images, &texts)?;
            let (loss, upstream) = self.contrast(&similarities, samples)?;
            let store = (similarities * upstream)?.sum_all()?.backward()?;
            return Ok((loss, Gradients::of(&self.clip.parameters.trainable, &store)?));
        }
        self.cached_gradients(batch, size)
    }

    fn validate(&mut self, batch: &Batch) -> Result<(), Error> {
        let samples = &batch.job.samples;
        let [images, texts] = self.embeddings(batch, self.config.settings.micro_batch(), Mode::Eval)?;
        let (loss, _) = self.contrast(&self.clip.similarities(&images, &texts)?, samples)?;
        self.validation[0] += loss * samples.len() as f64;
        self.validation[1] += samples.len() as f64;
        Ok(())
    }

    fn validated(&mut self) -> Validation {
        let [loss, samples] = std::mem::take(&mut self.validation);
        Validation { loss: (samples > 0.0).then(|| loss / samples), mcc: None }
    }
}

impl Pairs<'_> {
    /// The gradients of a batch of which only `size` samples go through the encoders at once.
    fn cached_gradients(&self, batch: &Batch, size: usize) -> Result<(f64, Gradients), Error> {
        let samples = &batch.job.samples;
        // The running statistics follow the second pass alone.
        let buffers: Vec<(Var, Tensor)> = self
            .clip
            .parameters
            .buffers
            .values()
            .map(|var| Ok((var.clone(), var.copy()?)))
            .collect::<Result<_, Error>>()?;
        let [images, texts] = self.embeddings(batch, size, Mode::Train)?;
        for (var, before) in buffers {
            var.set(&before)?;
        }
        let (images, texts) = (Var::from_tensor(&images)?, Var::from_tensor(&texts)?);
        let similarities = self.clip.similarities(&images, &texts)?;
        let (loss, upstream) = self.contrast(&similarities, samples)?;
        let cached = (similarities * upstream)?.sum_all()?.backward()?;
        let missing = || Error::Data("a batch of embeddings has no gradient, expected one".into());
        // Gradients are made of variables themselves, and would be differentiated again.
        let image_gradient = &cached.get(&images).ok_or_else(missing)?.detach();
        let text_gradient = &cached.get(&texts).ok_or_else(missing)?.detach();
        let mut sum: Option<Gradients> = None;
        for range in parts(samples.len(), size) {
            let of_range = |all: &Tensor| all.narrow(0, range.start, range.len());
            let images = self.clip.images(&self.image_input(batch, range.clone())?, Mode::Train)?;
            let texts = self.clip.texts(&self.texts(batch, range.clone()))?;
            let mut total = ((images * of_range(image_gradient)?)?.sum_all()?
                + (texts * of_range(text_gradient)?)?.sum_all()?)?;
            if let Some(log_scale) = &self.clip.log_scale {
                // The scale takes no part in the embeddings: each part carries its share of the gradient.
                let share = range.len() as f64 / samples.len() as f64;
                let gradient = (cached.get(log_scale).ok_or_else(missing)?.detach() * share)?;
                total = (total + (log_scale.as_tensor() * gradient)?.sum_all()?)?;
            }
            let more = Gradients::of(&self.clip.parameters.trainable, &total.backward()?)?;
            match &mut sum {
                Some(sum) => sum.accumulate(&more)?,
                None => sum = Some(more),
            }
        }
        Ok((loss, sum.ok_or_else(missing)?))
    }

    /// The embeddings of a batch's images and texts, without a gradient.
    fn embeddings(&self, batch: &Batch, size: usize, mode: Mode) -> Result<[Tensor; 2], Error> {
        let (mut images, mut texts) = (Vec::new(), Vec::new());
        for range in parts(batch.job.samples.len(), size) {
            images.push(self.clip.images(&self.image_input(batch, range.clone())?, mode)?.detach());
            texts.push(self.clip.texts(&self.texts(batch, range))?.detach());
        }
        Ok([Tensor::cat(&images, 0)?, Tensor::cat(&texts, 0)?])
    }

    /// The loss of similarities, and its gradient as a tensor of their shape.
    fn contrast(&self, similarities: &Tensor, samples: &[usize]) -> Result<(f64, Tensor), Error> {
        let texts: Vec<&str> = samples.iter().map(|sample| self.data.texts[*sample].as_str()).collect();
        let first = |text: &&str| texts.iter().position(|other| other == text).unwrap_or_default();
        let group: Vec<usize> = texts.iter().map(first).collect();
        let Contrast { loss, gradient } = contrast(&similarities.flatten_all()?.to_vec1::<f32>()?, &group);
        Ok((loss, Tensor::from_vec(gradient, similarities.shape(), similarities.device())?))
    }

    /// `(n, 1, D, H, W)` of some samples of a batch.
    fn image_input(&self, batch: &Batch, range: Range<usize>) -> Result<Tensor, Error> {
        let [depth, height, width] = batch.shape;
        let size = depth * height * width;
        let input = &batch.input[range.start * size..range.end * size];
        Ok(Tensor::from_slice(input, (range.len(), 1, depth, height, width), self.clip.device())?)
    }

    fn texts(&self, batch: &Batch, range: Range<usize>) -> Vec<&str> {
        batch.job.samples[range].iter().map(|sample| self.data.texts[*sample].as_str()).collect()
    }
}

/// Ranges of `size`, the last of which may be shorter.
fn parts(length: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..length).step_by(size).map(move |start| start..(start + size).min(length))
}

impl ClipConfig {
    fn check(&self) -> Result<(), Error> {
        let problem = if self.dim == 0 {
            "the embedding has no values, expected at least one".to_owned()
        } else if self.settings.batch < 2 {
            "a batch has one pair, expected at least two: a pair is learned by what it is not".to_owned()
        } else if self.settings.select == Select::HighestMcc {
            "pairs have no Matthews correlation, expected the last weights or those of the lowest loss"
                .to_owned()
        } else {
            return self.settings.check();
        };
        Err(Error::Setting(problem))
    }
}

impl ClipData<'_> {
    fn plan(&self, config: &ClipConfig) -> Result<Plan, Error> {
        if self.texts.len() != self.parts.len() {
            return Err(Error::Data(format!(
                "{} texts for {} samples, expected one each",
                self.texts.len(),
                self.parts.len()
            )));
        }
        let of = |part: Part| (0..self.parts.len()).filter(|sample| self.parts[*sample] == part).collect();
        let (train, validation): (Vec<usize>, Vec<usize>) = (of(Part::Train), of(Part::Validation));
        if train.len() < 2 {
            return Err(Error::Data(format!("{} training pairs, expected at least two", train.len())));
        }
        let settings = &config.settings;
        Ok(Plan {
            train,
            validation,
            epochs: settings.epochs,
            limit: settings.steps,
            batch: settings.batch,
            seed: settings.seed,
            order: Order::Shuffled,
            whole_batches: true,
        })
    }

    /// What a checkpoint must agree on: settings, pairs, and what the encoders start from.
    fn digest(&self, config: &ClipConfig, start: &Clip) -> Result<String, Error> {
        let config = serde_json::to_string(config).map_err(|error| Error::Setting(error.to_string()))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(config.as_bytes());
        for (text, part) in self.texts.iter().zip(&self.parts) {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes()).update(&[*part as u8]);
        }
        hasher.update(start.text.header().tokenizer.as_bytes());
        for (name, Array { values, .. }) in start.parameters.arrays()? {
            hasher.update(name.as_bytes());
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            hasher.update(&bytes);
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::BertConfig;
    use crate::classifier::{self, ClassifierConfig, ClassifierData, Sampling};
    use crate::history::{Answer, Progress};
    use crate::vocabulary::Vocabulary;

    const SIZE: [usize; 3] = [16, 16, 16];
    const PLACES: [&str; 4] = ["left", "right", "upper", "lower"];

    /// A bright block at one of four places, which the text tells.
    fn volume(sample: usize) -> (Voxels, [usize; 3]) {
        let mut state = sample as u32 * 7919 + 17;
        let voxel = |i: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (x, y) = (i % 16, i / 16 % 16);
            let bright = match sample % 4 {
                0 => x < 8,
                1 => x >= 8,
                2 => y < 8,
                _ => y >= 8,
            };
            if bright { 100 } else { -700 + (state >> 26) as i16 }
        };
        (Voxels::Hounsfield((0..16 * 16 * 16).map(voxel).collect()), SIZE)
    }

    fn data(samples: usize) -> ClipData<'static> {
        ClipData {
            texts: (0..samples).map(|sample| format!("opacity in the {} half", PLACES[sample % 4])).collect(),
            parts: (0..samples).map(|s| if s % 8 >= 6 { Part::Validation } else { Part::Train }).collect(),
            load: Box::new(|sample| Ok(volume(sample))),
        }
    }

    fn config(similarity: Similarity) -> ClipConfig {
        ClipConfig {
            model: ModelKind::ResNet3dTiny,
            dim: 16,
            similarity,
            settings: Settings { epochs: 2, batch: 6, lr: 3e-3, seed: 5, ..Settings::default() },
        }
    }

    fn text() -> TextEncoder {
        let texts = data(4).texts;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let vocabulary = Vocabulary::learn(&texts, 200).unwrap();
        let config =
            BertConfig { hidden_size: 32, intermediate_size: 64, ..BertConfig::small(vocabulary.size()) };
        TextEncoder::seeded(config, vocabulary, 5).unwrap()
    }

    fn go_on(_: Progress) -> Answer {
        Answer::GoOn
    }

    #[test]
    fn learns_which_text_belongs_to_which_image() {
        for similarity in [Similarity::Cosine, Similarity::Dot] {
            let mut config = config(similarity);
            config.settings.epochs = 12;
            let trained = train(&config, &data(32), text(), None, Device::Cpu, None, &mut go_on).unwrap();
            let model = ClipModel::load(&trained.weights, Device::Cpu).unwrap();
            let texts: Vec<String> =
                PLACES.iter().map(|place| format!("opacity in the {place} half")).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let texts = model.embed_texts(&texts).unwrap();
            for sample in 100..108 {
                let (voxels, shape) = volume(sample);
                let image = model.embed(&voxels, shape).unwrap();
                let product = |text: &Vec<f32>| {
                    let dot: f32 = image.iter().zip(text).map(|(a, b)| a * b).sum();
                    let length = text.iter().map(|value| value * value).sum::<f32>().sqrt();
                    if similarity == Similarity::Dot { dot } else { dot / length }
                };
                let best = (0..4).max_by(|a, b| product(&texts[*a]).total_cmp(&product(&texts[*b])));
                assert_eq!(best, Some(sample % 4), "{similarity:?}, sample {sample}");
            }
        }
    }

    #[test]
    fn a_stopped_training_goes_on_to_the_same_bytes() {
        let config = config(Similarity::Cosine);
        let whole = train(&config, &data(24), text(), None, Device::Cpu, None, &mut go_on).unwrap();
        let mut stop = |progress: Progress| match progress {
            Progress::Step { record, .. } if record.step == 4 => Answer::Stop,
            _ => Answer::GoOn,
        };
        let Err(Error::Stopped { checkpoint, .. }) =
            train(&config, &data(24), text(), None, Device::Cpu, None, &mut stop)
        else {
            panic!("the training went on");
        };
        let resumed =
            train(&config, &data(24), text(), None, Device::Cpu, Some(&checkpoint), &mut go_on).unwrap();
        assert!(resumed.weights == whole.weights, "the weights differ");
    }

    #[test]
    fn gradients_of_a_cached_batch_are_those_of_the_whole() {
        // A vision transformer has no statistics of the batch, so that nothing else differs.
        for similarity in [Similarity::Cosine, Similarity::Dot] {
            let gradients = |micro_batch: Option<usize>| {
                let mut config = config(similarity);
                config.model = ModelKind::Vit3dTiny;
                config.settings.micro_batch = micro_batch;
                let (data, samples) = (data(8), vec![0, 1, 2, 3, 4, 5]);
                let input =
                    samples.iter().flat_map(|s| volume(*s).0.seen(&View::default(), SIZE, Crop::Centre).0);
                let batch = Batch {
                    input: input.collect(),
                    shape: SIZE,
                    job: crate::batches::Job { epoch: 0, purpose: crate::batches::Purpose::Train, samples },
                };
                let clip = Clip::seeded(&config, text(), None, &Opened::Cpu).unwrap();
                let mut pairs = Pairs { config: &config, data: &data, clip, validation: [0.0; 2] };
                let (loss, gradients) = pairs.gradients(&batch).unwrap();
                let named = pairs.clip.parameters.trainable.keys().map(|name| {
                    (
                        name.clone(),
                        gradients.get(name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(),
                    )
                });
                (loss, named.collect::<Vec<_>>())
            };
            let ((loss, whole), (same, parts)) = (gradients(None), gradients(Some(4)));
            assert!((loss - same).abs() < 1e-6 * loss.abs(), "{loss} and {same}");
            for ((name, one), (_, other)) in whole.iter().zip(&parts) {
                let largest = one.iter().fold(1e-3f32, |largest, value| largest.max(value.abs()));
                for (one, other) in one.iter().zip(other) {
                    assert!((one - other).abs() < 1e-4 * largest, "{name}: {one} and {other}");
                }
            }
        }
    }

    #[test]
    fn an_image_encoder_starts_from_a_classifier_of_the_same_network() {
        let classifier = ClassifierConfig {
            model: ModelKind::ResNet3dTiny,
            classes: vec!["left".into()],
            positive_weight: Vec::new(),
            sampling: Sampling::Natural,
            settings: Settings { steps: Some(1), batch: 4, ..Settings::default() },
        };
        let samples = ClassifierData {
            targets: vec![1.0, 0.0, 1.0, 0.0],
            weights: vec![1.0; 4],
            parts: vec![Part::Train; 4],
            load: Box::new(|sample| Ok(volume(sample))),
        };
        let trained = classifier::train(&classifier, &samples, None, Device::Cpu, None, &mut go_on).unwrap();
        let weights = Weights::from_bytes(&trained.weights).unwrap();
        let clip = Clip::seeded(&config(Similarity::Dot), text(), Some(&weights), &Opened::Cpu).unwrap();
        for (name, array) in weights.arrays.iter().filter(|(name, _)| !name.starts_with("fc.")) {
            let var = clip.parameters.trainable.get(&format!("image.{name}"));
            let var = var.or(clip.parameters.buffers.get(&format!("image.{name}"))).unwrap();
            assert!(var.flatten_all().unwrap().to_vec1::<f32>().unwrap() == array.values, "{name}");
        }
        let other = ClipConfig { model: ModelKind::Vit3dTiny, ..config(Similarity::Dot) };
        let error = Clip::seeded(&other, text(), Some(&weights), &Opened::Cpu).unwrap_err().to_string();
        assert!(
            error.contains("is vit3d-tiny and the weights to start from are of resnet3d-tiny"),
            "{error}"
        );
    }

    #[test]
    fn settings_and_data_that_do_not_fit() {
        let fail = |change: fn(&mut ClipConfig, &mut ClipData)| {
            let (mut config, mut data) = (config(Similarity::Dot), data(8));
            change(&mut config, &mut data);
            train(&config, &data, text(), None, Device::Cpu, None, &mut go_on).unwrap_err().to_string()
        };
        assert!(fail(|config, _| config.settings.batch = 1).contains("one pair"));
        assert!(fail(|config, _| config.dim = 0).contains("no values"));
        assert!(fail(|config, _| config.settings.select = Select::HighestMcc).contains("Matthews"));
        assert!(fail(|_, data| data.texts.truncate(3)).contains("3 texts for 8 samples"));
        assert!(fail(|_, data| data.parts.fill(Part::Unused)).contains("0 training pairs"));
    }
}
