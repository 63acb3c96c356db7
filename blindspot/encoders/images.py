"""What a family's released preprocessor does to a picture, as data and as transformers' own image processor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

Triple = tuple[float, float, float]

CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Triple = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
HALF: Triple = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Images:
    """A family's preprocessing.

    Attributes:
        fit: how a picture of any shape becomes the encoder's input. ``crop``: the shorter side is resized and the
            centre cut out; ``warp``: both sides are resized, whatever that does to the aspect ratio; ``bound``: aspect
            ratio kept, resized to the most patches that fit; ``native``: not resized at all.
        mean: per-channel mean that is subtracted (pixels in 0..1).
        std: per-channel deviation that is divided by.
        resample: interpolation of the resizing.
        margin: ``crop`` only: shorter side of the resized picture over the side of the crop.
        most_patches: where the aspect ratio is kept: the most patches that a picture becomes.
    """

    fit: Literal["crop", "warp", "bound", "native"]
    mean: Triple
    std: Triple
    resample: Literal["bicubic", "bilinear"] = "bicubic"
    margin: float = 1.0
    most_patches: int = 0

    def processor(self, size: int, patch_size: int, most_patches: int) -> BaseImageProcessor:
        """transformers' image processor that does this, without torchvision.

        It saves and loads like any other: ``AutoImageProcessor.from_pretrained`` reads what it wrote.

        Args:
            size: side of the square input in pixels; unused where the aspect ratio is kept.
            patch_size: side of a patch in pixels; used only there.
            most_patches: the most patches that a picture becomes; likewise.
        """
        from PIL.Image import Resampling
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
        from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

        from blindspot.encoders.variable_resolution import NativeImageProcessor

        common: dict[str, Any] = {
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "resample": Resampling[self.resample.upper()].value,
            "do_convert_rgb": True,
        }
        square = {"height": size, "width": size}
        if self.fit == "crop":
            return CLIPImageProcessorPil(size={"shortest_edge": round(size * self.margin)}, crop_size=square, **common)
        if self.fit == "warp":
            return SiglipImageProcessorPil(size=square, **common)
        kept = Siglip2ImageProcessorPil if self.fit == "bound" else NativeImageProcessor
        return kept(patch_size=patch_size, max_num_patches=most_patches, **common)

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
