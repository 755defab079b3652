"""What devices can do at most, as data: dense peaks, memory bandwidth, size and power, each with its source.

Peaks are dense. Data sheets print figures for matrices that are half zeros beside or instead of them, twice as high;
where a sheet has only those, half of it stands here, and the source says so. A multiplication and an addition are two
operations, and the accumulator is FP32 or INT32 (a GeForce accumulates in FP16 at twice the rate). FP32 is the rate of
the ordinary units of NVIDIA's devices, which have no FP32 among their matrix instructions.
NVIDIA's sheets were read as public tables reproduce them: `gpu_specs.py` of github.com/ScalingIntelligence/KernelBench
and github.com/gmasse/gpu-specs, and glennklockwood.com for the H100.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

TERA, GIGA = 1e12, 1e9
NUMBER_FORMATS = ("FP32", "FP16", "FP8", "INT8", "FP4", "INT4")  # FP16 stands for BF16 too, which is as fast


@dataclass(frozen=True)
class Hardware:
    """A device: `peaks` in operations/s by number format, `bandwidth` in bytes/s, `memory` in bytes, `power` in W.

    A peak of None says that there is no such instruction. A format that is not in `peaks`, and a memory or power
    of None, says that no source was found.
    """

    name: str
    bandwidth: float
    peaks: Mapping[str, float | None] = field(default_factory=dict)
    memory: float | None = None
    power: float | None = None
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.bandwidth > 0:
            raise ValueError(f"the bandwidth of {self.name} is {self.bandwidth} bytes/s, not above 0")
        if unknown := sorted(self.peaks.keys() - set(NUMBER_FORMATS)):
            raise ValueError(f"number format {unknown[0]!r} of {self.name} is not one of {', '.join(NUMBER_FORMATS)}")

    def peak(self, number_format: str) -> float:
        """Dense operations per second in a number format.

        Raises ValueError where the device has no such matrix instruction, and where no source for its peak was found.

        >>> HARDWARE["A100 80GB SXM"].peak("INT4") / HARDWARE["A100 80GB SXM"].peak("FP16")
        4.0
        >>> HARDWARE["H100 SXM"].peak("INT4")
        Traceback (most recent call last):
        ValueError: H100 SXM has no INT4 matrix instruction, only FP32, FP16, FP8, INT8
        """
        if number_format not in NUMBER_FORMATS:
            raise ValueError(f"number format {number_format!r} is not one of {', '.join(NUMBER_FORMATS)}")
        if number_format not in self.peaks:
            raise ValueError(f"no sourced peak is known for {number_format} on {self.name}")
        peak = self.peaks[number_format]
        if peak is None:
            has = ", ".join(name for name in NUMBER_FORMATS if self.peaks.get(name))
            raise ValueError(f"{self.name} has no {number_format} matrix instruction, only {has}")
        return peak

    def formats(self) -> list[str]:
        """The number formats that have a matrix instruction with a known peak, the widest first."""
        return [name for name in NUMBER_FORMATS if self.peaks.get(name)]


def dram_bandwidth(transfers_per_second: float, bus_bits: int) -> float:
    """The peak bandwidth of memory in bytes/s: transfers per second on each of `bus_bits` wires.

    >>> dram_bandwidth(5600e6, 2 * 64) / 1e9  # DDR5-5600 in two channels
    89.6
    >>> dram_bandwidth(21e9, 384) / 1e9  # the GDDR6X of an RTX 4090
    1008.0
    """
    return transfers_per_second * bus_bits / 8


def _tera(**peaks: float | None) -> dict[str, float | None]:
    return {name: None if peak is None else peak * TERA for name, peak in peaks.items()}


_HOPPER = _tera(FP32=67, FP16=989, FP8=1979, INT8=1979, FP4=None, INT4=None)  # it dropped Ampere's INT4
_NO_INT4_ON_HOPPER = "no INT4 on Hopper: nunchux-ai/nunchaku#62, IST-DASLab/marlin#4"

HARDWARE: dict[str, Hardware] = {
    device.name: device
    for device in (
        Hardware(
            "T4",
            dram_bandwidth(10e9, 256),
            _tera(FP32=8.1, FP16=65, FP8=None, INT8=130, FP4=None, INT4=260),
            memory=16 * GIGA,
            power=70,
            sources=(
                "peaks, memory, power: NVIDIA T4 data sheet",
                "bandwidth: 256 bits at 10 Gbit/s; NVIDIA's product page rounds it to 300 GB/s",
            ),
        ),
        Hardware(
            "A10",
            600 * GIGA,
            _tera(FP32=31.2, FP16=125, FP8=None, INT8=250, FP4=None, INT4=500),
            memory=24 * GIGA,
            power=150,
            sources=("NVIDIA A10 data sheet",),
        ),
        Hardware(
            "A100 80GB SXM",
            2039 * GIGA,
            _tera(FP32=19.5, FP16=312, FP8=None, INT8=624, FP4=None, INT4=1248),
            memory=80 * GIGA,
            power=400,
            sources=(
                "NVIDIA A100 80GB data sheet",
                "INT4: NVIDIA A100 Tensor Core GPU Architecture, peak rates of the A100 beside the V100",
            ),
        ),
        Hardware(
            "RTX 4090",
            dram_bandwidth(21e9, 384),
            _tera(FP32=82.6, FP16=165.2, FP8=330.3, INT8=660.6, FP4=None, INT4=1321.2),
            memory=24 * GIGA,
            power=450,
            sources=(
                "FP16, FP8, INT8: NVIDIA Ada GPU Architecture 2.1, appendix A, with FP32 accumulation",
                "FP32, INT4, memory, bandwidth, power: waredb.com/processor/nvidia-geforce-rtx-4090",
            ),
        ),
        Hardware(
            "L4",
            300 * GIGA,
            _tera(FP32=30.3, FP16=121, FP8=242.5, INT8=242.5, FP4=None),
            memory=24 * GIGA,
            power=72,
            sources=("NVIDIA L4 product page; its peaks but FP32's are with sparsity, 242 and 485, here halved",),
        ),
        Hardware(
            "L40S",
            864 * GIGA,
            _tera(FP32=91.6, FP16=362.05, FP8=733, INT8=733, FP4=None, INT4=733),
            memory=48 * GIGA,
            power=350,
            sources=("NVIDIA L40S data sheet, which gives INT4 the rate of INT8",),
        ),
        Hardware(
            "H100 SXM",
            3350 * GIGA,
            _HOPPER,
            memory=80 * GIGA,
            power=700,
            sources=("NVIDIA H100 data sheet; its peaks but FP32's are with sparsity, here halved", _NO_INT4_ON_HOPPER),
        ),
        Hardware(
            "H200 SXM",
            4800 * GIGA,
            _HOPPER,
            memory=141 * GIGA,
            power=700,
            sources=(
                "NVIDIA H200 product page; its peaks but FP32's are with sparsity, here halved",
                _NO_INT4_ON_HOPPER,
            ),
        ),
        Hardware(
            "B200 SXM",
            8000 * GIGA,
            _tera(FP16=2250, FP8=4500, INT8=4500, FP4=9000, INT4=None),
            memory=180 * GIGA,
            power=1000,
            sources=(
                "FP16, INT8, power: glennklockwood.com/garden/processors/B200, HGX at 1,000 W, from NVIDIA's brief",
                "FP8, FP4, memory, bandwidth: NVIDIA DGX B200 product page, an eighth of the system, dense",
                "no INT4: the same tables list FP4 and INT8 alone below 16 bits",
            ),
        ),
        Hardware(
            "MI300X",
            5300 * GIGA,
            _tera(FP32=163.4, FP16=1307.4, FP8=2614.9, INT8=2614.9, FP4=None),
            memory=192 * GIGA,
            power=750,
            sources=("AMD CDNA 3 architecture white paper, matrix rates", "power: AMD Instinct MI300X product page"),
        ),
        Hardware("M2 Max", 400 * GIGA, memory=96 * GIGA, sources=("Apple, announcement of M2 Pro and M2 Max, 2023",)),
        Hardware(
            "Core i9-13900K, DDR5-5600",
            dram_bandwidth(5600e6, 2 * 64),
            memory=192 * GIGA,
            sources=("Intel, specifications of the Core i9-13900K: 2 channels, 89.6 GB/s, 192 GB at most",),
        ),
    )
}
