"""Every kind of image file opens as RGB or is named in one line; extreme shapes; pixels without torchvision."""

import struct
import warnings
import zlib
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from transformers import image_processing_backends as backends
from transformers.utils.import_utils import is_torchvision_available
from typer.testing import CliRunner

from blindspot.cli import app
from blindspot.encoders import ENCODERS
from blindspot.errors import UserError
from blindspot.model import pixels
from blindspot.model.images import open_image, refuse_elongated


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_image(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def scene() -> Image.Image:
    """Red left, blue right, a white bar on top: every turn and mirror image differs."""
    image = Image.new("RGB", (24, 16), "red")
    draw = ImageDraw.Draw(image)
    draw.rectangle((12, 0, 23, 15), fill="blue")
    draw.rectangle((0, 0, 23, 3), fill="white")
    return image


def png(width: int, height: int, *more: tuple[bytes, bytes]) -> bytes:
    """A few bytes of a PNG file that claim to be a picture of this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(bytes(200))), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def content(file_format: str) -> bytes:
    buffer = BytesIO()
    scene().save(buffer, file_format)
    return buffer.getvalue()


def test_what_is_not_there_or_no_image_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.png") == f"no image at {tmp_path / 'none.png'}"
    assert refusal(tmp_path) == f"{tmp_path} is not an image that can be read: it is a folder"
    (tmp_path / "empty.png").touch()
    assert refusal(tmp_path / "empty.png").endswith("is not an image that can be read: it is empty")
    (tmp_path / "text.jpg").write_text("not a picture", encoding="utf-8")
    assert "is not an image that can be read: it is in no known" in refusal(tmp_path / "text.jpg")


@pytest.mark.parametrize("file_format", ["png", "jpeg", "gif", "tiff", "webp", "bmp"])
def test_a_cut_off_file_is_refused_not_filled_with_grey(tmp_path: Path, file_format: str) -> None:
    whole, path = content(file_format), tmp_path / "picture"
    path.write_bytes(whole)
    assert open_image(path).size == (24, 16)
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert "is not an image that can be read: " in refusal(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    file_format=st.sampled_from(["png", "jpeg", "gif", "tiff", "webp"]),
    at=st.floats(0, 0.999),
    junk=st.binary(min_size=1, max_size=8),
)
def test_a_damaged_file_opens_or_is_named(tmp_path: Path, file_format: str, at: float, junk: bytes) -> None:
    damaged, path = bytearray(content(file_format)), tmp_path / "damaged"
    start = int(at * len(damaged))
    damaged[start : start + len(junk)] = junk
    path.write_bytes(damaged)
    with warnings.catch_warnings(action="ignore"):
        try:
            assert open_image(path).mode == "RGB"
        except UserError as error:
            assert str(path) in str(error)


def test_more_pixels_than_pillow_opens_are_refused_with_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(30_000, 30_000))
    assert refusal(path).endswith("it has more than 178,956,970 pixels, the most that are opened")


def test_a_text_that_unpacks_to_megabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(8, 8, (b"zTXt", b"k\0\0" + zlib.compress(bytes(3 << 20)))))
    assert "is not an image that can be read: " in refusal(path)


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10), (10, 20_000)])
def test_any_shape_opens(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, "green").save(tmp_path / "shape.png")
    image = open_image(tmp_path / "shape.png")
    assert (image.size, image.mode, image.getpixel((size[0] - 1, size[1] - 1))) == (size, "RGB", (0, 128, 0))


@pytest.mark.parametrize("name", sorted(ENCODERS))
@pytest.mark.parametrize("size", [(1, 1), (1, 200), (2000, 10)])
def test_extreme_shapes_come_through_every_image_processor(name: str, size: tuple[int, int]) -> None:
    encoder = ENCODERS[name]
    image = Image.new("RGB", size, (255, 128, 0))
    refuse_elongated(image)
    batch = encoder.image_processor()(images=[image], return_tensors="pt")
    pixels = batch["pixel_values"][0]
    if encoder.variable_resolution:
        rows, columns = batch["spatial_shapes"][0].tolist()
        real = pixels[: rows * columns].reshape(-1, 3)
        assert min(rows, columns) >= 1 and rows * columns <= encoder.images.most_patches
        assert (rows - columns) * (size[1] - size[0]) >= 0
    else:
        side = encoder.checkpoints[0].size
        assert pixels.shape == (3, side, side)
        real = pixels.reshape(3, -1).T
    colour = (np.array([255, 128, 0]) / 255 - encoder.images.mean) / encoder.images.std
    assert abs(real.numpy() - colour).max() < 0.02


def test_what_is_too_elongated_is_refused_with_its_shape() -> None:
    for size in ((20_000, 10), (10, 20_000), (201, 1)):
        with pytest.raises(UserError, match=f"is {size[0]} x {size[1]} pixels, more than 200 times as long"):
            refuse_elongated(Image.new("RGB", size))


def test_the_command_refuses_it_before_it_opens_the_model(tmp_path: Path) -> None:
    Image.new("RGB", (20_000, 10)).save(tmp_path / "line.png")
    result = CliRunner().invoke(app, ["ask", str(tmp_path), str(tmp_path / "line.png"), "what?"])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("error: the picture is 20000 x 10 pixels")


@pytest.mark.parametrize("name", [name for name in sorted(ENCODERS) if ENCODERS[name].images.fit != "crop"])
def test_encoders_that_do_not_crop_take_any_shape(name: str) -> None:
    batch = ENCODERS[name].image_processor()(images=[Image.new("RGB", (20_000, 10))], return_tensors="pt")
    if ENCODERS[name].variable_resolution:
        rows, columns = batch["spatial_shapes"][0].tolist()
        assert rows == 1 and 256 <= columns <= ENCODERS[name].images.most_patches
    else:
        assert batch["pixel_values"].shape[-1] == batch["pixel_values"].shape[-2]


def test_a_gif_called_jpg_opens_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "book.jpg").write_bytes(content("gif"))
    assert np.array_equal(open_image(tmp_path / "book.jpg"), scene())


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    # compressed: Pillow below 13 refuses YCbCr without
    Image.new("RGB", (4, 4), "white").convert(mode).save(tmp_path / "white.tiff", compression="tiff_lzw")
    assert np.asarray(open_image(tmp_path / "white.tiff")).min() >= 254
    Image.new("RGB", (4, 4), "black").convert(mode).save(tmp_path / "black.tiff", compression="tiff_lzw")
    assert np.asarray(open_image(tmp_path / "black.tiff")).max() <= 1


def test_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    scene().convert("CMYK").save(tmp_path / "print.jpg", quality=95, subsampling=0)
    assert Image.open(tmp_path / "print.jpg").mode == "CMYK"
    error = np.asarray(open_image(tmp_path / "print.jpg"), dtype=int) - np.asarray(scene(), dtype=int)
    assert abs(error).mean() < 6


def test_transparency_shows_the_colour_stored_under_it(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    clear.save(tmp_path / "clear.png")
    assert open_image(tmp_path / "clear.png").getpixel((0, 0)) == (10, 20, 30)
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    palette.save(tmp_path / "palette.png", transparency=1)
    assert open_image(tmp_path / "palette.png").getpixel((1, 0)) == (200, 100, 50)


@pytest.mark.parametrize("ending", ["png", "tiff", "pgm", "jp2"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path, ending: str) -> None:
    grey_hw = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(grey_hw).save(tmp_path / f"grey.{ending}")
    opened = np.asarray(open_image(tmp_path / f"grey.{ending}"))
    assert np.array_equal(opened, np.round(grey_hw / 257).astype(np.uint8)[:, :, None].repeat(3, axis=2))


def test_a_ten_bit_grey_map_fills_the_range(tmp_path: Path) -> None:
    (tmp_path / "grey.pgm").write_bytes(b"P5 3 1 1000\n" + np.array([0, 500, 1000], dtype=">u2").tobytes())
    assert np.asarray(open_image(tmp_path / "grey.pgm"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_values_without_a_range_are_refused(tmp_path: Path, kind: type) -> None:
    Image.fromarray(np.full((2, 2), 70_000, dtype=kind)).save(tmp_path / "depth.tiff")
    assert refusal(tmp_path / "depth.tiff").endswith("without a range; save it with 8 or 16 bits")


@pytest.mark.parametrize("file_format", ["gif", "png", "webp"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, file_format: str) -> None:
    path = tmp_path / f"moving.{file_format}"
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if file_format == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    with Image.open(path) as moving:
        assert getattr(moving, "n_frames", 1) == 2
    assert open_image(path).getpixel((4, 4)) == (255, 0, 0)


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_a_picture_is_turned_as_the_camera_says(tmp_path: Path, orientation: int, mode: str) -> None:
    upright = scene()
    if mode == "I;16":
        upright = Image.fromarray(np.asarray(upright.convert("L")).astype(np.uint16) * 257)
    stored = upright.transpose(TURNS[orientation]) if orientation in TURNS else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    expected = scene() if mode == "RGB" else scene().convert("L").convert("RGB")
    assert np.array_equal(open_image(tmp_path / "photo.png"), expected)


HIDDEN = {
    "Molmo2ImageProcessor": {"size": {"height": 84, "width": 84}, "overlap_margins": [1, 1], "max_crops": 4},
    "Llama4ImageProcessor": {"size": {"height": 56, "width": 56}, "max_patches": 4},
    "Lfm2VlImageProcessor": {"tile_size": 64, "max_tiles": 4, "min_image_tokens": 4, "max_image_tokens": 8},
    "PerceptionLMImageProcessor": {"tile_size": 56, "max_num_tiles": 4},
    "Gemma4UnifiedImageProcessor": {"max_soft_tokens": 70},
    "Kimi_K25ImageProcessor": {"size": {"max_height": 8, "max_width": 8}, "max_patches": 64},
}
PICTURES = [
    Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))
    for width, height in ((90, 60), (50, 120), (301, 77))
]


def bytes_of(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)


@pytest.mark.parametrize("size", [(60, 90), (31, 45), (120, 171)])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_bytes_are_resized_as_pillow_does_but_for_its_rounding(size: tuple[int, int], mode: str) -> None:
    for picture in PICTURES:
        ours = pixels.resize(bytes_of(picture), size, mode)
        assert ours.dtype == torch.uint8
        pillows = bytes_of(picture.resize(size[::-1], Image.Resampling[mode.upper()]))
        assert ((ours.int() - pillows.int()).abs() > 1).float().mean() < 0.02  # where noise leaves the range half-way


def test_fractions_where_torch_interpolates_no_bytes_are_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = pixels.resize(bytes_of(PICTURES[0]), (31, 45))
    monkeypatch.setattr(pixels, "NATIVE", False)
    assert (exact.int() - pixels.resize(bytes_of(PICTURES[0]), (31, 45)).int()).abs().max() <= 1


@pytest.mark.skipif(not is_torchvision_available(), reason="torchvision, which is compared with, is not installed")
@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_processors_give_torchvisions_pixels_to_the_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = getattr(transformers, name)
    theirs = [kind(**HIDDEN[name])(picture, return_tensors="pt") for picture in PICTURES]
    for module in (backends, import_module(kind.__module__)):
        if hasattr(module, "tvF"):
            for function in ("resize", "pad", "normalize"):
                monkeypatch.setattr(module.tvF, function, getattr(pixels, function))
    monkeypatch.setattr(backends, "pil_torch_interpolation_mapping", pixels.MODES)
    for picture, expected in zip(PICTURES, theirs, strict=True):
        ours = kind(**HIDDEN[name])(picture, return_tensors="pt")
        assert ours.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(ours[key])), key
