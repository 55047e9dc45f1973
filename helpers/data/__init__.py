"""Data sets, from files to batches.  The names below are imported where they are first used."""

from helpers import lazy_exports

__getattr__ = lazy_exports(
    __name__,
    augment=("crop_and_flip", "random_crop", "random_flip", "random_shift"),
    datasets=("load_digits", "load_dogs", "load_mnist"),
    image_folder=("load_image_folder",),
    image_set=("ImageSet",),
    loader=("Batches", "in_chunks"),
    synthetic_dogs=("SyntheticDogs", "draw_dog", "load_synthetic_dogs"),
)
