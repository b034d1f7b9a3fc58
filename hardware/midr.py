"""Names of Arm cores by the numbers in their main ID register (MIDR_EL1).

The names are those lscpu prints, so that the two can be compared (util-linux sys-utils/lscpu-arm.c @
39465c780eed, read as a source of facts). What a core is good for (`EFFICIENCY`, `NEVER_MIXED`,
`ONE_KIND_A_CLUSTER`) comes from the vendors' manuals: Arm Cortex-A Comparison Table; big.LITTLE and DynamIQ
technical overviews.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

_ARM = """
810=ARM810 920=ARM920 922=ARM922 926=ARM926 940=ARM940 946=ARM946 966=ARM966 a20=ARM1020 a22=ARM1022
a26=ARM1026 b02=ARM11-MPCore b36=ARM1136 b56=ARM1156 b76=ARM1176 c05=Cortex-A5 c07=Cortex-A7 c08=Cortex-A8
c09=Cortex-A9 c0d=Cortex-A17 c0e=Cortex-A17 c0f=Cortex-A15 c14=Cortex-R4 c15=Cortex-R5 c17=Cortex-R7
c18=Cortex-R8 c20=Cortex-M0 c21=Cortex-M1 c23=Cortex-M3 c24=Cortex-M4 c27=Cortex-M7 c60=Cortex-M0+
d01=Cortex-A32 d02=Cortex-A34 d03=Cortex-A53 d04=Cortex-A35 d05=Cortex-A55 d06=Cortex-A65 d07=Cortex-A57
d08=Cortex-A72 d09=Cortex-A73 d0a=Cortex-A75 d0b=Cortex-A76 d0c=Neoverse-N1 d0d=Cortex-A77 d0e=Cortex-A76AE
d13=Cortex-R52 d14=Cortex-R82AE d15=Cortex-R82 d16=Cortex-R52+ d20=Cortex-M23 d21=Cortex-M33 d22=Cortex-M55
d23=Cortex-M85 d24=Cortex-M52 d40=Neoverse-V1 d41=Cortex-A78 d42=Cortex-A78AE d43=Cortex-A65AE d44=Cortex-X1
d46=Cortex-A510 d47=Cortex-A710 d48=Cortex-X2 d49=Neoverse-N2 d4a=Neoverse-E1 d4b=Cortex-A78C d4c=Cortex-X1C
d4d=Cortex-A715 d4e=Cortex-X3 d4f=Neoverse-V2 d80=Cortex-A520 d81=Cortex-A720 d82=Cortex-X4
d83=Neoverse-V3AE d84=Neoverse-V3 d85=Cortex-X925 d87=Cortex-A725 d88=Cortex-A520AE d89=Cortex-A720AE
d8a=C1-Nano d8b=C1-Pro d8c=C1-Ultra d8e=Neoverse-N3 d8f=Cortex-A320 d90=C1-Premium
"""
_CAVIUM = """
0a0=ThunderX 0a1=ThunderX-88XX 0a2=ThunderX-81XX 0a3=ThunderX-83XX 0af=ThunderX2-99xx 0b0=OcteonTX2
0b1=OcteonTX2-98XX 0b2=OcteonTX2-96XX 0b3=OcteonTX2-95XX 0b4=OcteonTX2-95XXN 0b5=OcteonTX2-95XXMM
0b6=OcteonTX2-95XXO 0b8=ThunderX3-T110
"""
_HISILICON = """
d01=Kunpeng-920 d02=Kunpeng-920 d03=Kunpeng-920 d06=Kunpeng-950 d22=Kunpeng-920 d40=Cortex-A76 d41=Cortex-A77
"""
_QUALCOMM = """
001=Oryon 00f=Scorpion 02d=Scorpion 04d=Krait 06f=Krait 201=Kryo 205=Kryo 211=Kryo 800=Falkor-V1/Kryo
801=Kryo-V2 802=Kryo-3XX-Gold 803=Kryo-3XX-Silver 804=Kryo-4XX-Gold 805=Kryo-4XX-Silver c00=Falkor c01=Saphira
"""
_APPLE = """
000=Swift 001=Cyclone 002=Typhoon 003=Typhoon/Capri 004=Twister 005=Twister/Elba/Malta 006=Hurricane
007=Hurricane/Myst 008=Monsoon 009=Mistral 00b=Vortex 00c=Tempest 00f=Tempest-M9 010=Vortex/Aruba
011=Tempest/Aruba 012=Lightning 013=Thunder 020=Icestorm-A14 021=Firestorm-A14 022=Icestorm-M1
023=Firestorm-M1 024=Icestorm-M1-Pro 025=Firestorm-M1-Pro 026=Thunder-M10 028=Icestorm-M1-Max
029=Firestorm-M1-Max 030=Blizzard-A15 031=Avalanche-A15 032=Blizzard-M2 033=Avalanche-M2 034=Blizzard-M2-Pro
035=Avalanche-M2-Pro 036=Sawtooth-A16 037=Everest-A16 038=Blizzard-M2-Max 039=Avalanche-M2-Max
"""
_INTEL = """
200=i80200 210=PXA250A 212=PXA210A 242=i80321-400 243=i80321-600 290=PXA250B/PXA26x 292=PXA210B
2c2=i80321-400-B0 2c3=i80321-600-B0 2d0=PXA250C/PXA255/PXA26x 2d2=PXA210C 411=PXA27x 41c=IPX425-533
41d=IPX425-400 41f=IPX425-266 682=PXA32x 683=PXA930/PXA935 688=PXA30x 689=PXA31x b11=SA1110 c12=IPX1200
"""
_TABLE = {
    0x41: ("ARM", _ARM),
    0x42: ("Broadcom", "00f=Brahma-B15 100=Brahma-B53 516=ThunderX2"),
    0x43: ("Cavium", _CAVIUM),
    0x44: ("DEC", "a10=SA110 a11=SA1100"),
    0x46: ("FUJITSU", "001=A64FX 003=MONAKA"),
    0x48: (
        "HiSilicon",
        _HISILICON,
    ),
    0x49: ("Infineon", ""),
    0x4D: ("Motorola/Freescale", ""),
    0x4E: ("NVIDIA", "000=Denver 003=Denver-2 004=Carmel 010=Olympus"),
    0x50: ("APM", "000=X-Gene"),
    0x51: ("Qualcomm", _QUALCOMM),
    0x53: ("Samsung", "001=exynos-m1 002=exynos-m3 003=exynos-m4 004=exynos-m5"),
    0x56: ("Marvell", "131=Feroceon-88FR131 581=PJ4/PJ4b 584=PJ4B-MP"),
    0x61: ("Apple", _APPLE),
    0x66: ("Faraday", "526=FA526 626=FA626"),
    0x69: ("Intel", _INTEL),
    0x6D: ("Microsoft", "d49=Azure-Cobalt-100"),
    0x70: ("Phytium", "303=FTC310 660=FTC660 661=FTC661 662=FTC662 663=FTC663 664=FTC664 862=FTC862"),
    0xC0: ("Ampere", "ac3=Ampere-1 ac4=Ampere-1a"),
}

# Built to save power beside faster cores. A machine made of nothing else has no little cores: it has only
# these.
_EFFICIENCY_ARM = frozenset((0xC07, 0xD01, 0xD02, 0xD03, 0xD04, 0xD05, 0xD46, 0xD80, 0xD88, 0xD8A, 0xD8F))
_EFFICIENCY_OTHER = frozenset(
    [(0x51, 0x801), (0x51, 0x803), (0x51, 0x805), (0x70, 0x303), (0x42, 0x100)]
    # Apple: Mistral, Tempest, Thunder, Icestorm, Blizzard, Sawtooth.
    + [(0x61, part) for part in (0x009, 0x00C, 0x00F, 0x011, 0x013, 0x026)]
    + [(0x61, part) for part in (0x020, 0x022, 0x024, 0x028, 0x030, 0x032, 0x034, 0x036, 0x038)]
)
# The first big.LITTLE systems came with the Cortex-A7. Before it, and in these families, all cores are of
# one kind.
_NEVER_MIXED_ARM = frozenset((0xC05, 0xC08, 0xC09))
_NEVER_MIXED_OTHER = frozenset([(0x51, 0x00F), (0x51, 0x02D), (0x51, 0x04D), (0x51, 0x06F), (0x4E, 0x000)])
# Before DynamIQ (Cortex-A55 and A75, 2017) the cores of one cluster were of one kind.
_BEFORE_DYNAMIQ_ARM = frozenset((0xC07, 0xC0D, 0xC0E, 0xC0F, 0xD01, 0xD02, 0xD03, 0xD04, 0xD07, 0xD08, 0xD09))


@dataclass(frozen=True)
class Midr:
    """What identifies an Arm core. Variant and revision (rNpM) are None where only the design is known."""

    implementer: int
    part: int
    variant: int | None = None
    revision: int | None = field(default=None, compare=False)  # errata, not another design

    @classmethod
    def from_register(cls, value: int) -> Midr:
        """Take the fields out of MIDR_EL1 (Arm ARM D19.2, 32 significant bits)."""
        return cls(value >> 24 & 0xFF, value >> 4 & 0xFFF, value >> 20 & 0xF, value & 0xF)

    @property
    def vendor(self) -> str | None:
        """The implementer's name, or None."""
        known = _TABLE.get(self.implementer)
        return known[0] if known else None

    @property
    def name(self) -> str | None:
        """The core's name, or None."""
        return _parts(self.implementer).get(self.part)

    @property
    def efficiency(self) -> bool | None:
        """Whether this design is the little one wherever it is mixed; None for unknown designs."""
        if self.implementer == 0x41:
            return self.part in _EFFICIENCY_ARM if self.name else None
        if (self.implementer, self.part) in _EFFICIENCY_OTHER:
            return True
        return False if self.name else None

    @property
    def never_mixed(self) -> bool:
        """Whether machines with this core have no other kind of core."""
        if self.implementer == 0x41:
            return self.part in _NEVER_MIXED_ARM or self.part < 0xC00
        return self.implementer == 0x69 or (self.implementer, self.part) in _NEVER_MIXED_OTHER

    @property
    def one_kind_a_cluster(self) -> bool:
        """Whether all cores of the cluster that this core is in are of its kind."""
        return self.never_mixed or (self.implementer == 0x41 and self.part in _BEFORE_DYNAMIQ_ARM)


@cache
def _parts(implementer: int) -> dict[int, str]:
    words = _TABLE.get(implementer, ("", ""))[1].split()
    return {int(number, 16): name for number, _, name in (word.partition("=") for word in words)}


@cache
def _compatibles() -> dict[str, Midr]:
    return {f"arm,{name.lower()}": Midr(0x41, part) for part, name in _parts(0x41).items()}


def from_compatible(compatible: str) -> Midr | None:
    """Return the core that a device tree's `arm,cortex-a53` means, or None for words like `arm,armv8`."""
    return _compatibles().get(compatible.strip().lower())
