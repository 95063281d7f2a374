"""A messy folder: one file of each mode, format and defect."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

__all__ = ["BOMB_SIZE", "READABLE", "UNREADABLE", "noise", "write_corpus"]

SIZE = (12, 8)
#: More pixels than the tests allow.
BOMB_SIZE = (60, 50)

#: File by mode, as Pillow opens it.
READABLE = {
    "bilevel.png": "1",
    "grey.png": "L",
    "grey_alpha.png": "LA",
    "palette.png": "P",
    "palette_alpha.png": "P",
    "colour.jpg": "RGB",
    "colour_16.png": "RGB",
    "grey_in_colour.png": "RGB",
    "alpha.png": "RGBA",
    "print.jpg": "CMYK",
    "ycbcr.tif": "YCbCr",
    "lab.tif": "LAB",
    "grey_16.png": "I;16",
    "integers.tif": "I",
    "floats.tif": "F",
    "turned.jpg": "RGB",
    "animated.gif": "P",
    "profile.png": "RGB",
    "misnamed.jpg": "RGB",
}
#: File by the words its reason holds.
UNREADABLE = {
    "truncated.jpg": "truncated",
    "text.jpg": "not an image",
    "empty.png": "empty",
    "bomb.png": "pixels are more than",
    "floats_beyond.tif": "do not lie in 0..1",
}


def noise(seed: int, *shape: int) -> np.ndarray:
    """Deterministic uint8 values."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_corpus(folder: Path) -> Path:
    """Write every file into ``folder``; all have :data:`SIZE` but the turned one."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height = SIZE
    rgb = Image.fromarray(noise(0, height, width, 3))
    grey = Image.fromarray(noise(1, height, width))
    _save_plain(folder, rgb, grey)
    _save_deep(folder, height, width)
    rgb.convert("CMYK").save(folder / "print.jpg")
    rgb.convert("YCbCr").save(folder / "ycbcr.tif")
    lab = Image.fromarray(noise(4, height, width, 3))
    Image.frombytes("LAB", SIZE, lab.tobytes()).save(folder / "lab.tif")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(5, height, width, 3)).save(folder / "turned.jpg", exif=exif)
    frames = [Image.fromarray(noise(seed, height, width, 3)) for seed in (6, 7)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(noise(8, height, width, 3)).save(folder / "profile.png", icc_profile=profile)
    Image.fromarray(noise(9, height, width, 3)).save(folder / "misnamed.jpg", format="PNG")
    _save_broken(folder, rgb)
    return folder


def _save_plain(folder: Path, rgb: Image.Image, grey: Image.Image) -> None:
    grey.convert("1").save(folder / "bilevel.png")
    grey.save(folder / "grey.png")
    Image.merge("LA", (grey, grey)).save(folder / "grey_alpha.png")
    rgb.quantize(16).save(folder / "palette.png")
    rgb.quantize(15).save(folder / "palette_alpha.png", transparency=3)
    rgb.save(folder / "colour.jpg")
    Image.merge("RGB", (grey,) * 3).save(folder / "grey_in_colour.png")
    alpha = rgb.copy()
    alpha.putalpha(grey)
    alpha.save(folder / "alpha.png")


def _save_deep(folder: Path, height: int, width: int) -> None:
    values = np.random.default_rng(2).integers(0, 65_536, (height, width), dtype=np.uint16)
    Image.fromarray(values).save(folder / "grey_16.png")
    Image.fromarray(values.astype(np.int32)).save(folder / "integers.tif")
    floats = np.random.default_rng(3).random((height, width), dtype=np.float32)
    Image.fromarray(floats).save(folder / "floats.tif")
    Image.fromarray(floats * 300).save(folder / "floats_beyond.tif")
    _write_png_16(folder / "colour_16.png", height, width)


def _write_png_16(path: Path, height: int, width: int) -> None:
    """Pillow writes no 16-bit colour: chunks by hand (PNG specification, 5)."""
    import zlib

    values = np.random.default_rng(10).integers(0, 65_536, (height, width * 3)).astype(">u2")
    lines = b"".join(b"\0" + line.tobytes() for line in values)

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def _save_broken(folder: Path, rgb: Image.Image) -> None:
    buffer = io.BytesIO()
    rgb.resize((48, 48)).save(buffer, "JPEG")
    (folder / "truncated.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    (folder / "text.jpg").write_text("this is no image\n" * 20)
    (folder / "empty.png").write_bytes(b"")
    Image.new("L", BOMB_SIZE).save(folder / "bomb.png")
