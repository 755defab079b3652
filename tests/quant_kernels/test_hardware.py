"""Hardware as data: figures that hang together, and errors that tell what is missing from what is unknown."""

import copy

import pytest

from quant_kernels.hardware import HARDWARE, NUMBER_FORMATS, Hardware, dram_bandwidth

DEVICES = HARDWARE.values()


def test_every_figure_has_a_source_and_a_plausible_size():
    for device in DEVICES:
        assert device.sources and all(device.sources)
        assert 50e9 < device.bandwidth < 10e12
        assert device.memory is None or 10e9 < device.memory < 200e9
        assert device.power is None or 50 < device.power <= 1000
        assert all(1e12 < device.peak(name) < 1e16 for name in device.formats())


def test_no_peak_is_that_of_sparse_matrices():
    dense = {"A100 80GB SXM": 312, "H100 SXM": 989, "H200 SXM": 989, "L4": 121, "L40S": 362.05, "B200 SXM": 2250}
    assert {name: HARDWARE[name].peak("FP16") / 1e12 for name in dense} == dense
    for device in DEVICES:
        peaks = [device.peak(name) for name in ("FP16", "INT8") if device.peaks.get(name)]
        assert len(peaks) < 2 or 1.99 <= peaks[1] / peaks[0] <= 4, device.name  # GeForce accumulates FP16 slowly


def test_instructions_that_do_not_exist_are_none():
    ampere, hopper, blackwell = HARDWARE["A100 80GB SXM"], HARDWARE["H100 SXM"], HARDWARE["B200 SXM"]
    assert ampere.formats() == ["FP32", "FP16", "INT8", "INT4"] and ampere.peak("INT4") == 1248e12
    assert hopper.formats() == ["FP32", "FP16", "FP8", "INT8"]
    assert blackwell.peak("FP4") == 2 * blackwell.peak("FP8")
    with pytest.raises(ValueError, match="B200 SXM has no INT4 matrix instruction, only FP16, FP8, INT8, FP4"):
        blackwell.peak("INT4")


def test_what_was_not_found_is_not_taken_for_what_does_not_exist():
    with pytest.raises(ValueError, match="no sourced peak is known for FP16 on M2 Max"):
        HARDWARE["M2 Max"].peak("FP16")
    with pytest.raises(ValueError, match="number format 'FP6' is not one of FP32, FP16, FP8, INT8, FP4, INT4"):
        HARDWARE["M2 Max"].peak("FP6")


def test_bandwidths_follow_from_the_bus():
    assert HARDWARE["RTX 4090"].bandwidth == 1008e9
    assert HARDWARE["Core i9-13900K, DDR5-5600"].bandwidth == 89.6e9
    assert dram_bandwidth(6400e6, 128) == 102.4e9


def test_a_device_of_ones_own():
    mine = Hardware("mine", 50e9, {"FP32": 1e12})
    assert mine.formats() == ["FP32"] and mine.memory is None
    assert copy.deepcopy(mine) == mine
    with pytest.raises(ValueError, match="the bandwidth of mine is 0 bytes/s, not above 0"):
        Hardware("mine", 0)
    with pytest.raises(ValueError, match="number format 'FP64' of mine is not one of FP32"):
        Hardware("mine", 1e9, {"FP64": 1e12})


def test_number_formats_are_listed_the_widest_first():
    assert [int(name.lstrip("FPINT")) for name in NUMBER_FORMATS] == [32, 16, 8, 8, 4, 4]
