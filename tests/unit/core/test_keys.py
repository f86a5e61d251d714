"""API keys as values: well made, told from mistyped ones, and verified without a store."""

from __future__ import annotations

import re
import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.core.errors import ConfigError, RefusedError
from cloche.core.keys import SCOPES, KeyRecord, KeyRing, MintedKey, hash_key, mint_key, parse_key

NOW = 1_750_000_000.0


def minted(**options: object) -> MintedKey:
    return mint_key("mobile", created=NOW, **options)  # type: ignore[arg-type]  # as the test says


def test_a_key_has_the_form_that_secret_scanners_know() -> None:
    assert re.fullmatch(r"clk_live_[0-9a-z]{10}_[0-9A-Za-z]{43}_[0-9a-f]{8}", minted().text)


def test_keys_are_never_the_same() -> None:
    made = [minted() for _ in range(200)]
    assert len({key.text for key in made}) == len({key.record.id for key in made}) == 200


def test_what_is_kept_of_a_key_does_not_hold_it() -> None:
    key = minted()
    secret = key.text.split("_")[3]
    assert secret not in repr(key.record) + repr(key) + msgspec.json.encode(key.record).decode()
    assert key.record.sha256 == hash_key(key.text)


def test_a_key_can_be_read_back_to_its_id() -> None:
    key = minted()
    assert parse_key(key.text) == key.record.id


@given(st.data())
def test_a_letter_that_was_mistyped_is_noticed(data: st.DataObject) -> None:
    text = minted().text
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(
        st.sampled_from(string.ascii_letters + string.digits + "_- \n").filter(lambda c: c != text[place])
    )
    assert parse_key(text[:place] + letter + text[place + 1 :]) is None


@pytest.mark.parametrize(
    "text", ["", "clk", "clk_live___", "Bearer clk_live_x", "clk_live_" + "a" * 10_000, "\ud800"]
)
def test_what_is_no_key_has_no_id_and_is_refused(text: str) -> None:
    assert parse_key(text) is None
    with pytest.raises(RefusedError) as caught:
        KeyRing([minted().record]).verify(text, NOW)
    assert caught.value.code == "CL-E402"


def test_a_ring_knows_each_of_its_keys() -> None:
    keys = [minted() for _ in range(3)]
    ring = KeyRing(key.record for key in keys)
    assert len(ring) == 3
    assert [ring.verify(key.text, NOW) for key in keys] == [key.record for key in keys]


def test_a_well_made_key_that_is_not_of_the_ring_is_refused() -> None:
    with pytest.raises(RefusedError, match="not known"):
        KeyRing([minted().record]).verify(minted().text, NOW)


def test_the_id_of_a_key_is_not_enough() -> None:
    """Another key's text under a known id has the form and a right checksum, but another hash."""
    known, other = minted(), minted()
    forged = KeyRing([msgspec.structs.replace(known.record, id=other.record.id)])
    with pytest.raises(RefusedError, match="not known"):
        forged.verify(other.text, NOW)


def test_a_revoked_key_is_refused() -> None:
    key = minted()
    ring = KeyRing([msgspec.structs.replace(key.record, revoked=NOW)])
    with pytest.raises(RefusedError, match="was revoked") as caught:
        ring.verify(key.text, NOW)
    assert caught.value.code == "CL-E402"


def test_a_key_is_good_until_the_moment_it_expires() -> None:
    key = minted(expires=NOW + 60)
    ring = KeyRing([key.record])
    assert ring.verify(key.text, NOW + 59.9) == key.record
    with pytest.raises(RefusedError, match="has expired"):
        ring.verify(key.text, NOW + 60)


def test_no_refusal_repeats_the_key() -> None:
    key = minted(expires=NOW)
    for ring in (KeyRing(), KeyRing([key.record])):
        with pytest.raises(RefusedError) as caught:
            ring.verify(key.text, NOW)
        assert key.text.split("_")[3] not in caught.value.render()


def test_a_record_passes_through_json() -> None:
    record = minted(scopes=("predict", "metrics"), expires=NOW + 1).record
    assert msgspec.json.decode(msgspec.json.encode(record), type=KeyRecord) == record


def test_scopes_are_kept_once_each_in_order() -> None:
    assert minted(scopes=("metrics", "predict", "metrics")).record.scopes == ("metrics", "predict")
    assert minted().record.scopes == ("predict",)
    assert set(SCOPES) == {"predict", "metrics", "read", "deploy", "admin"}


@pytest.mark.parametrize("scopes", [(), ("root",), ("predict", "root")])
def test_a_scope_that_does_not_exist_is_refused(scopes: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="scope"):
        minted(scopes=scopes)


@pytest.mark.parametrize("name", ["", "Mobile", "a b", "default"])
def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        mint_key(name, created=NOW)
    assert caught.value.code == "CL-E203"
