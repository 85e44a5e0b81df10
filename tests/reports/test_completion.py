"""The shell completes names of models, devices, systems, links, stacks and scenarios."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from roofcast import hwdb
from roofcast.reports.command import main
from roofcast.reports.completion import NAMES

LINES = {
    "pred": {"predict"},
    "predict llama-3.1-8": {"llama-3.1-8b"},
    "memory resnet10": {"resnet101"},
    "predict gpt2 --on h100-s": {"h100-sxm5", "h100-sxm5-96gb"},
    "predict gpt2 --on h100-sxm5 --on tpu-v5": {"tpu-v5e", "tpu-v5p"},
    "predict gpt2 --system dgx-h": {"dgx-h100", "dgx-h200"},
    "predict gpt2 --stack te-nemo-2": {
        "te-nemo-2023",
        "te-nemo-2024",
        "te-nemo-2024-experts",
        "te-nemo-2404",
    },
    "predict gpt2 --recom": {"--recompute"},
    "run dcg": {"dcgan", "dcgan-discriminator", "dcgan-generator"},
    "run mnist-cnn --on l40": {"l40", "l40s"},
    "count bert-": {"bert-base", "bert-base-multilingual", "bert-large"},
    "models show vit_b": {
        *(f"vit_base_patch{size}" for size in ("8_224", "16_224", "16_384", "32_224", "32_384"))
    },
    "devices show nvlink6": {"nvlink6"},
    "systems show summit": {"summit-node"},
    "links show blin": {"blink"},
    "stacks show maxt": {"maxtext", "maxtext-gpu"},
}


def completed(line):
    words = f"roofcast {line}".split()
    environment = {"_ROOFCAST_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words),
                   "COMP_CWORD": str(len(words) - 1), "PATH": ""}  # fmt: skip
    result = CliRunner(env=environment).invoke(main, [], prog_name="roofcast")
    assert result.stderr == ""
    return rows(result.stdout)


def rows(text):
    """Completed words and their kinds."""
    return dict(reversed(row.split(",", 1)) for row in text.splitlines())


def test_a_shell_completes_in_a_process_of_its_own():
    line, wanted = next(iter(LINES.items()))
    words = f"roofcast {line}".split()
    environment = {"_ROOFCAST_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words),
                   "COMP_CWORD": str(len(words) - 1), "PATH": ""}  # fmt: skip
    code = "from roofcast.reports.command import main; main([])"
    path = {"PYTHONPATH": ":".join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment | path,
                            capture_output=True, text=True, check=False)  # fmt: skip
    assert result.stderr == "" and set(rows(result.stdout)) == wanted


@pytest.mark.parametrize("line", LINES)
def test_a_name_is_completed(line):
    assert set(completed(line)) == LINES[line]


def test_a_path_is_completed_by_the_shell():
    assert completed("predict ./nets/") == {"./nets/": "file"}
    assert completed("run my_own") == {"my_own": "file"}


def test_every_kind_of_name_is_known():
    assert set(hwdb.devices()) <= set(NAMES["device"]())
    assert all(list(names()) for names in NAMES.values())
