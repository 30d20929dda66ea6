//! Vision transformers for images and volumes (Dosovitskiy et al., 2021, arXiv:2010.11929): normalisation before each
//! part of a block, a class token, learned positions.

use candle_core::{Tensor, Var};
use candle_nn::{Linear, Module};

use crate::conv::conv3d;
use crate::error::Error;
use crate::interpolate::{Alignment, interpolate_linear};
use crate::layers::{LayerNorm, Window, linear};
use crate::model::Axes;
use crate::parameters::{Builder, Init};
use crate::transformer::{attention, gelu};

/// The sizes of a vision transformer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) names: Names,
    /// Voxels of a patch along each axis.
    pub(crate) patch: usize,
    /// Voxels along each axis of the input that the positions are made for.
    pub(crate) side: usize,
    pub(crate) layers: usize,
    /// Values of a token.
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    /// Values between the two linear layers of a block.
    pub(crate) mlp: usize,
}

/// Whose names the variables have; the two publishers also differ in what has a bias or a position, and in an epsilon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// torchvision's `vit_b_16`: the class token has a position, query, key and value have a bias.
    Torchvision,
    /// MONAI's `ViT` with `proj_type="conv"`, `classification=True` and `post_activation=None`: neither of them.
    Monai,
}

impl Names {
    /// The linear layer behind the encoder.
    pub(crate) fn head(self) -> &'static str {
        match self {
            Self::Torchvision => "heads.head",
            Self::Monai => "classification_head",
        }
    }

    fn class_token(self) -> &'static str {
        match self {
            Self::Torchvision => "class_token",
            Self::Monai => "cls_token",
        }
    }

    /// The convolution that makes tokens of patches.
    pub(crate) fn patches(self) -> &'static str {
        match self {
            Self::Torchvision => "conv_proj",
            Self::Monai => "patch_embedding.patch_embeddings",
        }
    }

    fn positions(self) -> &'static str {
        match self {
            Self::Torchvision => "encoder.pos_embedding",
            Self::Monai => "patch_embedding.position_embeddings",
        }
    }

    fn last_norm(self) -> &'static str {
        match self {
            Self::Torchvision => "encoder.ln",
            Self::Monai => "norm",
        }
    }

    /// Added to the variance of the layer normalisations.
    fn epsilon(self) -> f64 {
        match self {
            Self::Torchvision => 1e-6,
            Self::Monai => 1e-5,
        }
    }
}

/// The name here of a variable that torchvision or MONAI calls so. torchvision has called the layers of a perceptron
/// by other names, MONAI's head is one of two layers where it ends in a hyperbolic tangent.
pub(crate) fn published_name(name: &str) -> String {
    let name = name.replace(".mlp.linear_1.", ".mlp.0.").replace(".mlp.linear_2.", ".mlp.3.");
    match name.strip_prefix("classification_head.0.") {
        Some(rest) => format!("classification_head.{rest}"),
        None => name,
    }
}

/// A vision transformer without its head.
#[derive(Clone, Debug)]
pub(crate) struct VisionTransformer {
    axes: Axes,
    form: Form,
    patches: Linear,
    class_token: Var,
    positions: Var,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl VisionTransformer {
    pub(crate) fn new(builder: &mut Builder, axes: Axes, form: &Form) -> Result<Self, Error> {
        let Form { names, hidden, .. } = *form;
        let mut shape = vec![hidden, 1];
        shape.resize(2 + axes.count(), form.patch);
        let init = Init::Normal { deviation: 1.0 / (form.patch.pow(axes.count() as u32) as f64).sqrt() };
        let name = names.patches();
        let weight = builder.trainable(format!("{name}.weight"), &shape, init)?;
        let bias = builder.trainable(format!("{name}.bias"), &[hidden], Init::Constant(0.0))?;
        let patches = Linear::new(weight.into_inner(), Some(bias.into_inner()));
        let zero = Init::Constant(0.0);
        let class_token = builder.trainable(names.class_token().into(), &[1, 1, hidden], zero)?;
        let tokens = (form.side / form.patch).pow(axes.count() as u32);
        let tokens = match names {
            Names::Torchvision => tokens + 1,
            Names::Monai => tokens,
        };
        let init = Init::Normal { deviation: 0.02 };
        let positions = builder.trainable(names.positions().into(), &[1, tokens, hidden], init)?;
        let blocks = (0..form.layers).map(|index| Block::new(builder, form, index));
        let blocks = blocks.collect::<Result<_, Error>>()?;
        let norm = LayerNorm::new(builder, names.last_norm(), hidden, names.epsilon())?;
        Ok(Self { axes, form: *form, patches, class_token, positions, blocks, norm })
    }

    /// `(N, 1, D, H, W)` to the normalised class token, `(N, hidden)`.
    pub(crate) fn embed(&self, input: &Tensor) -> Result<Tensor, Error> {
        let mut tokens = self.tokens(input)?;
        for block in &self.blocks {
            tokens = block.forward(&tokens)?;
        }
        self.norm.forward(&tokens.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?)
    }

    /// The class token and a token for each patch, with their positions, `(N, 1 + patches, hidden)`.
    fn tokens(&self, input: &Tensor) -> Result<Tensor, Error> {
        let Form { names, patch, hidden, .. } = self.form;
        let [kernel, stride, padding] =
            Window { kernel: patch, stride: patch, padding: 0 }.triples(self.axes);
        let voxels = &input.dims()[2..];
        if voxels.iter().zip(kernel).any(|(&voxels, patch)| voxels == 0 || voxels % patch != 0) {
            return Err(Error::Data(format!(
                "the input has {voxels:?} voxels along D, H, W, expected multiples of the patch of {kernel:?}"
            )));
        }
        let [d, h, w] = kernel;
        let weight = self.patches.weight().reshape((hidden, 1, d, h, w))?;
        let patches = conv3d(input, &weight, stride, padding)?;
        let grid: [usize; 3] = std::array::from_fn(|axis| voxels[axis] / kernel[axis]);
        let mut patches = patches.flatten_from(2)?.transpose(1, 2)?;
        if let Some(bias) = self.patches.bias() {
            patches = patches.broadcast_add(bias)?;
        }
        let class_token = self.class_token.as_tensor();
        let (class_token, positions) = match names {
            Names::Torchvision => {
                let positions = self.positions.narrow(1, 1, self.positions.dim(1)? - 1)?;
                (class_token.add(&self.positions.narrow(1, 0, 1)?)?, positions)
            }
            Names::Monai => (class_token.clone(), self.positions.as_tensor().clone()),
        };
        let patches = patches.broadcast_add(&self.at(&positions, grid)?)?;
        let class_token = class_token.broadcast_as((input.dim(0)?, 1, hidden))?;
        Ok(Tensor::cat(&[&class_token, &patches], 1)?)
    }

    /// The positions of the patches, `(1, patches, hidden)`, interpolated to a grid of another size.
    fn at(&self, positions: &Tensor, grid: [usize; 3]) -> Result<Tensor, Error> {
        let side = self.form.side / self.form.patch;
        let made_for = Window { kernel: side, stride: 1, padding: 0 }.triples(self.axes)[0];
        if grid == made_for {
            return Ok(positions.clone());
        }
        let [d, h, w] = made_for;
        let volume = positions.transpose(1, 2)?.contiguous()?.reshape((1, self.form.hidden, d, h, w))?;
        let moved = interpolate_linear(&volume, grid, Alignment::Corners)?;
        Ok(moved.flatten_from(2)?.transpose(1, 2)?.contiguous()?)
    }
}

/// Attention and a perceptron, each beside a shortcut.
#[derive(Clone, Debug)]
struct Block {
    attention_norm: LayerNorm,
    /// Query, key and value, one behind the other.
    projection: Linear,
    output: Linear,
    mlp_norm: LayerNorm,
    mlp: [Linear; 2],
    heads: usize,
}

impl Block {
    fn new(builder: &mut Builder, form: &Form, index: usize) -> Result<Self, Error> {
        let Form { names, hidden, heads, mlp, .. } = *form;
        let uniform = |inputs| Init::Uniform { inputs };
        let [attention_norm, mlp_norm] = match names {
            Names::Torchvision => ["ln_1", "ln_2"],
            Names::Monai => ["norm1", "norm2"],
        };
        let (block, attention, mlp_names, mlp_init) = match names {
            Names::Torchvision => {
                let init = [Init::XavierUniform, Init::XavierUniform];
                (format!("encoder.layers.encoder_layer_{index}"), "self_attention", ["mlp.0", "mlp.3"], init)
            }
            Names::Monai => {
                let init = [uniform(hidden), uniform(mlp)];
                (format!("blocks.{index}"), "attn", ["mlp.linear1", "mlp.linear2"], init)
            }
        };
        let norm = |builder: &mut Builder, name: &str| {
            LayerNorm::new(builder, &format!("{block}.{name}"), hidden, names.epsilon())
        };
        let attention_norm = norm(builder, attention_norm)?;
        let shape = [3 * hidden, hidden];
        let attention = format!("{block}.{attention}");
        let projection = match names {
            Names::Torchvision => {
                let name = format!("{attention}.in_proj_weight");
                let weight = builder.trainable(name, &shape, Init::XavierUniform)?;
                let name = format!("{attention}.in_proj_bias");
                let bias = builder.trainable(name, &shape[..1], Init::Constant(0.0))?;
                Linear::new(weight.into_inner(), Some(bias.into_inner()))
            }
            Names::Monai => {
                let name = format!("{attention}.qkv.weight");
                Linear::new(builder.trainable(name, &shape, uniform(hidden))?.into_inner(), None)
            }
        };
        let output = linear(builder, &format!("{attention}.out_proj"), [hidden, hidden], uniform(hidden))?;
        let mlp_norm = norm(builder, mlp_norm)?;
        let [first, second] = mlp_names.map(|name| format!("{block}.{name}"));
        let mlp = [
            linear(builder, &first, [hidden, mlp], mlp_init[0])?,
            linear(builder, &second, [mlp, hidden], mlp_init[1])?,
        ];
        Ok(Self { attention_norm, projection, output, mlp_norm, mlp, heads })
    }

    /// `(N, L, hidden)` to the same shape.
    fn forward(&self, tokens: &Tensor) -> Result<Tensor, Error> {
        let hidden = tokens.dim(2)?;
        let projected = self.projection.forward(&self.attention_norm.forward(tokens)?)?;
        let part = |index: usize| projected.narrow(2, index * hidden, hidden)?.contiguous();
        let attended = attention(&part(0)?, &part(1)?, &part(2)?, self.heads, None)?;
        let tokens = tokens.add(&self.output.forward(&attended)?)?;
        let [first, second] = &self.mlp;
        let inner = gelu(&first.forward(&self.mlp_norm.forward(&tokens)?)?)?;
        Ok(tokens.add(&second.forward(&inner)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goldens::{assert_close, values};
    use candle_core::{DType, Device};

    /// Positions that rise along W are, on a grid of twice the size, what lies between them.
    #[test]
    fn positions_of_a_larger_image_lie_between_those_of_the_stored_grid() {
        for names in [Names::Torchvision, Names::Monai] {
            let form = Form { names, patch: 2, side: 4, layers: 1, hidden: 1, heads: 1, mlp: 1 };
            let mut builder = Builder::zeroed();
            let encoder = VisionTransformer::new(&mut builder, Axes::Image, &form).unwrap();
            // The class token's, where it has one, and four patches: 1 left, 3 right.
            let class: &[f32] = if names == Names::Torchvision { &[7.0] } else { &[] };
            let rows = [class, &[1.0, 3.0, 1.0, 3.0]].concat();
            let count = rows.len();
            encoder.positions.set(&Tensor::from_vec(rows, (1, count, 1), &Device::Cpu).unwrap()).unwrap();
            let tokens = |height: usize, width: usize| {
                let input = Tensor::zeros((1, 1, 1, height, width), DType::F32, &Device::Cpu).unwrap();
                values(&encoder.tokens(&input).unwrap())
            };
            let class = if names == Names::Torchvision { 7.0 } else { 0.0 };
            assert_eq!(tokens(4, 4), [class, 1.0, 3.0, 1.0, 3.0]);
            assert_close("tokens", &tokens(2, 8), &[class, 1.0, 1.5, 2.5, 3.0], 1e-6);
        }
    }
}
