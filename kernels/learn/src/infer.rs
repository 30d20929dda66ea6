//! Scores and embeddings from trained weights.

use candle_core::Tensor;

use crate::batches::Voxels;
use crate::clip::{self, ClipModel};
use crate::device::Device;
use crate::error::Error;
use crate::loss::sigmoid;
use crate::network::{Mode, Network};
use crate::parameters::Builder;
use crate::view::{Crop, View};
use crate::weights::{Weights, kind_of};

/// A trained network, ready to score and embed volumes or images. It can be shared between threads.
#[derive(Clone, Debug)]
pub struct Model {
    network: Network,
    classes: Vec<String>,
    view: View,
}

/// A trained network of either kind.
#[derive(Clone, Debug)]
pub enum AnyModel {
    /// Of [`crate::classifier::train`].
    Classifier(Box<Model>),
    /// Of [`crate::clip::train`].
    Clip(Box<ClipModel>),
}

impl AnyModel {
    /// Reads weights of either kind, to apply them on `device`.
    ///
    /// # Errors
    /// If the bytes are of neither, or if the device cannot be used.
    pub fn load(bytes: &[u8], device: Device) -> Result<Self, Error> {
        Ok(match kind_of(bytes)?.as_str() {
            clip::HEADER_KIND => Self::Clip(Box::new(ClipModel::load(bytes, device)?)),
            _ => Self::Classifier(Box::new(Model::load(bytes, device)?)),
        })
    }

    /// The embedding of a volume or an image: of a classifier the features before its head, of an image and a text
    /// encoder that in their common space. Neither is normalised.
    ///
    /// # Errors
    /// As for [`Model::predict`].
    pub fn embed(&self, voxels: &Voxels, shape: [usize; 3]) -> Result<Vec<f32>, Error> {
        match self {
            Self::Classifier(model) => model.embed(voxels, shape),
            Self::Clip(model) => model.embed(voxels, shape),
        }
    }
}

impl Model {
    /// Reads weights that [`crate::classifier::train`] returned, to apply them on `device`.
    ///
    /// # Errors
    /// If the bytes are no such weights, or if the device cannot be used.
    pub fn load(bytes: &[u8], device: Device) -> Result<Self, Error> {
        let Weights { model, classes, view, arrays } = Weights::from_bytes(bytes)?;
        view.check()?;
        let builder = Builder::stored(arrays).on(&device.open()?);
        let network = Network::build(model, classes.len(), builder)?;
        Ok(Self { network, classes, view })
    }

    /// The score of every class, from 0 to 1 (sigmoid), in the order of [`Self::classes`].
    ///
    /// `voxels` are those of a volume or an image, x fastest, and `shape` its size in voxels x, y, z; the view of the
    /// weights is applied here, with the crop in the centre.
    ///
    /// # Errors
    /// If the voxels do not fit their shape or the volume is smaller than the stem, or if a score is not finite.
    pub fn predict(&self, voxels: &Voxels, shape: [usize; 3]) -> Result<Vec<f32>, Error> {
        let logits = self.network.classify(&self.embedding(voxels, shape)?)?;
        let logits = finite("a score", logits.flatten_all()?.to_vec1()?)?;
        Ok(logits.into_iter().map(|logit| sigmoid(f64::from(logit)) as f32).collect())
    }

    /// The pooled features before the head, [`crate::model::ModelKind::embedding_dim`] of them, not normalised.
    ///
    /// # Errors
    /// As for [`Self::predict`].
    pub fn embed(&self, voxels: &Voxels, shape: [usize; 3]) -> Result<Vec<f32>, Error> {
        finite("an embedding value", self.embedding(voxels, shape)?.flatten_all()?.to_vec1()?)
    }

    /// Names of the classes, in the order of the scores.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// How volumes are shown to the network.
    pub fn view(&self) -> &View {
        &self.view
    }

    fn embedding(&self, voxels: &Voxels, shape: [usize; 3]) -> Result<Tensor, Error> {
        voxels.check(shape).map_err(Error::Data)?;
        let (values, [depth, height, width]) = voxels.seen(&self.view, shape, Crop::Centre);
        let input = Tensor::from_vec(values, (1, 1, depth, height, width), self.network.device())?;
        self.network.embed(&input, Mode::Eval)
    }
}

fn finite(what: &str, values: Vec<f32>) -> Result<Vec<f32>, Error> {
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(values),
        false => Err(Error::NotFinite { what: what.into(), samples: Vec::new() }),
    }
}
