"""Software stacks: valid profiles, the effect of each setting, and rejected profiles."""

import msgspec
import pytest

from roofcast import hwdb, predict
from roofcast.hwdb.constants import kernels
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.software import stack
from roofcast.simulator.times.host import of_device, slowness

NET = {"model": "resnet50", "batch": 64, "precision": "amp-fp16"}
MIXTRAL = {
    "model": "mixtral-8x7b", "batch": 1, "sequence": 16, "precision": "bf16", "mode": "infer",
}  # fmt: skip


def toml(fields):
    """Lines of a TOML table."""
    return [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in fields.items()]


def profile(path, like="pytorch-eager", end="", **settings):
    """Path of a profile written to a file: settings that differ from the profile `like`.

    end: further TOML text.
    """
    own = {"name": "mine", "about": "mine", "source": "a test", "like": like}
    path.write_text("\n".join(toml(own | settings)) + f"\n{end}\n")
    return str(path)


def step_time(asked, device, stack=None):
    return predict(**asked, device=device, stack=stack).step_time_s


@pytest.mark.parametrize("name", stack.names())
def test_a_shipped_profile_has_the_name_of_its_file_a_description_and_a_source(name):
    shipped = stack.stack(name)
    assert shipped.name == name and shipped.source and shipped.about
    assert 0.0 <= shipped.fusion <= 1.0 and set(shipped.tf32) <= {"conv", "matmul"}
    assert shipped.memory_format in ("contiguous", "channels_last")


@pytest.mark.parametrize("name", ["pytorch-compiled", "nvidia-tuned", "jax-xla", "tensorflow"])
def test_a_stack_that_fuses_kernels_is_faster_than_eager(name):
    assert step_time(NET, "a100", name) < step_time(NET, "a100", "pytorch-eager")


def test_tf32_makes_fp32_convolutions_faster_only_on_devices_that_have_it(tmp_path):
    asked = {"model": "resnet50", "batch": 64, "precision": "fp32"}
    without = profile(tmp_path / "mine.toml", tf32=[])
    assert step_time(asked, "a100") < step_time(asked, "a100", without)
    assert step_time(asked, "v100") == step_time(asked, "v100", without)


def test_a_slower_kernel_launch_matters_at_small_batches_and_hides_at_large_ones(tmp_path):
    slow = profile(tmp_path / "mine.toml", dispatch_s=1e-4)
    small, large = (
        step_time({**NET, "batch": batch}, "h100-sxm5", slow)
        / step_time({**NET, "batch": batch}, "h100-sxm5")
        for batch in (1, 512)
    )
    assert small > 3.0 and large < 1.5


def test_host_launch_time_is_longer_with_an_older_device():
    asked = {"model": "resnet50", "batch": 1, "mode": "infer", "precision": "fp32"}
    old, new = (predict(**asked, device=device).host_s for device in ("v100", "h100-sxm5"))
    assert old > 1.5 * new


def test_a_profile_takes_unstated_settings_from_the_profile_that_like_names(tmp_path):
    base = stack.stack("te-nemo-2024")
    end = "overlap = {ep = 2.0}\n[implementations]\nexperts = 'grouped by hand'"
    mine = stack.stack(profile(tmp_path / "mine.toml", "te-nemo-2024", end, slack=0.1))
    assert mine == msgspec.structs.replace(
        base,
        name="mine",
        about="mine",
        source="a test",
        slack=0.1,
        overlap={**base.overlap, "ep": 2.0},
        implementations={**base.implementations, "experts": "grouped by hand"},
    )


def test_like_can_name_a_file_in_the_same_folder(tmp_path):
    profile(tmp_path / "first.toml", slack=0.5)
    second = profile(tmp_path / "second.toml", "first.toml", fusion=0.25)
    assert (stack.stack(second).slack, stack.stack(second).fusion) == (0.5, 0.25)


def test_name_about_and_source_are_not_taken_from_another_profile(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('like = "pytorch-eager"\nname = "mine"\nabout = "mine"\n')
    with pytest.raises(BadInput, match="source is missing"):
        stack.stack(str(path))


LIKE = [  # value of like, and what the message contains
    ("megatron-2012", "like: no stack 'megatron-2012'; did you mean megatron-20"),
    (3, "like is 3; wanted the name of a stack"),
    ("mine.toml", "leads back to itself"),
    ("other.toml", "leads back to itself"),
    (["a"], "wanted the name of a stack"),
]


@pytest.mark.parametrize(("like", "says"), LIKE)
def test_a_profile_like_an_unknown_one_or_itself_is_rejected_in_one_line(tmp_path, like, says):
    path = profile(tmp_path / "mine.toml", like)
    profile(tmp_path / "other.toml", "mine.toml")
    with pytest.raises(BadInput) as error:
        stack.stack(path)
    message = str(error.value)
    assert says in message and ".toml: " in message and "\n" not in message


def test_an_unknown_setting_of_a_profile_is_rejected_and_the_nearest_one_suggested(tmp_path):
    path = profile(tmp_path / "mine.toml", fusoin=0.5)
    with pytest.raises(BadInput, match="mine.toml: no key 'fusoin'; did you mean fusion"):
        stack.stack(path)


def test_eight_bit_layers_take_the_host_longer_once_for_each_input_and_pass(tmp_path):
    """Four in a layer of Llama: queries with keys and values, the output, gate with up, down. 1 s
    on a host of 2026.
    """
    plain = profile(tmp_path / "plain.toml", dispatch_s=0.0)
    asked = {"model": "llama-3.2-1b", "device": "h100-sxm5", "sequence": 512, "batch": 1}
    asked |= {"precision": "fp8"}
    slow = profile(tmp_path / "slow.toml", dispatch_s=1e-12, module_s=1.0)
    ageing = of_device(hwdb.device("h100-sxm5"), kernels())
    assert predict(**asked, stack=plain).host_s == 0.0
    assert predict(**asked, stack=slow).host_s == pytest.approx(2 * 4 * 16 * ageing, rel=1e-6)
    assert predict(**asked | {"precision": "bf16"}, stack=slow).host_s < 1e-6


def test_expert_launches_multiply_the_launches_of_grouped_products_by_the_experts(tmp_path):
    """Eight experts of Mixtral on one device; in each of 32 layers two grouped products: gate with
    up, and down. A launch takes 1 s on a current host.
    """
    plain, loop = (
        profile(tmp_path / f"{n}.toml", dispatch_s=1.0, expert_launches=n) for n in (0.0, 3.0)
    )
    grouped, looped = (predict(**MIXTRAL, device="b200", stack=s).host_s for s in (plain, loop))
    slow = slowness(2024, kernels())
    assert looped - grouped == pytest.approx(32 * 2 * (8 * 3.0 - 1) * slow)


def test_waits_for_token_counts_of_experts_are_as_long_on_every_host(tmp_path):
    """Each of Mixtral's 32 layers waits once in the forward pass, 1 s; no CPU waits."""
    without, waiting = (
        profile(tmp_path / f"{s}.toml", dispatch_s=0.0, sync_s=s) for s in (0.0, 1.0)
    )
    for device, waits in (("a100-sxm4-80gb", 32.0), ("gb200", 32.0), ("i9-10940x", 0.0)):
        short, long = (
            predict(**MIXTRAL, device=device, stack=s).host_s for s in (without, waiting)
        )
        assert long - short == pytest.approx(waits)


@pytest.mark.parametrize("device", ["b200", "gb200"])
@pytest.mark.parametrize("more", [{}, {"mode": "train", "devices": 8, "ep": 8, "batch": 8}])
def test_waits_for_token_counts_add_to_a_layer(tmp_path, device, more):
    """Each of Mixtral's 32 layers waits in each pass, however long the device computes."""
    short, long = (
        predict(**MIXTRAL | more, device=device, stack=profile(tmp_path / f"{s}.toml", sync_s=s))
        for s in (0.001, 0.002)
    )
    passes = 2 if more else 1
    waits = 32 * passes * 0.001
    assert long.step_time_s - short.step_time_s == pytest.approx(waits, rel=1e-6)


@pytest.mark.parametrize(
    "more", [{}, {"dp": 4}, {"dp": 2, "pp": 2, "micro_batch": 1}, {"mode": "infer"}], ids=str
)
def test_host_time_between_steps_is_added_once_per_step_and_never_overlaps(tmp_path, more):
    asked = {"model": "gpt2", "device": "v100-sxm2-32gb", "batch": 16, "sequence": 128}
    asked |= {"precision": "fp32", **more}
    plain, waits = (
        predict(**asked, stack=profile(tmp_path / f"{s}.toml", step_s=s)) for s in (0.0, 0.01)
    )
    between = 0.01 * float(slowness(2018, kernels()))
    assert waits.step_time_s - plain.step_time_s == pytest.approx(between) == waits.between_steps_s
    assert plain.between_steps_s == 0.0
    assert waits.host_s == plain.host_s and waits.forward_s == plain.forward_s
    assert waits.lower_bound_s == plain.lower_bound_s


@pytest.mark.parametrize(("precision", "width"), [("fp16", 2), ("amp-fp16", 4)])
def test_loss_scaling_reads_and_writes_all_gradients_once_more(precision, width):
    """bf16 has the exponents of fp32 and needs no loss scaling. A fused optimizer with fp32 master
    weights divides by the scale in the same kernel.
    """
    asked = {"model": "gpt2", "device": "v100", "batch": 4, "sequence": 128, "optimizer": "adamw"}

    def update_bytes(precision, stack):
        f = predict(**asked, precision=precision, stack=stack)
        return sum(p.bytes for p in f.points if p.phase == "update"), f.parameters

    scaled, n = update_bytes(precision, "pytorch-eager")
    plain, _ = update_bytes(precision.replace("fp16", "bf16"), "pytorch-eager")
    assert scaled - plain == pytest.approx(2 * width * n, rel=1e-6)
    assert update_bytes("fp16", "megatron")[0] == update_bytes("bf16", "megatron")[0]


INVALID = [  # setting and value, as TOML has it
    ("step_s", "-0.001"),
    ("step_s", "nan"),
    ("expert_launches", "-3"),
    ("expert_launches", "nan"),
    ("expert_launches", "inf"),
    ("sync_s", "-1.0"),
    ("factor", "0.0"),
    ("dispatch_s", "nan"),
    ("fusion", "2.0"),
    ("slack", "-1.0"),
    ("framework_bytes", "nan"),
    ("accumulate_first", "3"),
]


@pytest.mark.parametrize(("key", "value"), INVALID)
def test_a_setting_out_of_range_is_rejected_in_one_line(tmp_path, key, value):
    path = profile(tmp_path / "mine.toml", end=f"{key} = {value}")
    with pytest.raises(BadInput, match=key) as error:
        stack.stack(path)
    assert "\n" not in str(error.value)


def test_an_unknown_implementation_of_batch_norm_is_rejected(tmp_path):
    end = '[implementations]\nbatch_norm = "decompsed"'
    path = profile(tmp_path / "mine.toml", end=end)
    with pytest.raises(BadInput, match="decompsed"):
        predict(model="resnet50", device="a100", batch=8, stack=path)


@pytest.mark.parametrize("device", ["a10", "rtx-a6000", "l40s", "rtx-3090", "a100", "h100-sxm5"])
@pytest.mark.parametrize("model", ["resnet50", "vgg16", "unet-medical"])
def test_allowing_tf32_never_makes_a_net_slower(tmp_path, model, device):
    """TF32 is allowed, not forced: vector units and Winograd run where they are faster."""
    without = profile(tmp_path / "mine.toml", tf32=[])
    asked = {"model": model, "batch": 8, "precision": "fp32"}
    allowed, forbidden = (step_time(asked, device, s) for s in ("pytorch-eager", without))
    assert allowed <= forbidden * (1 + 1e-9)


@pytest.mark.parametrize("name", ["megatron", "te-nemo-2023", "megatron-2021", "fsdp-torchtitan"])
@pytest.mark.parametrize("low", ["bf16", "fp16"])
def test_mixed_precision_with_master_weights_is_one_thing_however_it_is_asked(name, low):
    """16-bit weights beside fp32 masters: no copies of fp32 weights for each micro-batch."""
    asked = {"model": "gpt2", "device": "a100-sxm4-80gb", "stack": name, "batch": 8, "dp": 2}
    plain, mixed = (predict(**asked, precision=p) for p in (low, f"amp-{low}"))
    assert mixed.memory == plain.memory and mixed.step_time_s == plain.step_time_s
    assert mixed.saved_weight_copy_bytes == 0
    said = (
        f"precision amp-{low}: mixed precision of {name}, {low} weights beside fp32 master weights"
    )
    assert said in mixed.assumptions


def test_autocast_without_master_weights_keeps_copies():
    asked = {"model": "gpt2", "device": "a100-sxm4-80gb", "precision": "amp-bf16"}
    assert predict(**asked, stack="pytorch-eager").saved_weight_copy_bytes > 0
    inference = predict(**asked, stack="megatron", mode="infer")
    assert not any("master" in line for line in inference.assumptions)
