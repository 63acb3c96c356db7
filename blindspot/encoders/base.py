"""What an encoder family is: its transformers classes, its conventions and its released checkpoints, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel
    from transformers.image_processing_utils import BaseImageProcessor

Role = Literal["public code", "matched"]
Embed = Callable[[Any, "Tensor", "Tensor | None"], "tuple[Tensor, dict[str, Any]]"]
"""(tower, pixels, grids where images differ in size) -> (what enters the first block, arguments of every block)."""

VIT_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
VIT_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
VIT_SO400M = {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304}

Triple = tuple[float, float, float]

CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Triple = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
HALF: Triple = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class TowerShape:
    """Size of an image encoder: channels of a token, blocks, heads, hidden channels of the MLP (of each branch, where
    it is gated), and the sides in pixels of the square input and of a patch.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    image_size: int
    patch_size: int

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(f"patches of {self.patch_size} px do not tile an image of {self.image_size} px")
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def arguments(self) -> dict[str, Any]:
        """The sizes under the names that transformers' vision configurations share."""
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.mlp_width,
            "image_size": self.image_size,
            "patch_size": self.patch_size,
        }


@dataclass(frozen=True)
class Checkpoint:
    """Released weights of a family."""

    id: str  # on the Hugging Face hub
    model_type: str  # of its vision config
    arguments: Mapping[str, Any] = field(hash=False)  # of its vision config, where they are not transformers' defaults
    size: int
    """Side in pixels of the square that its own preprocessor makes; where that keeps the aspect ratio, of a usual
    one."""
    roles: tuple[Role, ...] = ()
    """``public code``: what the study's public code loads; ``matched``: one of the four that agree in layers (24),
    width (1024) and patch tokens (256)."""
    download: float = 0
    """Bytes of the weights on the hub, in float32; 0 if unknown. Of CLIP and SigLIP the text tower is among them."""

    def config(self) -> PreTrainedConfig:
        """Configuration of its vision tower."""
        from transformers import AutoConfig

        return AutoConfig.for_model(self.model_type, **self.arguments)


@dataclass(frozen=True)
class Images:
    """A family's preprocessing."""

    fit: Literal["crop", "warp", "bound", "native"]
    """How a picture of any shape becomes the encoder's input. ``crop``: the shorter side is resized and the centre cut
    out; ``warp``: both sides are resized, whatever that does to the aspect ratio; ``bound``: aspect ratio kept, resized
    to the most patches that fit; ``native``: not resized at all."""
    mean: Triple  # per-channel mean that is subtracted (pixels in 0..1)
    std: Triple  # per-channel deviation that is divided by
    resample: Literal["bicubic", "bilinear"] = "bicubic"  # interpolation of the resizing
    margin: float = 1.0  # ``crop`` only: shorter side of the resized picture over the side of the crop
    most_patches: int = 0  # where the aspect ratio is kept: the most patches that a picture becomes

    @property
    def resizing(self) -> str:
        """How a picture becomes the input, as a phrase."""
        side = "shorter side to the crop" if self.margin == 1 else f"shorter side to {self.margin:.2f} of the crop"
        return {
            "crop": f"{side}, centre cropped, {self.resample}",
            "warp": f"warped to a square, {self.resample}",
            "bound": f"aspect ratio kept, filling at most {self.most_patches} patches, {self.resample}",
            "native": f"not resized up to {self.most_patches} patches, sides cut to whole patches",
        }[self.fit]

    @property
    def normalisation(self) -> str:
        """Mean and deviation, as a phrase."""
        return {CLIP_MEAN: "CLIP mean and std", IMAGENET_MEAN: "ImageNet mean and std", HALF: "0.5, 0.5"}[self.mean]


@dataclass(frozen=True)
class Encoder:
    """One family of image encoders.

    In every family, block k's output is ``hidden_states[k]`` of transformers, and ``hidden_states[-1]`` is the output
    of the last block *before* `final_norm`: that is layer -1 of LLaVA's ``vision_feature_layer``.
    """

    name: str  # key in the registry and in study files
    label: str  # as the paper writes it
    model_classes: Mapping[str, str] = field(hash=False)
    """Names of transformers' classes of the tower by ``model_type`` of their config; the first is the one that
    `vision_config` is for."""
    cls_token: bool  # whether a CLS token stands before the patches
    embed: Embed  # runs what comes before the first block
    images: Images  # the released preprocessing
    checkpoints: tuple[Checkpoint, ...]  # released weights
    blocks: str = "encoder.layers"  # name of the list of blocks inside the tower
    final_norm: str = "post_layernorm"  # name of the norm after them
    norm: Literal["LayerNorm", "RMSNorm"] = "LayerNorm"  # kind of all norms
    table: Literal["learned", "computed", "rotary"] = "learned"
    """How patches get their place: a ``learned`` table, a ``computed`` one (fixed sines and cosines), or ``rotary``
    (queries and keys turned in every block)."""
    table_at: str = "embeddings.position_embedding"  # name of the table, or of what computes it, inside the tower
    other_sizes: str = "resized bicubically"  # how the table serves an input that is not of the native size
    arguments: Callable[[TowerShape], dict[str, Any]] = lambda shape: shape.arguments
    """Shape -> what the configuration of a tower to train is made from."""
    registers: int = 0  # register tokens, between CLS and patches, of the towers that `vision_config` is for
    variable_resolution: bool = False
    """Whether images keep their aspect ratio, so that their patches differ in number: pixels come as rows of patches,
    padded within the batch, with the grid of each image."""
    gated: bool = False  # whether the MLP has two branches

    @property
    def model_class(self) -> type[PreTrainedModel]:
        """The transformers class of the towers that `vision_config` is for."""
        return self.class_of(next(iter(self.model_classes)))

    def class_of(self, model_type: str) -> type[PreTrainedModel]:
        """The transformers class of the towers whose config has this ``model_type``."""
        import transformers

        return getattr(transformers, self.model_classes[model_type])

    def vision_config(self, shape: TowerShape) -> PreTrainedConfig:
        """Configuration of a tower to train, without the family's pooling head."""
        from transformers import AutoConfig

        return AutoConfig.for_model(next(iter(self.model_classes)), **self.arguments(shape))

    @property
    def prefix_tokens(self) -> int:
        """Tokens before the patches, in the towers that `vision_config` is for; see also `prefix_tokens_in`."""
        return self.cls_token + self.registers

    def prefix_tokens_in(self, vision_config: PreTrainedConfig) -> int:
        """Tokens before the patches in a tower of any configuration of the family: CLS and registers."""
        return self.cls_token + getattr(vision_config, "num_register_tokens", 0)

    @property
    def feature_select_strategy(self) -> Literal["default", "full"]:
        """LLaVA's ``vision_feature_select_strategy`` that keeps every patch: "default" leaves out one token, CLS."""
        return "default" if self.prefix_tokens else "full"

    def image_processor(self, size: int | None = None, patch_size: int | None = None) -> BaseImageProcessor:
        """transformers' image processor that does what the family's released one does, without torchvision.

        It saves and loads like any other: ``AutoImageProcessor.from_pretrained`` reads what it wrote.

        Args:
            size: side of the square input in pixels. Where the aspect ratio is kept, an image becomes at most as many
                patches as such a square. By default that of the first checkpoint.
            patch_size: side of a patch in pixels, used only there; by default that of the first checkpoint.
        """
        from PIL.Image import Resampling
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
        from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

        from blindspot.encoders.variable_resolution import NativeImageProcessor

        released, images = self.checkpoints[0], self.images
        common: dict[str, Any] = {
            "image_mean": list(images.mean),
            "image_std": list(images.std),
            "resample": Resampling[images.resample.upper()].value,
            "do_convert_rgb": True,
        }
        if images.fit in ("bound", "native"):
            patch: int = patch_size or released.arguments["patch_size"]
            most = (size // patch) ** 2 if size else images.most_patches
            kept = Siglip2ImageProcessorPil if images.fit == "bound" else NativeImageProcessor
            return kept(patch_size=patch, max_num_patches=most, **common)
        side = size or released.size
        square = {"height": side, "width": side}
        if images.fit == "warp":
            return SiglipImageProcessorPil(size=square, **common)
        return CLIPImageProcessorPil(size={"shortest_edge": round(side * images.margin)}, crop_size=square, **common)
