"""The splits of a folder: by the names alone, and in small folders none of them is empty."""

import hashlib
import random
from pathlib import Path

import pytest

from helpers.data.image_file import ImageFile
from helpers.data.splits import FEWEST, LEAST, SPLITS, split_groups, split_of


def folder(count: int, seed: int = 0) -> list[str]:
    """Names such as cameras give them, sorted."""
    rng = random.Random(seed)
    return sorted(f"IMG_{number}.jpg" for number in rng.sample(range(10_000), count))


def splits(names: list[str], broken: tuple[str, ...] = ()) -> dict[str, list[str]] | None:
    """{split: its names}."""
    groups = [[ImageFile(name, Path(name), name)] for name in names]
    parts = split_groups(groups, lambda group: group[0].name not in broken)
    return parts and {split: [group[0].name for group in parts[split]] for split in SPLITS}


def by_name(names: list[str]) -> dict[str, list[str]]:
    return {split: [name for name in names if split_of(name) == split] for split in SPLITS}


def test_the_name_alone_decides_on_the_split():
    golden = {"more/001.png": "train", "a.jpg": "train", "00000.jpg": "train"}
    assert {name: split_of(name) for name in golden} == golden

    names = [f"folder/{i:05}.jpg" for i in range(20_000)]
    parts = [split_of(name) for name in names]
    for part, share in (("train", 0.85), ("validation", 0.05), ("test", 0.1)):
        assert parts.count(part) / len(parts) == pytest.approx(share, abs=0.01)
    for name, part in zip(names[:200], parts):
        number = int(hashlib.md5(name.encode()).hexdigest()[:16], 16) / 16**16
        assert part == ("train" if number < 0.85 else "validation" if number < 0.9 else "test")


def test_a_large_folder_is_split_by_its_names_and_few_of_its_files_are_read():
    names = folder(3000)
    asked = []
    groups = [[ImageFile(name, Path(name), name)] for name in names]
    parts = split_groups(groups, lambda group: not asked.append(group[0].name))
    found = {split: [group[0].name for group in parts[split]] for split in SPLITS}
    assert found == by_name(names) and len(asked) == FEWEST


def test_200_folders_of_20_photos_and_all_smaller_ones_have_what_each_split_needs():
    folders = [folder(20, seed) for seed in range(200)]
    folders += [folder(count, seed) for count in range(FEWEST, 20) for seed in range(20)]
    moved = 0
    for names in folders:
        parts = splits(names)
        assert sorted(sum(parts.values(), [])) == names
        assert all(len(parts[split]) >= LEAST[split] for split in SPLITS)
        whole = by_name(names)
        if all(len(whole[split]) >= LEAST[split] for split in SPLITS):
            assert parts == whole
        else:
            moved += 1
    assert moved > 100
    assert splits(folder(FEWEST - 1)) is None and splits([]) is None


def test_a_small_folder_moves_as_few_as_possible_and_those_nearest_to_the_limit():
    names = [f"{i}.jpg" for i in range(60) if split_of(f"{i}.jpg") == "train"][:12]
    parts = splits(names)
    assert [len(parts[split]) for split in SPLITS] == [9, 1, 2]

    def number(name: str) -> str:
        return hashlib.md5(name.encode()).hexdigest()

    ranked = sorted(names, key=number)
    assert parts["validation"] == [ranked[9]] and set(parts["test"]) == set(ranked[10:])


def test_a_photo_that_is_added_moves_two_at_most_and_none_out_of_the_training():
    for seed in range(300):
        names = folder(4 + seed % 40, seed)
        before = splits(names)
        after = splits([*names, f"new-{seed}.jpg"])
        stayed = {split: set(before[split]) & set(after[split]) for split in SPLITS}
        assert len(names) - sum(map(len, stayed.values())) <= 2
        assert stayed["train"] == set(before["train"])


@pytest.mark.parametrize("split", SPLITS)
def test_files_that_cannot_be_read_count_for_no_split(split):
    names = folder(60)
    broken = tuple(by_name(names)[split])
    parts = splits(names, broken)
    for each in SPLITS:
        good = [name for name in parts[each] if name not in broken]
        assert len(good) >= LEAST[each]
    assert set(broken) <= set(parts[split]), "they are listed where their names put them"
