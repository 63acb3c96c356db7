"""SigLIP2 (Tschannen et al. 2025): SigLIP's architecture under a richer objective.

The fixed-resolution SigLIP2 checkpoints are published as transformers' ``SiglipVisionModel``; ``Siglip2VisionModel``
is only for the NaFlex ones. So this family differs from SigLIP in its objective alone.
"""

from dataclasses import replace

from blindspot.encoders.siglip import SIGLIP

SIGLIP2 = replace(SIGLIP, name="siglip2", label="SigLIP2")
