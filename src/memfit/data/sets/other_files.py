"""What files that hold no image probably are, by their endings, and what to do with them."""

from __future__ import annotations

import os

__all__ = ["OWN_CODE", "meaning_of"]

OWN_CODE = (
    "A Dataset of your own reads what memfit does not: --data my_data.py:make (docs/data.md)."
)

_MEANINGS = {
    ".xml": "boxes, as of Pascal VOC?",
    ".txt": "boxes, as of YOLO, or lists of files?",
    ".json": "annotations, as of COCO or labelme?",
    ".csv": "a table: name it to read it",
    ".tsv": "a table: name it to read it",
    ".jsonl": "a table: name it to read it",
    ".parquet": "a table: name it to read it",
    ".npy": "an array: put images and labels into one .npz",
    ".npz": "arrays: name the file to read it",
    ".zip": "an archive: name it to read it",
    ".tar": "an archive: name it to read it",
    ".rar": "an archive that is not read: make it a .zip",
    ".7z": "an archive that is not read: make it a .zip",
    ".dcm": "DICOM, which is not read: export 16-bit PNG or TIFF",
    ".nii": "NIfTI volumes, which are not read",
    ".gz": "a compressed file, which is not read",
    ".h5": "HDF5, which is not read",
    ".hdf5": "HDF5, which is not read",
    ".mat": "MATLAB's arrays, which are not read",
    ".pkl": "a pickle, which could run code when loaded",
    ".pickle": "a pickle, which could run code when loaded",
    ".pt": "PyTorch's tensors, which are not read",
    ".pth": "PyTorch's tensors, which are not read",
    ".tfrecord": "TensorFlow's records, which are not read",
    ".mdb": "an LMDB, which is not read",
    ".lmdb": "an LMDB, which is not read",
    ".arrow": "Arrow, which is not read: write Parquet",
    ".mp4": "a video: write its frames as images",
    ".avi": "a video: write its frames as images",
    ".mov": "a video: write its frames as images",
    ".wav": "sound, not images",
    ".mp3": "sound, not images",
    ".heic": "HEIC, which is not read: write JPEG or PNG",
    ".svg": "drawings, which are not read: write PNG",
}


def meaning_of(name: str) -> str | None:
    """What a file probably is; None where its ending says nothing."""
    return _MEANINGS.get(os.path.splitext(name)[1].lower())  # noqa: PTH122
