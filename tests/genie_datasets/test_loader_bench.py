"""The loading benchmark runs every reader over the same real files. `make bench` measures the speeds."""

import json

from genie_datasets.bench import run


def test_every_reader_takes_part(realdata, capsys):
    ratios = run(realdata / "octo_bridge_rlds", json=True, seconds=0.02)
    assert json.loads(capsys.readouterr().out) == ratios
    assert list(ratios) == ["naive", "rlds_batch", "index", "uint8_cache", "mp4", "pyav"]
    assert ratios["naive"] == 1
    assert all(ratio > 0 for ratio in ratios.values())
