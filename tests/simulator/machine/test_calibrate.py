"""Calibration of simulated machines, with their own clock, /proc and /sys; no real time counts."""

import pytest

from roofcast import hwdb
from roofcast.hwdb import names
from roofcast.simulator.machine import device_file, jobs
from roofcast.simulator.machine.calibrate import calibrate
from roofcast.simulator.machine.find import find
from roofcast.simulator.machine.host import Cache, Host
from roofcast.simulator.machine.sampling import AGREE, ROUNDS, Clock, Job, Rate, sample
from roofcast.simulator.times.rates import resolve

HOST = Host(
    name='Chip "X"',
    vendor="Acme",
    architecture="x86_64",
    system="Linux 6",
    threads=4,
    cores=2,
    memory=8 * 2**30,
    clock=2e9,
    caches={"l1": Cache(32768, 2), "l2": Cache(2**20, 2), "l3": Cache(2**24, 1)},
    isa=("avx2", "fma"),
)
BARE = HOST._replace(threads=1, cores=1, caches={}, memory=None, clock=None, isa=())


class Machine:
    """A clock that advances only with jobs: run number n of a job takes `seconds(n)`."""

    def __init__(self):
        self.now, self.runs = 0.0, 0
        self.threads = 2  # running while time passes
        self.clock = Clock(lambda: self.now, lambda: self.now, lambda: self.threads * self.now)

    def job(self, key, seconds, threads=1, amount=1.0):
        def run(repeats):
            self.runs += 1
            self.now += repeats * seconds(self.runs)

        return Job(key, threads, amount, run)

    def ceilings(self):
        """Jobs on one and on two threads that reach the rates of ceilings()."""
        return [
            self.job(key, lambda run: 1e-3, threads, rate.value / 1e3)
            for threads in (1, 2)
            for key, rate in ceilings().items()
        ]


RATES = {
    "fma32": 100e9, "fma64": 50e9, "gemm 512": 80e9, "gemm 1024": 90e9, "exp": 3e9, "erf": 2e9,
    "tanh": 2e9, "div": 6e9,
}  # fmt: skip
LEVELS = {"l1": 200e9, "l2": 100e9, "l3": 30e9, "memory": 10e9}
STREAMS = {"read": 1.0, "fill": 0.5, "copy": 0.8, "scale": 0.8, "triad": 0.9}


def ceilings(**changed):
    """Rates as a calibration measures them."""
    streams = {
        f"{level} {name}": rate * fraction
        for level, rate in LEVELS.items()
        for name, fraction in STREAMS.items()
    }
    return {key: Rate(value, 0.01, 6) for key, value in (RATES | streams | changed).items()}


def test_a_steady_machine_is_measured_exactly():
    machine = Machine()
    (rate,) = sample([machine.job("a", lambda run: 2e-6, amount=8.0)], 50, machine.clock)
    assert rate.value == pytest.approx(4e6)
    assert rate.differ == pytest.approx(0, abs=1e-9) and not rate.noisy and rate.rounds == ROUNDS


def test_one_thread_counts_the_median_round_and_all_threads_the_best():
    machine = Machine()
    slow = lambda run: 1e-2 if run % 3 else 1.5e-2  # noqa: E731
    made = [machine.job("a", slow), machine.job("b", slow, threads=2)]
    alone, together = sample(made, 50, machine.clock)
    assert alone.value == pytest.approx(100) and together.value == pytest.approx(100)


def test_differing_halves_are_noisy_and_sampling_stays_within_its_time():
    machine = Machine()
    rounds = iter(range(10**6))

    def run(repeats):
        machine.now += 0.03 if next(rounds) // 2 % 2 else 0.05

    (rate,) = sample([Job("a", 1, 1.0, run)], 4.0, machine.clock)
    assert rate.noisy and rate.differ > AGREE
    assert machine.now < 4.0


def test_a_slow_machine_still_runs_two_rounds():
    machine = Machine()
    (rate,) = sample([machine.job("a", lambda run: 100.0)], 10, machine.clock)
    assert rate.rounds == 2 and rate.value == pytest.approx(0.01)


def test_progress_names_each_job_before_it_runs():
    machine, steps = Machine(), []
    sample([machine.job("a", lambda run: 1e-3)], 10, machine.clock, steps.append)
    assert steps[:3] == ["compile a", "try a", "a"]


def put(root, files):
    """Write text files, by path under the root."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_linux_machine_is_described_by_proc_and_sys(tmp_path):
    cpuinfo = "vendor_id\t: AuthenticAMD\nmodel name\t: Zen  9\ncpu MHz\t: 2000.0\n"
    cpuinfo += "flags\t: fpu avx2 fma avx512f ht\n\nvendor_id\t: no\n"
    put(tmp_path, {"proc/cpuinfo": cpuinfo, "proc/meminfo": "MemTotal:       16000000 kB\n"})
    cpus = tmp_path / "sys/devices/system/cpu"
    for cpu in range(4):
        core = cpu // 2
        put(cpus / f"cpu{cpu}/topology", {"thread_siblings_list": f"{2 * core}-{2 * core + 1}\n"})
        for index, level, kind, size, shared in (
            (0, "1", "Data", "48K", f"{core}"),
            (1, "1", "Instruction", "64K", f"{core}"),
            (3, "3", "Unified", "32M", "0-3"),
        ):
            cache = {"level": level, "type": kind, "size": size, "shared_cpu_list": shared}
            put(cpus / f"cpu{cpu}/cache/index{index}", cache)
    put(cpus / "cpu0/cpufreq", {"cpuinfo_max_freq": "4500000\n"})
    host = find(tmp_path, frozenset(range(4)))
    assert (host.name, host.vendor, host.cores) == ("Zen 9", "AMD", 2)
    assert (host.clock, host.memory) == (4.5e9, 16_384_000_000)
    assert host.caches == {"l1": Cache(49152, 2), "l3": Cache(2**25, 1)}
    assert host.isa == ("avx2", "avx512f", "fma")


def test_a_linux_machine_that_reports_nothing_has_a_name_and_a_thread(tmp_path):
    host = find(tmp_path, frozenset({0}))
    assert host.name and host.threads == host.cores == 1
    assert host.caches == {} and host.memory is None and host.clock is None and host.isa == ()


def test_a_container_has_the_threads_of_its_cpu_limit(tmp_path):
    put(tmp_path, {"sys/fs/cgroup/cpu.max": "200000 100000\n"})
    assert find(tmp_path, frozenset(range(8))).threads == 2


def test_working_sets_fit_the_level_they_are_named_for():
    found = jobs.sets(HOST, 4)
    assert found["l1"] < 2 * 32768 < found["l2"] < 2 * 2**20 < found["l3"] < 2**24 < found["memory"]
    assert list(jobs.sets(BARE, 1)) == ["memory"]


def test_every_job_of_one_thread_runs_and_counts_its_work(monkeypatch):
    monkeypatch.setattr(jobs, "LARGEST", 2**23)
    made = [job for job in jobs.jobs(HOST._replace(memory=2**25), quick=True) if job.threads == 1]
    assert {"fma32", "gemm 512", "l1 read", "memory triad", "exp"} <= {job.key for job in made}
    for job in made:
        job.run(1)
        assert job.amount > 0


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder of this machine's device files."""
    monkeypatch.setattr(names, "this_machine", lambda name: tmp_path / f"{name}.toml")
    return tmp_path


@pytest.mark.parametrize("host", [HOST, BARE], ids=["known", "bare"])
@pytest.mark.parametrize("alone", [False, True])
def test_a_device_file_is_read_back(home, host, alone):
    rates = {
        key: rate
        for key, rate in ceilings(fork=2e5).items()
        if key.split()[0] in (*host.caches, "memory", "gemm") or " " not in key
    }
    (home / "this-machine.toml").write_text(device_file.text(host, rates, alone, "today"))
    device = hwdb.device("this-machine")
    assert device.peak_flops["fp32"] == 100e9 and device.peak_flops["fp32"].status == "measured"
    assert device.memory.bandwidth == 10e9 and device.achieved["stream"] == pytest.approx(0.9)
    assert device.achieved["sustained_fp32"] == pytest.approx(0.9) and device.achieved["exp"] == 3e9
    assert device.achieved["fork_join"] == pytest.approx(5e-6)
    rates = resolve(device, "fp32").rates
    assert rates.special == 3e9 and rates.measured
    assert not resolve(hwdb.device("i9-10940x"), "fp32").rates.measured
    assert device.cores == (1 if alone else host.cores)
    assert set(device.cache) == set(host.caches)
    if host.caches:
        assert device.cache["l2"].capacity == (1 if alone else 2) * 2**20
        assert device.cache["l2"].bandwidth == 100e9


def test_no_kernel_exceeds_the_roofs_of_the_device_file(home):
    rates = ceilings(**{"gemm 512": 130e9, "memory copy": 14e9})
    (home / "this-machine.toml").write_text(device_file.text(HOST, rates, False, "today"))
    device = hwdb.device("this-machine", {"memory.bandwidth": "x2"})
    assert device.peak_flops["fp32"] == 130e9 and device.memory.bandwidth == 28e9
    fractions = ("matmul_fp32", "sustained_fp32", "stream", "stream_scale", "stream_write")
    assert max(device.achieved[key] for key in fractions) <= 1


def test_a_noisy_machine_is_flagged_in_its_device_file():
    noisy = {key: rate._replace(differ=0.3) for key, rate in ceilings().items()}
    text = device_file.text(HOST, noisy, False, "today")
    assert "NOISY: two halves of the rounds differ by 30%" in text
    assert "NOISY" not in device_file.text(HOST, ceilings(), False, "today")


def test_other_load_is_noticed_even_if_the_halves_agree():
    machine = Machine()
    machine.threads = 1.3  # of two
    made = machine.ceilings()
    measured = calibrate(quick=True, clock=machine.clock, host=HOST, jobs=made)
    assert measured.share == pytest.approx(0.65) and measured.differ < 0.01 and measured.noisy
    assert "the threads had 65% of the processors' time" in measured.files["this-machine"]
    assert "NOISY" not in measured.files["this-machine-1"]


def test_a_machine_without_calibration_names_the_command_to_run(home):
    for name in names.THIS_MACHINE:
        message = f"^{name}: not calibrated yet.*run: roofcast calibrate$"
        with pytest.raises(hwdb.BadInput, match=message):
            hwdb.device(name)


def test_library_products_are_measured_on_all_threads_and_on_one(home):
    machine = Machine()
    made = machine.ceilings()
    library = lambda threads: {"blas 1024": Rate(threads * 70e9, 0.01, 6)}  # noqa: E731
    files = calibrate(quick=True, clock=machine.clock, host=HOST, jobs=made, library=library).files
    for name, rate in (("this-machine", 280e9), ("this-machine-1", 70e9)):
        (home / f"{name}.toml").write_text(files[name])
        device = hwdb.device(name)
        sustained = device.achieved["sustained_fp32"] * device.peak_flops["fp32"]
        assert sustained == pytest.approx(rate, rel=1e-3)


def test_calibrate_makes_a_file_for_all_threads_and_for_one(home):
    machine = Machine()
    made = machine.ceilings()
    measured = calibrate(quick=True, clock=machine.clock, host=HOST, jobs=made)
    assert measured.differ == pytest.approx(0, abs=1e-6) and not measured.noisy
    for name, text in measured.files.items():
        (home / f"{name}.toml").write_text(text)
        assert hwdb.device(name).peak_flops["fp32"] == pytest.approx(1e11, rel=1e-3)
    assert hwdb.device("this-machine-1").cores == 1
