"""MNIST, photographs of dogs, and the small digits that come with scikit-learn."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from helpers import check_choice
from helpers.data.downloads import check_mnist_file, fetch_imagewoof, fetch_mnist
from helpers.data.image_folder import check_resolution, load_image_folder
from helpers.data.image_set import ImageSet
from helpers.data.splits import SPLITS
from helpers.data.synthetic_dogs import load_synthetic_dogs
from helpers.env import data_dir, profile

# synthetic dogs in place of photographs: as many as the quick profile has time for
DRAWN_DOGS = {"train": 600, "validation": 100, "test": 100}


def load_digits(split: str = "train") -> ImageSet:
    """scikit-learn's 1,797 handwritten digits of 8×8 pixels brought to 28×28, (N, 1, 28, 28).

    split: "train", or "test" for every fifth of them.
    """
    from sklearn.datasets import load_digits as sklearn_digits

    check_choice("split", split, ("train", "test"))
    bunch = sklearn_digits()
    small = torch.from_numpy(bunch.images).float()[:, None] / 16  # (N, 1, 8, 8) in [0, 1]

    # 20 of 28 pixels, as in MNIST
    large = F.interpolate(small, size=(20, 20), mode="bicubic", antialias=True).clamp(0, 1)
    images = F.pad(large * 255, (4, 4, 4, 4)).round().to(torch.uint8)  # (N, 1, 28, 28)
    labels = torch.from_numpy(bunch.target).long()

    test = torch.arange(len(images)) % 5 == 0
    keep = test if split == "test" else ~test
    return ImageSet(images[keep], labels[keep], "scikit-learn's digits, embedded")


def load_mnist(split: str = "train", source: str = "auto") -> ImageSet:
    """MNIST, (N, 1, 28, 28): 60,000 images for split="train", 10,000 for "test".

    Looks in $COURSE_DATA/MNIST/raw, then downloads (11 MB).  The files are MNIST's own byte by
    byte, wherever they come from.
    source="embedded", and the quick profile, give `load_digits` instead.

    LeCun, Cortes & Burges, CC BY-SA 3.0.  Raises CourseError where it cannot be had or read.
    """
    check_choice("split", split, ("train", "test"))
    check_choice("source", source, ("auto", "embedded"))
    if source == "embedded" or profile() == "quick":
        return load_digits(split)

    from torchvision.datasets.mnist import read_image_file, read_label_file

    where = fetch_mnist(data_dir())
    part = "train" if split == "train" else "t10k"
    pictures = data_dir() / "MNIST" / "raw" / f"{part}-images-idx3-ubyte"
    digits = pictures.with_name(f"{part}-labels-idx1-ubyte")
    check_mnist_file(pictures)
    check_mnist_file(digits)

    images = read_image_file(pictures)[:, None]  # (N, 1, 28, 28)
    return ImageSet(images, read_label_file(digits), f"MNIST, {where} in COURSE_DATA")


def load_dogs(resolution: int = 128, split: str = "train", source: str = "auto") -> ImageSet:
    """Photographs of dogs as RGB, (N, 3, resolution, resolution).

    split: "train" (85 %), "validation" (5 %) or "test" (10 %); a file's name decides.
    Looks in $COURSE_DATA/dogs, where any images may be, then for Imagewoof, which it downloads: 10
    breeds out of ImageNet, short side 160 pixels, 93 MB (for a resolution above 160 that of 320
    pixels).  Images are read as by `load_image_folder`.
    source="embedded", and the quick profile, give `load_synthetic_dogs` instead.

    Raises CourseError where they cannot be had, or where no image is in the split.
    """
    check_choice("split", split, SPLITS)
    check_choice("source", source, ("auto", "embedded"))
    check_resolution(resolution)
    if source == "embedded" or profile() == "quick":
        return load_synthetic_dogs(DRAWN_DOGS[split], resolution, split)

    folder = data_dir() / "dogs"
    what = "folder dogs (COURSE_DATA)"
    if not folder.exists():
        size = 320 if resolution > 160 else 160
        folder = data_dir() / f"imagewoof2-{size}"
        what = f"Imagewoof-{size}, {fetch_imagewoof(folder)} in COURSE_DATA"
    dogs = load_image_folder(folder, resolution, split)
    return replace(dogs, source=f"{len(dogs):,} photos of {what}")
