"""Tables of measured runs of nets: how rows are read, and why some cannot be forecast."""

import gzip

import pytest

from roofcast.hwdb.errors import BadInput
from roofcast.reports.tables import accuracy
from roofcast.scenarios.measured import nets as measured

COLUMNS = (
    "id", "model", "device", "precision", "mode", "batch_per_device", "n_devices", "input",
    "layout", "framework", "step_time_ms", "throughput_samples_s", "throughput_unit",
)  # fmt: skip


def rows(tmp_path, *lines, name="runs.csv"):
    """The runs of a table with these lines."""
    path = tmp_path / name
    text = "\n".join(["# where it is from", ",".join(COLUMNS), *lines]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return measured.read(path)


def test_a_row_becomes_a_scenario(tmp_path):
    (run,) = rows(
        tmp_path,
        "a,ResNet-50,RTX 3090,amp,train,256.0,1,224x224x3,nhwc,PyTorch 1.13 eager,,800,img/s",
        name="runs.csv.gz",
    )
    s = run.scenario
    assert (s.model, s.batch, s.image) == ("resnet50", 256, 224)
    assert (s.precision, s.mode, s.optimizer) == ("amp-fp16", "train", "momentum")
    assert (s.memory_format, s.stack, s.attention) == ("channels_last", "pytorch-eager", "eager")
    assert run.measured_s == pytest.approx(256 / 800)


def test_throughput_is_that_of_all_devices(tmp_path):
    (run,) = rows(tmp_path, "a,resnet50,V100-16GB,fp32,train,64,8,,,TensorFlow,,2800,img/s")
    assert (run.scenario.devices, run.scenario.batch, run.scenario.micro_batch) == (8, 512, 64)
    assert run.measured_s == pytest.approx(512 / 2800)


def with_peak(tmp_path, *peaks):
    """The runs of a table with these cells of peak memory."""
    path = tmp_path / "runs.csv"
    head = "model,device,precision,mode,batch_per_device,step_time_ms,peak_memory_mib\n"
    lines = "".join(f"resnet50,v100,fp32,train,8,10,{peak}\n" for peak in peaks)
    path.write_text(head + lines, encoding="utf-8")
    return measured.read(path)


def test_peak_memory_is_read_in_mib_and_may_be_empty(tmp_path):
    peaks = [run.peak_bytes for run in with_peak(tmp_path, "1536.5", "")]
    assert peaks == [1536.5 * 1024 * 1024, None]


@pytest.mark.parametrize("cell", ["1.5 GB", "0", "-3", "inf", "nan"])
def test_a_peak_that_is_no_number_of_mib_is_refused(tmp_path, cell):
    (run,) = with_peak(tmp_path, cell)
    assert run.scenario is None and run.refused == f"peak_memory_mib {cell!r}: not a number of MiB"


@pytest.mark.parametrize(("line", "why"), [
    ("a,resnet50,v100,fp32,train,,1,,,,10,,", "no batch"),
    ("a,resnet50,v100,fp32,train,2.5,1,,,,10,,", "not a number of samples"),
    ("a,resnet50,v100,fp32,train,2,1,,,,,,", "no step time"),
    ("a,resnet50,v100,fp32,train,2,1,,,,,100,tok/s", "samples of unknown length"),
    ("a,resnet50,v100,int3,train,2,1,,,,10,,", "precision 'int3'"),
    ("a,resnet50,v100,fp32,play,2,1,,,,10,,", "mode 'play'"),
    ("a,resnet50,v100,fp32,train,2,x,,,,10,,", "n_devices 'x'"),
    ("a,bert-base,v100,fp32,train,2,1,,,,10,,", "length of its sequences"),
    ("a,Jasper,v100,fp32,train,2,1,,,,10,,", "length of its sequences"),
])  # fmt: skip
def test_a_row_that_cannot_be_forecast_has_a_reason(tmp_path, line, why):
    (run,) = rows(tmp_path, line)
    assert run.scenario is None and why in run.refused


def test_settings_of_a_source_fill_empty_cells_only():
    place = (
        "PyTorch/LanguageModeling/Transformer-XL/README.md line 1; NVIDIA DGX A100 > Large model"
    )
    row = {
        "source_where": place,
        "model": "Transformer-XL",
        "device": "A100-40GB",
        "precision": "amp-fp16",
        "mode": "train",
        "batch_per_device": "16",
        "throughput_samples_s": "25084",
        "throughput_unit": "tok/s",
    }
    s = measured.run(row).scenario
    assert (s.model, s.precision, s.optimizer) == ("transformer-xl-large", "fp16", "lamb")
    assert (s.batch, s.micro_batch) == (128, 16)
    assert measured.run(row).measured_s == pytest.approx(128 * 384 / 25084)
    s = measured.run(row | {"optimizer": "adam", "micro_batches": "2"}).scenario
    assert (s.optimizer, s.batch, s.micro_batch) == ("adam", 32, 16)


def test_the_framework_decides_what_a_model_name_means(tmp_path):
    found = {"PyTorch": "ssd300", "TensorFlow2": "ssd320-r50-fpn", "MLPerf NGC": "ssd300-r34"}
    runs = rows(tmp_path, *(f"a,SSD,v100,fp32,train,8,1,,,{framework},10,," for framework in found))
    assert [run.scenario.model for run in runs] == list(found.values())


def test_a_dimension_in_the_input_chooses_the_model(tmp_path):
    runs = rows(
        tmp_path, *(f"a,nnUNet,v100,fp32,train,8,1,Dimension={d},,PyTorch,10,," for d in (2, 3))
    )
    assert [run.scenario.model for run in runs] == ["nnunet-2d", "nnunet-3d"]


@pytest.mark.parametrize(
    "content", [b"a,b\n1,2\n", b"\x1f\x8b\x00broken", b"\xff\xfe\x00\x01", b""]
)
def test_a_file_that_is_no_table_is_refused_on_one_line(tmp_path, content):
    for name in ("runs.csv", "runs.csv.gz"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(BadInput) as caught:
            measured.read(path)
        assert "\n" not in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize(
    "path", [p for p in measured.shipped() if p.parent.name == "runs"], ids=lambda p: p.stem
)
def test_every_shipped_row_is_forecast_or_excluded_with_a_reason(path):
    for run in accuracy.runs(path):
        assert run.scenario or run.refused.startswith("excluded: "), run.id
