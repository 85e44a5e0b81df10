"""Software stacks: every profile can be read, and each setting does what it says."""

import msgspec
import pytest

from roofcast import predict
from roofcast.hwdb.constants import kernels
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.software import stack
from roofcast.simulator.times.host import slowness

NET = {"model": "resnet50", "batch": 64, "precision": "amp-fp16"}


@pytest.mark.parametrize("name", stack.names())
def test_a_profile_is_named_as_its_file_and_says_where_it_is_from(name):
    profile = stack.stack(name)
    assert profile.name == name and profile.source and profile.about
    assert 0.0 <= profile.fusion <= 1.0 and set(profile.tf32) <= {"conv", "matmul"}
    assert profile.memory_format in ("contiguous", "channels_last")


@pytest.mark.parametrize("name", ["pytorch-compiled", "nvidia-tuned", "jax-xla", "tensorflow"])
def test_a_stack_that_fuses_is_faster_than_an_eager_one(name):
    assert (
        predict(**NET, device="a100", stack=name).step_time_s
        < predict(**NET, device="a100", stack="pytorch-eager").step_time_s
    )


def written(tmp_path, **changes):
    """A copy of the eager profile with settings changed."""
    fields = msgspec.to_builtins(stack.stack("pytorch-eager")) | changes
    lines = [
        f"{key} = {msgspec.json.encode(value).decode()}"
        for key, value in fields.items()
        if not isinstance(value, dict)
    ]
    for key, value in fields.items():
        if isinstance(value, dict) and value:
            lines += [
                f"[{key}]",
                *(f"{k} = {msgspec.json.encode(v).decode()}" for k, v in value.items()),
            ]
    path = tmp_path / "mine.toml"
    path.write_text("\n".join(lines))
    return str(path)


def test_fp32_convolutions_run_in_tf32_where_the_stack_says_so(tmp_path):
    asked = {"model": "resnet50", "batch": 64, "precision": "fp32"}
    plain = written(tmp_path, name="plain", tf32=[])
    assert (
        predict(**asked, device="a100").step_time_s
        < predict(**asked, device="a100", stack=plain).step_time_s
    )
    assert (
        predict(**asked, device="v100").step_time_s
        == predict(**asked, device="v100", stack=plain).step_time_s
    )  # it has no TF32


def test_a_slower_host_shows_where_the_device_is_quick(tmp_path):
    slow = written(tmp_path, name="slow", dispatch_s=1e-4)
    small, large = {**NET, "batch": 1}, {**NET, "batch": 512}
    longer = [
        predict(**asked, device="h100-sxm5", stack=slow).step_time_s
        / predict(**asked, device="h100-sxm5").step_time_s
        for asked in (small, large)
    ]
    assert longer[0] > 3.0 and longer[1] < 1.5


def test_an_older_device_has_an_older_host():
    asked = {"model": "resnet50", "batch": 1, "mode": "infer", "precision": "fp32"}
    assert (
        predict(**asked, device="v100").host_s > 1.5 * predict(**asked, device="h100-sxm5").host_s
    )


def profile(path, like, **settings):
    """A profile that is like another, in a file."""
    lines = ['name = "mine"', 'about = "mine"', 'source = "a test"', f"like = {like}"]
    path.write_text(
        "\n".join(
            lines
            + [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in settings.items()]
        )
    )
    return str(path)


def test_a_profile_states_only_what_differs_from_the_one_it_is_like(tmp_path):
    base = stack.stack("te-nemo-2024")
    path = profile(tmp_path / "mine.toml", '"te-nemo-2024"', slack=0.1)
    with open(path, "a") as file:
        file.write("\noverlap = {ep = 2.0}\n[implementations]\nexperts = 'grouped by hand'\n")
    mine = stack.stack(path)
    assert mine == msgspec.structs.replace(
        base,
        name="mine",
        about="mine",
        source="a test",
        slack=0.1,
        overlap={**base.overlap, "ep": 2.0},
        implementations={**base.implementations, "experts": "grouped by hand"},
    )


def test_a_profile_can_be_like_a_file_beside_it(tmp_path):
    profile(tmp_path / "first.toml", '"pytorch-eager"', slack=0.5)
    second = profile(tmp_path / "second.toml", '"first.toml"', fusion=0.25)
    assert (stack.stack(second).slack, stack.stack(second).fusion) == (0.5, 0.25)


def test_name_about_and_source_are_a_profiles_own(tmp_path):
    (tmp_path / "mine.toml").write_text('like = "pytorch-eager"\nname = "mine"\nabout = "mine"\n')
    with pytest.raises(BadInput, match="source is missing"):
        stack.stack(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize(
    ("like", "says"),
    [
        ('"megatron-2012"', "like: no stack 'megatron-2012'; did you mean megatron-20"),
        ("3", "like is 3; wanted the name of a stack"),
        ('"mine.toml"', "leads back to itself"),
        ('"other.toml"', "leads back to itself"),
        ('["a"]', "wanted the name of a stack"),
    ],
)
def test_a_profile_like_none_or_like_itself_is_refused_in_one_line(tmp_path, like, says):
    path = profile(tmp_path / "mine.toml", like)
    profile(tmp_path / "other.toml", '"mine.toml"')
    with pytest.raises(BadInput) as caught:
        stack.stack(path)
    assert (
        says in str(caught.value)
        and ".toml: " in str(caught.value)
        and "\n" not in str(caught.value)
    )


def test_an_unknown_setting_of_a_profile_is_refused(tmp_path):
    path = profile(tmp_path / "mine.toml", '"pytorch-eager"', fusoin=0.5)
    with pytest.raises(BadInput, match="mine.toml: no key 'fusoin'; did you mean fusion"):
        stack.stack(path)


def test_a_library_that_loops_over_experts_launches_for_each(tmp_path):
    """Eight experts of Mixtral on one rank, two grouped products in each of 32 layers: gate with
    up, and down.
    """
    asked = {
        "model": "mixtral-8x7b",
        "device": "b200",
        "batch": 1,
        "sequence": 16,
        "precision": "bf16",
        "mode": "infer",
    }
    like, launch = {"dispatch_s": 1.0}, 3.0
    plain = predict(**asked, stack=profile(tmp_path / "plain.toml", '"pytorch-eager"', **like))
    loop = predict(
        **asked,
        stack=profile(tmp_path / "loop.toml", '"pytorch-eager"', **like, expert_launches=launch),
    )
    slow = slowness(2024, kernels())
    assert loop.host_s - plain.host_s == pytest.approx(32 * 2 * (8 * launch - 1) * slow)


def test_waits_for_token_counts_are_longer_on_an_older_host(tmp_path):
    """Each of Mixtral's 32 layers waits once in an inference's forward."""
    asked = {
        "model": "mixtral-8x7b",
        "batch": 1,
        "sequence": 16,
        "precision": "bf16",
        "mode": "infer",
    }
    none, some = (
        profile(tmp_path / f"{s}.toml", '"pytorch-eager"', dispatch_s=0.0, sync_s=s)
        for s in (0.0, 1.0)
    )
    for device, year in (("a100-sxm4-80gb", 2020), ("b200", 2024)):
        longer = (
            predict(**asked, device=device, stack=some).host_s
            - predict(**asked, device=device, stack=none).host_s
        )
        assert longer == pytest.approx(32 * float(slowness(year, kernels())))


@pytest.mark.parametrize(
    "more", [{}, {"dp": 4}, {"dp": 2, "pp": 2, "micro_batch": 1}, {"mode": "infer"}], ids=str
)
def test_what_the_host_needs_between_steps_is_added_once_a_step(tmp_path, more):
    asked = {
        "model": "gpt2",
        "device": "v100-sxm2-32gb",
        "batch": 16,
        "sequence": 128,
        "precision": "fp32",
        **more,
    }
    plain, waits = (
        predict(**asked, stack=profile(tmp_path / f"{s}.toml", '"pytorch-eager"', step_s=s))
        for s in (0.0, 0.01)
    )
    between = 0.01 * float(slowness(2018, kernels()))
    assert waits.step_time_s - plain.step_time_s == pytest.approx(between) == waits.between_steps_s
    assert (
        plain.between_steps_s == 0.0
        and waits.host_s == plain.host_s
        and waits.forward_s == plain.forward_s
    )
    assert waits.lower_bound_s == plain.lower_bound_s


@pytest.mark.parametrize(("precision", "width"), [("fp16", 2), ("amp-fp16", 4)])
def test_gradients_under_a_scaled_loss_are_read_and_written_once_more(precision, width):
    """The update of 124 million weights; formats with the exponents of fp32 need no scale, an
    optimizer of fp32 copies divides by it in the same kernel.
    """

    def moved(precision, stack):
        f = predict(
            model="gpt2",
            device="v100",
            batch=4,
            sequence=128,
            precision=precision,
            optimizer="adamw",
            stack=stack,
        )
        return sum(p.bytes for p in f.points if p.phase == "update"), f.parameters

    scaled, n = moved(precision, "pytorch-eager")
    plain, _ = moved(precision.replace("fp16", "bf16"), "pytorch-eager")
    assert scaled - plain == pytest.approx(2 * width * n, rel=1e-6)
    assert moved("fp16", "megatron")[0] == moved("bf16", "megatron")[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step_s", -1e-3),
        ("step_s", float("nan")),
        ("expert_launches", -3),
        ("expert_launches", float("nan")),
        ("expert_launches", float("inf")),
        ("sync_s", -1.0),
        ("factor", 0.0),
        ("dispatch_s", float("nan")),
        ("fusion", 2.0),
        ("slack", -1.0),
        ("framework_bytes", float("nan")),
        ("accumulate_first", 3),
    ],
)
def test_a_number_that_cannot_be_is_refused_in_one_line(tmp_path, key, value):
    text = {"nan": "nan", "inf": "inf"}.get(str(value), str(value))
    path = profile(tmp_path / "mine.toml", '"pytorch-eager"')
    with open(path, "a") as file:
        file.write(f"\n{key} = {text}\n")
    with pytest.raises(BadInput, match=key) as refused:
        stack.stack(path)
    assert "\n" not in str(refused.value)


def test_a_misspelt_form_of_batch_norm_is_refused(tmp_path):
    path = profile(tmp_path / "mine.toml", '"pytorch-eager"')
    with open(path, "a") as file:
        file.write('\n[implementations]\nbatch_norm = "decompsed"\n')
    with pytest.raises(BadInput, match="decompsed"):
        predict(model="resnet50", device="a100", batch=8, stack=path)


@pytest.mark.parametrize("device", ["a10", "rtx-a6000", "l40s", "rtx-3090", "a100", "h100-sxm5"])
@pytest.mark.parametrize("model", ["resnet50", "vgg16", "unet-medical"])
def test_allowing_tf32_never_makes_a_net_slower(tmp_path, model, device):
    """It is allowed, not prescribed: where vector units and Winograd are faster, they are taken."""
    plain, allowed = (
        written(tmp_path, name="mine", tf32=formats) if not formats else "pytorch-eager"
        for formats in ([], ["conv"])
    )
    asked = {"model": model, "device": device, "batch": 8, "precision": "fp32"}
    assert predict(**asked, stack=allowed).step_time_s <= predict(
        **asked, stack=plain
    ).step_time_s * (1 + 1e-9)
