"""Makes enhanced_ct.dcm, an enhanced CT image of many frames in one file, and enhanced_ct.json, what pydicom finds in it.

python3 -m venv ~/goldens && ~/goldens/bin/pip install pydicom==3.0.2 numpy
~/goldens/bin/python kernels/imaging/goldens/make_enhanced.py kernels/imaging/goldens

A body of about 40 HU around a lung of -860 HU, in air, on oblique slices. The frames are in another order than that of their
positions; slope and intercept differ between them.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian

folder = Path(sys.argv[1])
size, spacing = 16, [15.0, 14.0]
order = [3, 0, 4, 1, 5, 2]
angle = np.radians(10)
row = np.array([1.0, 0.0, 0.0])
column = np.array([0.0, np.cos(angle), -np.sin(angle)])
normal = np.cross(row, column)

y, x = np.mgrid[0:size, 0:size] - size // 2
distance = x * x + y * y
hounsfield = np.select([distance < 6, distance < 50], [-860, 40], -1000)


def of(**values):
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def group(keyword, **values):
    return {keyword: Sequence([of(**values)])}


def digits(numbers):
    return [f"{number:.6f}" for number in numbers]


frames, pixels = [], []
for number, place in enumerate(order):
    slope, intercept = [(1, -1024), (2, -1200)][place % 2]
    position = np.array([-120.0, -110.0, 40.0]) + 5.0 * place * normal
    frames.append(
        of(
            **group("FrameContentSequence", StackID="1", InStackPositionNumber=place + 1, DimensionIndexValues=[1, place + 1]),
            **group("PlanePositionSequence", ImagePositionPatient=digits(position)),
            **group(
                "PixelValueTransformationSequence", RescaleIntercept=intercept, RescaleSlope=slope, RescaleType="HU"
            ),
        )
    )
    pixels.append(((hounsfield + 3 * place - intercept) // slope).astype(np.uint16))

image = of(
    SOPClassUID=EnhancedCTImageStorage,
    SOPInstanceUID="1.2.826.0.1.3680043.8.498.1",
    Modality="CT",
    ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
    PatientID="p1",
    StudyInstanceUID="1.2.826.0.1.3680043.8.498.2",
    SeriesInstanceUID="1.2.826.0.1.3680043.8.498.3",
    SeriesNumber=7,
    SamplesPerPixel=1,
    PhotometricInterpretation="MONOCHROME2",
    NumberOfFrames=len(order),
    Rows=size,
    Columns=size,
    BitsAllocated=16,
    BitsStored=12,
    HighBit=11,
    PixelRepresentation=0,
    SharedFunctionalGroupsSequence=Sequence(
        [
            of(
                **group("PlaneOrientationSequence", ImageOrientationPatient=digits([*row, *column])),
                **group("PixelMeasuresSequence", PixelSpacing=spacing, SliceThickness=5.0),
            )
        ]
    ),
    PerFrameFunctionalGroupsSequence=Sequence(frames),
)
image["SharedFunctionalGroupsSequence"].is_undefined_length = True
image.PixelData = np.stack(pixels).tobytes()
meta = FileMetaDataset()
meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
meta.TransferSyntaxUID = ExplicitVRLittleEndian
image.file_meta = meta
pydicom.dcmwrite(folder / "enhanced_ct.dcm", image, enforce_file_format=True)

read = pydicom.dcmread(folder / "enhanced_ct.dcm")
found = []
for frame, stored in zip(read.PerFrameFunctionalGroupsSequence, read.pixel_array):
    values = frame.PixelValueTransformationSequence[0]
    position = [float(number) for number in frame.PlanePositionSequence[0].ImagePositionPatient]
    scaled = stored * float(values.RescaleSlope) + float(values.RescaleIntercept)
    found.append({"position_mm": position, "hounsfield": scaled.astype(int).ravel().tolist()})
found.sort(key=lambda frame: float(np.dot(frame["position_mm"], normal)))
(folder / "enhanced_ct.json").write_text(json.dumps({"pydicom": pydicom.__version__, "slices": found}))
