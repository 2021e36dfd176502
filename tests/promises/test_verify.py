"""Damage to a finished run is found, wherever it is stored, and in every format."""

import time

import classifiers as known
import pytest

import dask_classifier as dc
from dask_classifier import storage
from dask_classifier.errors import DamagedRun
from dask_classifier.parts.formats import FORMATS
from dask_classifier.parts.run_folder import RunFolder


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path)
    request.getfixturevalue("s3")
    return f"s3://bucket/verify-{time.time_ns()}"


class Damaged:
    """A run of three parts, of which the last one has a bad row, and one of other rows; both can be damaged."""

    def __init__(self, place, tmp_path, part_format):
        (tmp_path / "one.csv").write_text("id,x\n" + "".join(f"{row},a\n" for row in range(299)) + "299,a,b\n")
        (tmp_path / "other.csv").write_text("id,x\n" + "".join(f"{row},b\n" for row in range(300)))
        options = {"classifier": known.lengths, "output_format": part_format, "block_rows": 100, "max_bad": 1}
        self.suffix, self.folder, self.other = part_format, RunFolder(f"{place}/one"), RunFolder(f"{place}/other")
        self.result = dc.run(dc.plan(tmp_path / "one.csv", output=self.folder.url, **options), "inline")
        dc.run(dc.plan(tmp_path / "other.csv", output=self.other.url, **options), "inline")

    def part(self, number):
        return f"parts/part-{number:05d}.{self.suffix}"

    def cut_off(self):
        self.folder.write(self.part(1), self.folder.read(self.part(1))[:-1])

    def change_a_byte(self):
        data = bytearray(self.folder.read(self.part(1)))
        data[len(data) // 2] ^= 1
        self.folder.write(self.part(1), bytes(data))

    def exchange_two(self):
        first, second = self.folder.read(self.part(0)), self.folder.read(self.part(1))
        self.folder.write(self.part(0), second)
        self.folder.write(self.part(1), first)

    def take_the_part_of_another_run(self):
        """With its receipt, which fits it."""
        for name in (self.part(1), "parts/part-00001.json"):
            self.folder.write(name, self.other.read(name))

    def lose_a_part(self):
        self.folder.delete(self.part(1))

    def lose_a_receipt(self):
        self.folder.delete("parts/part-00001.json")

    def lose_the_quarantine(self):
        self.folder.delete("quarantine/part-00002.csv.gz")

    def change_the_quarantine(self):
        self.folder.write("quarantine/part-00002.csv.gz", self.folder.read(self.part(0)))

    def add_a_part(self):
        self.folder.write(self.part(9), self.folder.read(self.part(1)))

    def add_a_receipt(self):
        self.folder.write("parts/part-00009.json", self.folder.read("parts/part-00001.json"))


WORDS = {
    "cut_off": "does not match its receipt",
    "change_a_byte": "does not match its receipt",
    "exchange_two": "does not match its receipt",
    "take_the_part_of_another_run": "does not match its receipt",
    "lose_a_part": "is missing",
    "lose_a_receipt": "is missing",
    "lose_the_quarantine": "is missing",
    "change_the_quarantine": "does not match its receipt",
    "add_a_part": "does not belong",
    "add_a_receipt": "does not belong",
}


@pytest.mark.parametrize("part_format", FORMATS)
def test_each_damage_is_found(place, tmp_path, part_format):
    run = Damaged(place, tmp_path, part_format)
    stored = {name: run.folder.read(name) for name in run.folder.sizes()}
    assert run.result.verify().rows == 299
    for damage, words in WORDS.items():
        getattr(run, damage)()
        with pytest.raises(DamagedRun, match=words):
            dc.open_run(run.folder.url).verify()
            pytest.fail(f"{damage} was not found")
        for name in set(run.folder.sizes()) - set(stored):
            storage.delete(run.folder.path(name))
        for name, data in stored.items():
            run.folder.write(name, data)
    assert dc.open_run(run.folder.url).verify() == run.result.verify()
