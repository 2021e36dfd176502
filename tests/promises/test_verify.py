"""Damage to a finished run is found."""

import pytest

import dask_classifier as dc
from dask_classifier.errors import (
    DamagedRun,
)


def test_damage_is_found_by_verify(cluster, tmp_path, classifiers):
    options = {"rows": 300, "output": tmp_path / "run", "classifier": classifiers("lengths"), "block_rows": 100}
    result = dc.run(dc.plan(**options), cluster)
    part = tmp_path / "run/parts/part-00001.csv.gz"
    dc.run(dc.plan(**options | {"output": tmp_path / "another", "seed": 1}), cluster)
    other = tmp_path / "another/parts/part-00001.csv.gz"
    whole = part.read_bytes()
    for damage, match in [
        (lambda: part.write_bytes(whole[:-1]), "does not match its receipt"),
        (lambda: part.write_bytes(whole[:-9] + bytes(9)), "does not match its receipt"),
        (part.unlink, "is missing"),
        (lambda: part.write_bytes(other.read_bytes()), "does not match its receipt"),
        (lambda: part.write_bytes(part.with_name("part-00002.csv.gz").read_bytes()), "does not match its receipt"),
        (lambda: (tmp_path / "run/parts/part-00009.csv.gz").write_bytes(whole), "does not belong"),
    ]:
        damage()
        with pytest.raises(DamagedRun, match=match):
            result.verify()
        part.write_bytes(whole)
    (tmp_path / "run/parts/part-00009.csv.gz").unlink()
    result.verify()
