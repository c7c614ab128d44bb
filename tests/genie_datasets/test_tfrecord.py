"""TFRecord framing and the parser of tf.train.Example, on bytes written by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie_datasets.sources.rlds.example import bytes_spans, feature_spans, floats, ints, texts
from genie_datasets.sources.rlds.tfrecord import DamagedRecord, frame_record, masked_crc32c, record_spans

RECORDS = st.lists(st.binary(max_size=300), max_size=5)


def test_crc32c_has_the_value_of_the_standard():
    crc = 0xE3069283  # of "123456789", with the polynomial of RFC 3720
    assert masked_crc32c(b"123456789") == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@given(RECORDS)
def test_records_come_back(records):
    shard = b"".join(map(frame_record, records))
    assert [shard[a:b] for a, b in record_spans(shard)] == records


@given(RECORDS.filter(bool), st.data())
def test_a_cut_shard_is_an_error_unless_it_is_cut_between_records(records, data):
    framed = [frame_record(record) for record in records]
    shard = b"".join(framed)
    cut = data.draw(st.integers(1, len(shard) - 1))
    boundaries = set(np.cumsum([len(f) for f in framed]).tolist())
    if cut in boundaries:
        assert len(list(record_spans(shard[:cut]))) < len(records)
    else:
        with pytest.raises(DamagedRecord, match="cut off"):
            list(record_spans(shard[:cut]))


@given(st.binary(min_size=1, max_size=50), st.integers(0, 12 * 8 - 1))
def test_any_flipped_bit_of_the_header_is_an_error(record, bit):
    shard = bytearray(frame_record(record))
    shard[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DamagedRecord):
        list(record_spans(bytes(shard)))


@given(
    st.lists(st.binary(max_size=300), max_size=6),
    st.lists(st.floats(width=32, allow_nan=False), max_size=6),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=6),
)
def test_every_kind_of_feature_comes_back(kit, images, numbers, counts):
    record = kit.encode_example(
        {"steps/image": images, "steps/x": np.array(numbers, "f4"), "n": np.array(counts, "i8"), "text": [b"a", b"b"]}
    )
    spans = feature_spans(record, 0, len(record))
    assert list(spans) == ["steps/image", "steps/x", "n", "text"]
    assert [record[a:b] for a, b in bytes_spans(record, spans["steps/image"])] == images
    np.testing.assert_array_equal(floats(record, spans["steps/x"]), np.array(numbers, "f4"))
    np.testing.assert_array_equal(ints(record, spans["n"]), np.array(counts, "i8"))
    assert texts(record, spans["text"]) == ["a", "b"]


def test_floats_of_old_writers_that_are_not_packed(kit):
    record = kit.unpacked_floats("x", [1.5, -2.0])
    np.testing.assert_array_equal(floats(record, feature_spans(record, 0, len(record))["x"]), [1.5, -2.0])


def test_bytes_that_are_not_an_example_are_named_with_their_place():
    with pytest.raises(DamagedRecord, match=r"no tf.train.Example at byte 0"):
        feature_spans(b"not a protocol buffer", 0, 21)
