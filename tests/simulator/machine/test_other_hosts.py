"""macOS and Windows hosts from fake system reports; nothing here depends on the local machine."""

from roofcast.simulator.machine.host import Cache
from roofcast.simulator.machine.other_hosts import mac, windows

M2 = {
    "machdep.cpu.brand_string": "Apple M2 Pro",
    "hw.physicalcpu": "10",
    "hw.perflevel0.l1dcachesize": "131072",
    "hw.perflevel0.l2cachesize": "16777216",
    "hw.perflevel0.cpusperl2": "5",
    "hw.l2cachesize": "4194304",
    "hw.memsize": "17179869184",
    "hw.optional.AdvSIMD": "1",
    "kern.osproductversion": "14.5",
}
INTEL = {
    "machdep.cpu.brand_string": "Intel(R) Core(TM) i7-9750H",
    "machdep.cpu.vendor": "GenuineIntel",
    "hw.physicalcpu": "6",
    "hw.l1dcachesize": "32768",
    "hw.l2cachesize": "262144",
    "hw.l3cachesize": "12582912",
    "hw.cpufrequency_max": "2600000000",
    "machdep.cpu.features": "FPU SSE4.2 AVX1.0 FMA",
    "machdep.cpu.leaf7_features": "AVX2 SMEP",
}


def test_an_apple_chip_is_described_by_sysctl():
    host = mac(M2, threads=10)
    assert (host.name, host.vendor, host.cores) == ("Apple M2 Pro", "Apple", 10)
    assert (host.memory, host.clock, host.isa) == (2**34, None, ("neon",))
    assert host.caches == {"l1": Cache(131072, 10), "l2": Cache(2**24, 2)}


def test_an_intel_mac_is_described_by_sysctl():
    host = mac(INTEL, threads=12)
    assert (host.vendor, host.cores, host.clock) == ("Intel", 6, 2.6e9)
    assert host.isa == ("avx", "avx2", "fma")
    assert host.caches == {"l1": Cache(32768, 6), "l2": Cache(262144, 6), "l3": Cache(12582912, 1)}


def test_windows_is_described_by_its_registry():
    registry = {
        "ProcessorNameString": "AMD  Ryzen 9 ",
        "VendorIdentifier": "AuthenticAMD",
        "~MHz": 3400,
    }
    host = windows({"PROCESSOR_ARCHITECTURE": "AMD64"}, registry, 24)
    assert (host.name, host.vendor, host.architecture) == ("AMD Ryzen 9", "AMD", "AMD64")
    assert (host.clock, host.threads) == (3.4e9, 24)
    assert host.caches == {} and host.memory is None


def test_hosts_that_report_nothing_have_a_name_and_threads():
    for host in (mac({}, 4), windows({}, {}, 4)):
        assert host.name and host.threads == host.cores == 4
        assert host.caches == {} and host.memory is None and host.clock is None
