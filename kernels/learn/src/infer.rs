//! Scores and embeddings from trained weights.

use candle_core::Tensor;

use crate::batches::check_volume;
use crate::device::Device;
use crate::error::Error;
use crate::loss::sigmoid;
use crate::parameters::Builder;
use crate::resnet::{Mode, ResNet3d};
use crate::view::{Crop, View};
use crate::weights::Weights;

/// A trained network, ready to score volumes. It can be shared between threads.
#[derive(Clone, Debug)]
pub struct Model {
    network: ResNet3d,
    classes: Vec<String>,
    view: View,
    device: candle_core::Device,
}

impl Model {
    /// Reads weights that [`crate::train::train`] returned, to apply them on `device`.
    ///
    /// # Errors
    /// If the bytes are no such weights, or if the device cannot be used.
    pub fn load(bytes: &[u8], device: Device) -> Result<Self, Error> {
        let device = device.open()?;
        let Weights { model, classes, view, arrays } = Weights::from_bytes(bytes)?;
        view.check()?;
        let network = ResNet3d::build(model, classes.len(), Builder::stored(arrays).on(&device))?;
        Ok(Self { network, classes, view, device })
    }

    /// The score of every class, from 0 to 1 (sigmoid), in the order of [`Self::classes`].
    ///
    /// `hounsfield` holds the volume x fastest and `shape` its size in voxels x, y, z; the view of the weights is
    /// applied here, with the crop in the centre.
    ///
    /// # Errors
    /// If the volume does not fit its shape or is smaller than the stem, or if a score is not finite.
    pub fn predict(&self, hounsfield: &[i16], shape: [usize; 3]) -> Result<Vec<f32>, Error> {
        let logits = self.network.classify(&self.embedding(hounsfield, shape)?)?;
        let logits = finite("a score", logits.flatten_all()?.to_vec1()?)?;
        Ok(logits.into_iter().map(|logit| sigmoid(f64::from(logit)) as f32).collect())
    }

    /// The pooled features before the head, [`crate::model::ModelKind::embedding_dim`] of them, not normalised.
    ///
    /// # Errors
    /// As for [`Self::predict`].
    pub fn embed(&self, hounsfield: &[i16], shape: [usize; 3]) -> Result<Vec<f32>, Error> {
        finite("an embedding value", self.embedding(hounsfield, shape)?.flatten_all()?.to_vec1()?)
    }

    /// Names of the classes, in the order of the scores.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// How volumes are shown to the network.
    pub fn view(&self) -> &View {
        &self.view
    }

    fn embedding(&self, hounsfield: &[i16], shape: [usize; 3]) -> Result<Tensor, Error> {
        check_volume(hounsfield, shape).map_err(Error::Data)?;
        let (values, [depth, height, width]) = self.view.apply(hounsfield, shape, Crop::Centre);
        let input = Tensor::from_vec(values, (1, 1, depth, height, width), &self.device)?;
        self.network.embed(&input, Mode::Eval)
    }
}

fn finite(what: &str, values: Vec<f32>) -> Result<Vec<f32>, Error> {
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(values),
        false => Err(Error::NotFinite { what: what.into() }),
    }
}
