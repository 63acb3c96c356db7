"""Random crops of images already on the device, resized to full size."""

import torch
import torch.nn.functional as F
from torch import Tensor

GLOBAL_SIDE = (0.63, 1.0)  # DINO's global crops cover 40-100 % of the area, its local crops 5-40 %
LOCAL_SIDE = (0.22, 0.63)


def random_views(pixels_bchw: Tensor, side: tuple[float, float], count: int = 1) -> Tensor:
    """``count`` random square crops of every image, resized bilinearly to the image's size.

    Args:
        pixels_bchw: images.
        side: least and greatest side of a crop, as a fraction of the image's side.
        count: crops per image.

    Returns:
        Shape (count * batch, channels, height, width); the crops of image i are rows i, i + batch, ...
    """
    repeated = pixels_bchw.repeat(count, 1, 1, 1)
    side_n = side[0] + (side[1] - side[0]) * torch.rand(len(repeated), device=pixels_bchw.device)
    centre_n2 = (1 - side_n)[:, None] * (2 * torch.rand(len(repeated), 2, device=pixels_bchw.device) - 1)
    theta_n23 = torch.cat([torch.diag_embed(side_n[:, None].expand(-1, 2)), centre_n2[:, :, None]], dim=2)
    grid_nhw2 = F.affine_grid(theta_n23, list(repeated.shape), align_corners=False)
    return F.grid_sample(repeated, grid_nhw2.to(repeated.dtype), align_corners=False, padding_mode="border")
