"""SigLIP2 (Tschannen et al. 2025), fixed resolution: SigLIP's architecture under a richer objective.

transformers: ``SiglipVisionModel``, SigLIP's own class (``Siglip2VisionModel`` is only for the NaFlex checkpoints). So
this family differs from SigLIP in its objective, and in one detail of preprocessing: bilinear, not bicubic, resizing.
"""

from dataclasses import replace

from blindspot.encoders.base import VIT_BASE, VIT_LARGE, VIT_SO400M
from blindspot.encoders.images import HALF, Images
from blindspot.encoders.siglip import SIGLIP, checkpoint

SIGLIP2 = replace(
    SIGLIP,
    name="siglip2",
    label="SigLIP2",
    images=Images("warp", HALF, HALF, "bilinear"),
    checkpoints=(
        checkpoint("siglip2-base-patch16-256", VIT_BASE, 256, 16, 1.50e9, "public code"),
        checkpoint("siglip2-large-patch16-256", VIT_LARGE, 256, 16, 3.53e9, "matched"),
        checkpoint("siglip2-so400m-patch16-256", VIT_SO400M, 256, 16, 4.54e9),
    ),
)
