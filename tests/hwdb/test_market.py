"""The table of public prices."""

import pytest

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.hwdb.market import (
    CLASSES,
    KINDS,
    PROVIDER_CLASS,
    RENTS,
    costs,
    newest,
    own_prices,
    quotes,
    sources,
    summary,
)

EVERY = [q for each in quotes().values() for q in each]


def test_every_quote_is_of_a_device_with_a_kind_a_provider_and_a_source():
    assert len(EVERY) > 1000
    for q in EVERY:
        assert q.device in hwdb.devices() and q.kind in KINDS and q.provider
        assert q.of_class == (PROVIDER_CLASS[q.provider] if q.kind in RENTS else "")
        assert len(sources()[q.source]) > 10
        assert 0 < q.usd < (100 if q.kind in RENTS else 3e6), q  # wafers


def test_dates_are_dates_and_none_is_after_the_newest():
    for q in EVERY:
        assert q.date == "" or 2010 <= int(q.date[:4]) <= int(newest()[:4])


@pytest.mark.parametrize("device", sorted(quotes()))
def test_a_summary_lies_within_the_quotes(device):
    for kind in KINDS:
        for of_class in ("", *CLASSES):
            found = summary(device, kind, of_class)
            if found is None:
                continue
            prices = [q.usd for q in quotes()[device] if q.kind == kind]
            assert min(prices) <= found.low <= found.median <= found.high <= max(prices)
            assert found.providers >= 1


def test_longer_commitments_and_spot_are_cheaper_at_the_same_kind_of_provider():
    for device in ("h100-sxm5", "a100-sxm4-80gb"):
        full = summary(device, "on-demand", "hyperscaler").median
        for kind in ("spot", "reserved-1y", "reserved-3y"):
            assert summary(device, kind, "hyperscaler").median < full


def test_a_device_has_no_one_price():
    """H100 SXM: hyperscalers ask some three times what specialised clouds do."""
    found = [summary("h100-sxm5", "on-demand", each).median for each in CLASSES]
    assert max(found) > 2 * min(found)


def test_every_cost_of_owning_cites_its_source():
    found = costs()
    assert set(found.sources) == set(found.__struct_fields__) - {"sources"}
    assert 0.01 < found.usd_per_kwh < 0.5 and 1 < found.pue < 2


def test_a_users_file_of_prices_is_read(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text("[h100-sxm5]\non-demand = 2.1\n[l4]\nmarket = 2500\n")
    found = own_prices(path)
    assert found["h100-sxm5"].on_demand == 2.1 and found["l4"].market == 2500


@pytest.mark.parametrize(
    "text",
    ["h100-sxm5 = 3", "[h100-sxm5]\non-demand = -1", "[h100-sxm5]\nrent = 2", "[h101]\nspot = 1",
     "[h100-sxm5]\nspot = nan", "[h100-sxm5]"],
)  # fmt: skip
def test_a_wrong_file_of_prices_is_rejected_in_one_line(text, tmp_path):
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(RoofcastError) as error:
        own_prices(path)
    assert "\n" not in str(error.value) and ("my.toml" in str(error.value) or "h101" in str(error))


def test_no_file_of_prices_is_a_line():
    with pytest.raises(BadInput, match=r"nowhere\.toml"):
        own_prices("nowhere.toml")
