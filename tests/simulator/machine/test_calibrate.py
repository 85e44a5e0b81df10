"""Calibration on machines that are made up: their clocks, their /proc and /sys. No time that passes
decides anything here.
"""

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
    """A clock that only jobs move: each run of a job takes what `seconds` says of its number of
    runs so far.
    """

    def __init__(self):
        self.now, self.runs = 0.0, 0
        self.threads = 2  # that work while time passes
        self.clock = Clock(lambda: self.now, lambda: self.now, lambda: self.threads * self.now)

    def job(self, key, seconds, threads=1, amount=1.0):
        def run(repeats):
            self.runs += 1
            self.now += repeats * seconds(self.runs)

        return Job(key, threads, amount, run)


def ceilings(**changed):
    """Rates as a calibration finds them."""
    found = {
        "fma32": 100e9,
        "fma64": 50e9,
        "gemm 512": 80e9,
        "gemm 1024": 90e9,
        "exp": 3e9,
        "erf": 2e9,
        "tanh": 2e9,
        "div": 6e9,
    }
    for level, rate in (("l1", 200e9), ("l2", 100e9), ("l3", 30e9), ("memory", 10e9)):
        for share, name in (
            (1.0, "read"),
            (0.5, "fill"),
            (0.8, "copy"),
            (0.8, "scale"),
            (0.9, "triad"),
        ):
            found[f"{level} {name}"] = rate * share
    return {key: Rate(value, 0.01, 6) for key, value in (found | changed).items()}


def test_a_steady_machine_is_measured_to_the_digit():
    machine = Machine()
    (rate,) = sample([machine.job("a", lambda run: 2e-6, amount=8.0)], 50, machine.clock)
    assert (
        rate.value == pytest.approx(4e6)
        and rate.differ == pytest.approx(0, abs=1e-9)
        and not rate.noisy
    )
    assert rate.rounds == ROUNDS


def test_one_thread_takes_the_median_round_and_all_threads_the_best():
    machine = Machine()
    slow = lambda run: 1e-2 if run % 3 else 1.5e-2  # noqa: E731
    alone, together = sample(
        [machine.job("a", slow), machine.job("b", slow, threads=2)], 50, machine.clock
    )
    assert alone.value == pytest.approx(100) and together.value == pytest.approx(100)


def test_halves_that_differ_are_called_noisy_and_cost_no_more_than_the_time_given():
    machine = Machine()
    rounds = iter(range(10**6))
    job = Job(
        "a",
        1,
        1.0,
        lambda repeats: setattr(
            machine, "now", machine.now + (0.03 if next(rounds) // 2 % 2 else 0.05)
        ),
    )
    (rate,) = sample([job], 4.0, machine.clock)
    assert rate.noisy and rate.differ > AGREE
    assert machine.now < 4.0


def test_two_rounds_are_made_however_slow_the_machine():
    machine = Machine()
    (rate,) = sample([machine.job("a", lambda run: 100.0)], 10, machine.clock)
    assert rate.rounds == 2 and rate.value == pytest.approx(0.01)


def test_every_job_is_told_before_it_is_done():
    machine, told = Machine(), []
    sample([machine.job("a", lambda run: 1e-3)], 10, machine.clock, told.append)
    assert told[:3] == ["compile a", "try a", "a"]


def put(root, **files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_linux_machine_says_what_it_is(tmp_path):
    put(
        tmp_path,
        **{
            "proc/cpuinfo": (
                "vendor_id\t: AuthenticAMD\nmodel name\t: Zen  9\ncpu MHz\t: 2000.0\nflags\t: fpu"
                " avx2 fma avx512f ht\n\nvendor_id\t: no\n"
            ),
            "proc/meminfo": "MemTotal:       16000000 kB\n",
        },
    )
    for cpu in range(4):
        base = f"sys/devices/system/cpu/cpu{cpu}"
        put(
            tmp_path,
            **{
                f"{base}/topology/thread_siblings_list": f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}\n",
                f"{base}/cache/index0/level": "1",
                f"{base}/cache/index0/type": "Data",
                f"{base}/cache/index0/size": "48K",
                f"{base}/cache/index0/shared_cpu_list": f"{cpu // 2}",
                f"{base}/cache/index1/level": "1",
                f"{base}/cache/index1/type": "Instruction",
                f"{base}/cache/index1/size": "64K",
                f"{base}/cache/index3/level": "3",
                f"{base}/cache/index3/type": "Unified",
                f"{base}/cache/index3/size": "32M",
                f"{base}/cache/index3/shared_cpu_list": "0-3",
            },
        )
    put(tmp_path, **{"sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "4500000\n"})
    host = find(tmp_path, frozenset(range(4)))
    assert (host.name, host.vendor, host.cores, host.clock, host.memory) == (
        "Zen 9",
        "AMD",
        2,
        4.5e9,
        16_384_000_000,
    )
    assert host.caches == {"l1": Cache(49152, 2), "l3": Cache(2**25, 1)}
    assert host.isa == ("avx2", "avx512f", "fma")


def test_a_machine_that_says_nothing_is_still_one(tmp_path):
    host = find(tmp_path, frozenset({0}))
    assert host.name and host.threads == host.cores == 1
    assert host.caches == {} and host.memory is None and host.clock is None and host.isa == ()


def test_a_container_may_use_what_it_is_given(tmp_path):
    put(tmp_path, **{"sys/fs/cgroup/cpu.max": "200000 100000\n"})
    assert find(tmp_path, frozenset(range(8))).threads == 2


def test_sets_lie_in_the_level_they_are_named_for():
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
    """Where device files of this machine go."""
    monkeypatch.setattr(names, "this_machine", lambda name: tmp_path / f"{name}.toml")
    return tmp_path


@pytest.mark.parametrize("host", [HOST, BARE], ids=["known", "bare"])
@pytest.mark.parametrize("alone", [False, True])
def test_what_is_written_is_read_back(home, host, alone):
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
    assert (
        rates.special == 3e9
        and rates.measured
        and not resolve(hwdb.device("i9-10940x"), "fp32").rates.measured
    )
    assert device.cores == (1 if alone else host.cores)
    assert set(device.cache) == set(host.caches)
    if host.caches:
        assert (
            device.cache["l2"].capacity == (1 if alone else 2) * 2**20
            and device.cache["l2"].bandwidth == 100e9
        )


def test_no_kernel_lies_above_the_roof_that_is_written(home):
    rates = ceilings(**{"gemm 512": 130e9, "memory copy": 14e9})
    (home / "this-machine.toml").write_text(device_file.text(HOST, rates, False, "today"))
    device = hwdb.device("this-machine", {"memory.bandwidth": "x2"})
    assert device.peak_flops["fp32"] == 130e9 and device.memory.bandwidth == 28e9
    assert (
        max(
            device.achieved[key]
            for key in ("matmul_fp32", "sustained_fp32", "stream", "stream_scale", "stream_write")
        )
        <= 1
    )


def test_a_noisy_machine_is_flagged_in_its_file():
    noisy = {key: rate._replace(differ=0.3) for key, rate in ceilings().items()}
    assert "NOISY: two halves of the rounds differ by 30%" in device_file.text(
        HOST, noisy, False, "today"
    )
    assert "NOISY" not in device_file.text(HOST, ceilings(), False, "today")


def test_threads_that_others_hold_up_are_noticed_though_halves_agree():
    machine = Machine()
    machine.threads = 1.3  # of two
    made = [
        machine.job(key, lambda run: 1e-3, threads, rate.value / 1e3)
        for threads in (1, 2)
        for key, rate in ceilings().items()
    ]
    measured = calibrate(quick=True, clock=machine.clock, host=HOST, jobs=made)
    assert measured.share == pytest.approx(0.65) and measured.differ < 0.01 and measured.noisy
    assert "the threads had 65% of the processors' time" in measured.files["this-machine"]
    assert "NOISY" not in measured.files["this-machine-1"]


def test_a_machine_that_was_not_calibrated_says_what_to_do(home):
    for name in names.THIS_MACHINE:
        with pytest.raises(
            hwdb.BadInput, match=f"^{name}: not calibrated yet.*run: roofcast calibrate$"
        ):
            hwdb.device(name)


def test_the_library_of_products_is_asked_on_all_threads_and_on_one(home):
    machine = Machine()
    made = [
        machine.job(key, lambda run: 1e-3, threads, rate.value / 1e3)
        for threads in (1, 2)
        for key, rate in ceilings().items()
    ]
    library = lambda threads: {"blas 1024": Rate(threads * 70e9, 0.01, 6)}  # noqa: E731
    files = calibrate(quick=True, clock=machine.clock, host=HOST, jobs=made, library=library).files
    for name, rate in (("this-machine", 280e9), ("this-machine-1", 70e9)):
        (home / f"{name}.toml").write_text(files[name])
        device = hwdb.device(name)
        assert device.achieved["sustained_fp32"] * device.peak_flops["fp32"] == pytest.approx(
            rate, rel=1e-3
        )


def test_calibrate_makes_both_files_from_made_up_jobs(home):
    machine = Machine()
    made = [
        machine.job(key, lambda run: 1e-3, threads, rate.value / 1e3)
        for threads in (1, 2)
        for key, rate in ceilings().items()
    ]
    measured = calibrate(quick=True, clock=machine.clock, host=HOST, jobs=made)
    assert measured.differ == pytest.approx(0, abs=1e-6) and not measured.noisy
    for name, text in measured.files.items():
        (home / f"{name}.toml").write_text(text)
        assert hwdb.device(name).peak_flops["fp32"] == pytest.approx(1e11 * 1e-3 / 1e-3, rel=1e-3)
    assert hwdb.device("this-machine-1").cores == 1
