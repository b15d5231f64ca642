"""Which headers cross the proxy, and who a caller is."""

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from bridge.proxy.transport.headers import (
    accepts_gzip,
    answered,
    forwarded,
    identity,
    of_a_leg,
    plain_media_type,
)
from bridge.proxy.transport.refusals import Refused
from bridge.settings import ProxySettings

SETTINGS = ProxySettings()


def proxied(*headers: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(headers))


def test_headers_end_to_end_cross_in_their_order_and_spelling() -> None:
    sent = proxied(("X-Tenant", "a"), ("authorization", "Basic x"), ("x-tenant", "b"), ("Keep-Alive", "5"))

    assert list(forwarded(sent, client_address=None, settings=SETTINGS).items()) == [
        ("X-Tenant", "a"),
        ("authorization", "Basic x"),
        ("x-tenant", "b"),
    ]


def test_what_connection_names_and_what_clusters_trust_stays_behind() -> None:
    sent = proxied(("Connection", "close, X-Once"), ("X-Once", "1"), ("X_Proxy_User", "admin"), ("x-bridge", "off"))

    kept = forwarded(sent, client_address="10.0.0.7", settings=SETTINGS)
    assert list(kept.items()) == [("X-Forwarded-For", "10.0.0.7")]
    assert list(answered(sent).items()) == [("X_Proxy_User", "admin"), ("x-bridge", "off")]
    with pytest.raises(Refused, match="names authorization, which cannot be dropped"):
        forwarded(proxied(("Connection", "Authorization")), client_address=None, settings=SETTINGS)


def test_a_leg_is_sent_in_the_callers_name_with_a_body_of_its_own() -> None:
    leg = of_a_leg(CIMultiDict({"Authorization": "ApiKey x", "Accept": "text/html", "Content-Encoding": "gzip"}))

    assert dict(leg) == {
        "Authorization": "ApiKey x",
        "Accept": "application/json",
        "Content-Type": "application/json",
    }


@pytest.mark.parametrize(
    ("header", "value", "is_another"),
    [
        ("Authorization", "ApiKey other", True),
        ("Cookie", "session=2", True),
        ("X-Department", "sales", True),  # a rule of the cluster may read any header
        ("User-Agent", "shop/2", True),
        ("Baggage", "tenant=b", True),
        ("X-Request-Id", "42", False),
        ("X-Opaque-Id", "42", False),
        ("Traceparent", "00-1-2-01", False),
        ("Accept", "text/html", False),
    ],
)
def test_callers_are_told_apart_by_everything_but_what_describes_one_request(
    header: str, value: str, is_another: bool
) -> None:
    caller = CIMultiDict({"Authorization": "ApiKey x"})
    other = CIMultiDict({"Authorization": "ApiKey x", header: value})

    assert (_identity(caller) != _identity(other)) is is_another


def _identity(caller: CIMultiDict[str], settings: ProxySettings = SETTINGS) -> bytes:
    return identity(caller, settings.per_request_headers)


@pytest.mark.case("S17")
def test_a_header_that_a_rule_of_the_cluster_reads_can_be_taken_out_of_those_that_tell_nothing() -> None:
    settings = ProxySettings(per_request_headers=("X-Request-Id",))
    caller, other = CIMultiDict({"X-Correlation-Id": "1"}), CIMultiDict({"X-Correlation-Id": "2"})

    assert _identity(caller, settings) != _identity(other, settings)
    assert _identity(CIMultiDict({"x-request-id": "1"}), settings) == _identity(CIMultiDict(), settings)


@pytest.mark.case("S17")
@pytest.mark.parametrize(
    ("client_address", "crosses"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("fe80::1%eth0", True), ("10.2.0.1", False), (None, False)],
)
def test_headers_that_name_the_caller_cross_from_trusted_proxies_alone(
    client_address: str | None, crosses: bool
) -> None:
    settings = ProxySettings.model_validate(
        {"trusted_proxies": ["10.1.0.0/16", "fe80::1"], "proxy_identity_headers": ["X-Proxy-", "x_remote_user"]}
    )
    sent = proxied(("x-proxy-user", "alice"), ("X_Proxy_Ext_Team", "blue"), ("X-Remote-User", "alice"), ("a", "b"))

    kept = forwarded(sent, client_address=client_address, settings=settings)

    assert [name for name in sent if name in kept] == (list(sent) if crosses else ["a"])


def test_elasticsearchs_media_types_have_plain_names() -> None:
    assert plain_media_type("application/vnd.elasticsearch+json; compatible-with=8") == "application/json"
    assert plain_media_type("text/plain") == "text/plain"


@pytest.mark.case("P53")
@pytest.mark.parametrize(
    ("values", "accepted"),
    [
        ([], False),
        ([""], False),
        (["identity"], False),
        (["gzip"], True),
        (["GZIP"], True),
        (["x-gzip"], True),
        (["gzip, deflate, br"], True),
        (["br;q=1.0, gzip;q=0.8, *;q=0.1"], True),
        (["deflate", "gzip"], True),
        (["*"], True),
        (["gzip;q=0"], False),
        (["gzip; q=0.000, *"], False),
        (["*;q=0.0"], False),
        (["br"], False),
    ],
)
def test_gzip_is_accepted_as_http_has_it(values: list[str], accepted: bool) -> None:
    assert accepts_gzip(proxied(*(("Accept-Encoding", value) for value in values))) is accepted
