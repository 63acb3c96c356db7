"""Images per second and core: decode, resize, normalise; Blindspot against Pillow and transformers' processor.

Ours is what training's workers do: `open_picture` (Pillow decodes, with libjpeg-turbo) and `Preparation`. The peer is
``Image.open(...).convert("RGB")`` and the image processor of the encoder. Both start from the files, on one thread,
alternating; time is that of the core. Both must make the same numbers. Stage 2 pads to squares, stage 1 does not.

    python perf/data.py [FOLDER] [--repeats 5] [--json]

FOLDER holds photographs; by default it is ../shared/data/photos/images.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from blindspot.encoders import ENCODERS
from blindspot.model.formats.llava import padded
from blindspot.training.llava.pictures import open_picture
from blindspot.training.llava.samples import Preparation

SETTINGS = [
    (family, size, pad) for family, size in (("clip", 336), ("clip", 224), ("siglip", 256)) for pad in (False, True)
]
PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos" / "images"


def measure(files: list[Path], family: str, size: int, pad: bool, repeats: int) -> dict[str, Any]:
    """Images per second of each side (the median of the repeats), and their ratio."""
    processor: Any = ENCODERS[family].image_processor(size)
    processor = padded(processor) if pad else processor
    preparation = Preparation(processor)

    def ours(file: Path) -> Any:
        return preparation(open_picture(file.parent, file.name))["pixel_values"]

    def peer(file: Path) -> Any:
        return processor(images=Image.open(file).convert("RGB"), return_tensors="pt")["pixel_values"][0]

    def decode(file: Path) -> Any:
        return Image.open(file).convert("RGB")

    if not all(torch.equal(ours(file), peer(file)) for file in files):
        raise SystemExit(f"{family} {size}: the two make different numbers")
    times = np.array([[_seconds(work, files) for work in (ours, peer, decode)] for _ in range(repeats)])
    rates = len(files) / np.median(times, axis=0)
    return {
        "encoder": f"{family} {size}{', padded' if pad else ''}",
        "ours_per_second": rates[0],
        "peer_per_second": rates[1],
        "decoding_alone_per_second": rates[2],
        "ratio": rates[0] / rates[1],
    }


def _seconds(work: Callable[[Path], Any], files: list[Path]) -> float:
    begun = time.process_time()
    for file in files:
        work(file)
    return time.process_time() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=PHOTOS, help="photographs")
    parser.add_argument(
        "--repeats", type=int, default=5, help="times that every image is read by each side (default 5)"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of the table")
    options = parser.parse_args()
    files = sorted(path for path in options.folder.glob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        parser.error(f"no photographs in {options.folder}")
    torch.set_num_threads(1)
    rows = [measure(files, *setting, options.repeats) for setting in SETTINGS]
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(title=f"{len(files)} images, one core: images per second")
    for heading in ("encoder", "Blindspot", "Pillow and transformers", "ratio", "decoding alone"):
        table.add_column(heading, justify="left" if heading == "encoder" else "right")
    for row in rows:
        rates = [f"{row[f'{side}_per_second']:.0f}" for side in ("ours", "peer", "decoding_alone")]
        table.add_row(row["encoder"], *rates[:2], f"{row['ratio']:.2f}", rates[2])
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
