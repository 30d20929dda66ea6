//! The file form of a trained network.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::Error;
use crate::model::ModelKind;
use crate::network::Network;
use crate::parameters::{Array, Arrays};
use crate::pretrained::{Coverage, Head, Origin, StateDict, Transfer};
use crate::view::View;

/// A trained network: what it is, what it was trained to see and to tell, and its arrays.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// The network.
    pub model: ModelKind,
    /// Names of the classes, in the order of the scores.
    pub classes: Vec<String>,
    /// How volumes are shown to the network.
    pub view: View,
    pub(crate) arrays: Arrays,
}

impl Weights {
    /// The network `model` with the published weights of a file, and where every array came from. What `transfer`
    /// leaves open is drawn from `seed`.
    ///
    /// # Errors
    /// If the file is of another network: an array of the encoder that it lacks or has in another shape is named,
    /// beside what it holds. Where a training of this program wrote it, both networks are named, and a published head
    /// must tell the same classes in the same order.
    pub fn pretrained(
        model: ModelKind,
        classes: Vec<String>,
        view: View,
        seed: u64,
        file: &StateDict,
        transfer: Transfer,
    ) -> Result<(Self, Coverage), Error> {
        if let Some(origin) = &file.origin {
            check_origin(origin, model, &classes, transfer)?;
        }
        let (network, coverage) = Network::pretrained(model, classes.len(), seed, file, transfer)?;
        Ok((Self { model, classes, view, arrays: network.parameters.arrays()? }, coverage))
    }

    /// A safetensors file of f32 arrays with the names that the network's publisher gives them. Everything else is JSON under the
    /// metadata key `argent`: `model`, `classes`, `view`, `embedding_dim`. Equal weights give equal bytes.
    ///
    /// # Errors
    /// If the arrays cannot be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let header = Header {
            kind: HEADER_KIND.into(),
            model: self.model,
            classes: self.classes.clone(),
            view: self.view.clone(),
            embedding_dim: self.model.embedding_dim(),
        };
        write_arrays(&self.arrays, &header)
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// If the bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (header, arrays): (Header, Arrays) = read_arrays(bytes)?;
        if header.kind != HEADER_KIND {
            return Err(Error::Format(format!("the file is `{}`, expected `{HEADER_KIND}`", header.kind)));
        }
        Ok(Self { model: header.model, classes: header.classes, view: header.view, arrays })
    }
}

/// Whether weights of this program are what a training can start from.
fn check_origin(
    origin: &Origin,
    model: ModelKind,
    classes: &[String],
    transfer: Transfer,
) -> Result<(), Error> {
    if origin.model != model {
        return Err(Error::Format(format!(
            "the weights to start from are of {}, expected {model}",
            origin.model
        )));
    }
    match &origin.classes {
        Some(told) if transfer.head == Head::Published && told != classes => Err(Error::Format(format!(
            "the head of the weights to start from tells {}, expected {}; take a new head",
            told.join(", "),
            classes.join(", ")
        ))),
        Some(_) | None => Ok(()),
    }
}

const HEADER_KIND: &str = "weights/2";

#[derive(Serialize, Deserialize)]
struct Header {
    kind: String,
    model: ModelKind,
    classes: Vec<String>,
    view: View,
    embedding_dim: usize,
}

/// The one key of the safetensors metadata: with several, their order would differ from run to run.
const METADATA_KEY: &str = "argent";

/// A safetensors file of `arrays` with `header` as JSON in its metadata.
pub(crate) fn write_arrays(arrays: &Arrays, header: &impl Serialize) -> Result<Vec<u8>, Error> {
    let unwritable =
        |error: &dyn std::fmt::Display| Error::Format(format!("the arrays cannot be written: {error}"));
    let header = serde_json::to_string(header).map_err(|error| unwritable(&error))?;
    let bytes: Vec<Vec<u8>> = arrays
        .values()
        .map(|array| array.values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let mut views = Vec::with_capacity(arrays.len());
    for ((name, array), bytes) in arrays.iter().zip(&bytes) {
        let view =
            TensorView::new(Dtype::F32, array.shape.clone(), bytes).map_err(|error| unwritable(&error))?;
        views.push((name, view));
    }
    let metadata = HashMap::from([(METADATA_KEY.to_owned(), header)]);
    safetensors::serialize(views, Some(metadata)).map_err(|error| unwritable(&error))
}

/// What kind of file [`write_arrays`] wrote.
pub(crate) fn kind_of(bytes: &[u8]) -> Result<String, Error> {
    #[derive(Deserialize)]
    struct Kind {
        kind: String,
    }
    Ok(read_header::<Kind>(bytes)?.kind)
}

fn unreadable(error: &dyn std::fmt::Display) -> Error {
    Error::Format(format!("the bytes are no safetensors file: {error}; expected one that training wrote"))
}

fn read_header<H: DeserializeOwned>(bytes: &[u8]) -> Result<H, Error> {
    header_if_any(bytes)?.ok_or_else(|| {
        Error::Format(format!("the file has no `{METADATA_KEY}` metadata, expected what training wrote"))
    })
}

/// The header of a safetensors file; none where [`write_arrays`] did not write it.
pub(crate) fn header_if_any<H: DeserializeOwned>(bytes: &[u8]) -> Result<Option<H>, Error> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| unreadable(&error))?;
    let header = metadata.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY));
    let parsed = header.map(|header| serde_json::from_str(header)).transpose();
    parsed
        .map_err(|error| Error::Format(format!("the `{METADATA_KEY}` metadata is not as expected: {error}")))
}

/// The header and arrays of a file that [`write_arrays`] wrote.
pub(crate) fn read_arrays<H: DeserializeOwned>(bytes: &[u8]) -> Result<(H, Arrays), Error> {
    let header = read_header(bytes)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| unreadable(&error))?;
    let arrays = tensors.iter().map(|(name, tensor)| Ok((name.to_owned(), read_array(name, &tensor)?)));
    Ok((header, arrays.collect::<Result<_, Error>>()?))
}

fn read_array(name: &str, tensor: &TensorView) -> Result<Array, Error> {
    if tensor.dtype() != Dtype::F32 {
        return Err(Error::Format(format!("`{name}` holds {:?}, expected F32", tensor.dtype())));
    }
    let (values, _) = tensor.data().as_chunks::<4>();
    let values = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Ok(Array { shape: tensor.shape().to_vec(), values })
}
