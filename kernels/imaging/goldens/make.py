"""Makes images.json: image files with the grey values that other readers find in them, and images prepared by others.

python3 -m venv ~/goldens && ~/goldens/bin/pip install pillow==13.0.0 numpy==2.4.6 opencv-python-headless==5.0.0.93 pypng==0.20220715.0
~/goldens/bin/python kernels/imaging/goldens/make.py > kernels/imaging/goldens/images.json

Pillow writes the files and reads them again; pypng writes the interlaced one, which Pillow cannot. Percentiles are
numpy's, areas are OpenCV's INTER_AREA and enlarging its INTER_LINEAR, both on float32.
"""

import io
import json

import cv2
import numpy as np
import png
from PIL import Image

rng = np.random.default_rng(20)
y, x = np.mgrid[0:19, 0:27]
smooth = 120 + 70 * np.sin(x / 5) + 45 * np.cos(y / 4)
grey = (smooth + rng.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8)
deep = (smooth * 250 + rng.normal(0, 200, smooth.shape)).clip(0, 65535).astype(np.uint16)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def interlaced(values):
    file = io.BytesIO()
    height, width = values.shape
    png.Writer(width, height, greyscale=True, bitdepth=16, interlace=True).write(file, values.tolist())
    return file.getvalue()


def with_exif(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


eight, colours = Image.fromarray(grey), Image.fromarray(grey).convert("RGB")
opaque = Image.fromarray(np.dstack([grey, grey, grey, np.full_like(grey, 255)]))
half = Image.fromarray(np.dstack([grey, np.where(x < 4, 10, 255).astype(np.uint8)]))
palette = eight.quantize(16)
tinted = Image.fromarray(np.dstack([grey, grey, np.where((x == 5) & (y > 16), grey ^ 64, grey)]))

files = {
    "grey8.png": saved(eight, "PNG"),
    "grey16.png": saved(Image.fromarray(deep), "PNG"),
    "interlaced16.png": interlaced(deep),
    "bits1.png": saved(eight.point(lambda value: 255 * (value > 120)).convert("1"), "PNG"),
    "rgb.png": saved(colours, "PNG"),
    "rgba.png": saved(opaque, "PNG"),
    "grey_alpha.png": saved(half, "PNG"),
    "palette.png": saved(palette, "PNG"),
    "grey.jpg": saved(eight, "JPEG", quality=90),
    "progressive.jpg": saved(eight, "JPEG", quality=90, progressive=True),
    "ycbcr420.jpg": saved(colours, "JPEG", quality=90),
    "restarts.jpg": saved(eight, "JPEG", quality=90, restart_marker_blocks=1),
}
for number in range(1, 9):
    files[f"exif{number}.png"] = saved(eight, "PNG", exif=with_exif(number))
files["exif6.jpg"] = saved(eight, "JPEG", quality=90, exif=with_exif(6))


def upright(file):
    image = Image.open(io.BytesIO(file))
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(image.getexif().get(0x0112))
    image = image if turn is None else image.transpose(turn)
    if image.mode == "P":
        image = image.convert("RGB")
    values = np.asarray(image).astype(int)
    values = values[..., 0] if values.ndim == 3 else values
    return values * 255 if image.mode == "1" else values


def box(values, low, high, margin):
    ys, xs = np.nonzero((values >= low) & (values <= high))
    height, width = values.shape
    left, top = max(xs.min() - margin, 0), max(ys.min() - margin, 0)
    right, bottom = min(xs.max() + 1 + margin, width), min(ys.max() + 1 + margin, height)
    return [int(n) for n in (left, top, right - left, bottom - top)]


def resized(values, width, height):
    """Area along an axis that shrinks, linear along one that grows, one axis after the other."""
    for size in ((width, values.shape[0]), (width, height)):
        now = (values.shape[1], values.shape[0])
        shrinks = size[0] < now[0] or size[1] < now[1]
        values = cv2.resize(values, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return values


def prepared(values, percentiles, crop, size, pad, bits):
    low, high = np.percentile(values, percentiles)
    shares = ((values - low) / (high - low)).clip(0, 1)
    left, top, columns, rows = box(shares, *crop) if crop else [0, 0, values.shape[1], values.shape[0]]
    shares = shares[top : top + rows, left : left + columns].astype(np.float32)
    width, height = size
    if pad:
        factor = min(width / columns, height / rows)
        width, height = round(columns * factor), round(rows * factor)
    out = np.zeros((size[1], size[0]))
    x0, y0 = (size[0] - width) // 2, (size[1] - height) // 2
    out[y0 : y0 + height, x0 : x0 + width] = resized(shares, width, height)
    return {
        "percentiles": percentiles,
        "crop_rule": crop,
        "size": size,
        "pad": pad,
        "bits": bits,
        "window": [float(low), float(high)],
        "crop": [left, top, columns, rows],
        "content": [x0, y0, width, height],
        "pixels": (out * (2**bits - 1)).ravel().round(3).tolist(),
    }


values = deep.astype(float)
preparations = [
    prepared(values, [1, 99], None, [10, 7], False, 16),
    prepared(values, [1, 99], None, [10, 10], True, 8),
    prepared(values, [0, 100], [0.93, 1.0, 0], [5, 16], False, 8),
    prepared(values, [0.5, 97.5], [0.85, 1.0, 2], [40, 8], False, 16),
    prepared(values, [1, 99], [0.0, 1.0, 0], [9, 40], True, 8),
    prepared(values, [1, 99], None, [54, 38], False, 16),
]
golden = {
    "files": {
        name: {"hex": file.hex(), "width": found.shape[1], "pixels": found.ravel().tolist()}
        for name, file in files.items()
        for found in [upright(file)]
    },
    "tinted.png": saved(tinted, "PNG").hex(),
    "percentiles": {str(q): float(np.percentile(deep, q)) for q in (0, 0.5, 1, 33.3, 50, 99, 100)},
    "image": {"width": deep.shape[1], "pixels": deep.ravel().tolist()},
    "preparations": preparations,
}
print(json.dumps(golden, separators=(",", ":")))
