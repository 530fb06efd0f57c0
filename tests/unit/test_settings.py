"""Settings: from variables, by configure and by assignment, and what they refuse."""
from __future__ import annotations

import decimal
import fractions
import pathlib
import re
import sys
import threading
import types

import pytest

import net
from net import settings as settings_module
from net.settings import GIB, MIB, Settings, TABLE, is_loopback, parse_group
from net.errors import NetError, SettingError
from each import each

DOCUMENTED = {"thread_limit": 5, "port_start": 3010, "port_range": 5, "group": None,
              "is_hub": False}


def variable(name: str) -> str:
    return "NET_" + name.upper()


# ------------------------------------------------------------------------------- defaults


def test_the_documented_defaults(fresh_settings):
    for name, default in DOCUMENTED.items():
        assert getattr(fresh_settings, name) == default
        assert type(getattr(fresh_settings, name)) is type(default)


def test_the_other_defaults(fresh_settings):
    assert fresh_settings.launch is True and fresh_settings.sweep is None
    assert fresh_settings.timeout is None and fresh_settings.host is None
    assert (fresh_settings.max_text, fresh_settings.max_buffers) == (16 * MIB, GIB)
    assert (fresh_settings.max_depth, fresh_settings.max_connections) == (100, 512)
    assert fresh_settings.max_calls == 64
    assert (fresh_settings.request_time, fresh_settings.idle_time) == (30.0, 300.0)
    assert fresh_settings.traceback == "full" and fresh_settings.facts == {}


def test_every_setting_is_on_the_page_about_them():
    page = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "environment.rst").read_text()
    assert not [name for name in TABLE if f"``NET_{name.upper()}``" not in page]


@pytest.mark.parametrize("value", [0, -1, 65536, 1.5, "many", None])
def test_a_number_of_calls_is_at_least_one(fresh_settings, value):
    with pytest.raises(SettingError, match="MAX_CALLS"):
        fresh_settings.set("max_calls", value)
    fresh_settings.set("max_calls", "1")
    assert fresh_settings.max_calls == 1


def test_each_value_that_is_set_is_a_change(fresh_settings):
    seen = [fresh_settings.changes]
    for act in (lambda: fresh_settings.set("facts", {"gpus": 2}),
                lambda: fresh_settings.set("name", "node 7"), fresh_settings.reset):
        act()
        seen.append(fresh_settings.changes)
    assert len(set(seen)) == 4


def test_every_default_is_a_value_that_the_setting_takes():
    for name, setting in TABLE.items():
        assert setting.parse(setting.default) == setting.default, name


def test_the_limits_of_a_message_follow_the_settings(fresh_settings):
    assert fresh_settings.limits == (16 * MIB, GIB, 100)
    assert fresh_settings.limits is fresh_settings.limits
    for name in ("text", "buffers", "depth"):
        fresh_settings.set("max_" + name, 150_000 if name != "depth" else 7)
        assert getattr(fresh_settings.limits, name) == getattr(fresh_settings, "max_" + name)
    fresh_settings.reset()
    assert fresh_settings.limits == (16 * MIB, GIB, 100)


def test_limits_that_another_thread_changes_while_they_are_made_are_made_anew(fresh_settings):
    class Racing(Settings):
        @property
        def max_depth(self) -> int:  # type: ignore[override]
            self.set("max_text", 5000)
            return 7

    assert Racing().limits.text == 5000


# ------------------------------------------------------------------------------ variables


@each("name, text, value", [
    ("thread_limit", "12", 12), ("thread_limit", " 12 ", 12), ("thread_limit", "0", 0),
    ("port_start", "1", 1), ("port_start", "65535", 65535), ("port_range", "0", 0),
    ("engine", "zenoh", "zenoh"), ("engine", "", None), ("router", "tls/hub.example:7447",
                                                         ("tls/hub.example:7447",)),
    ("router", "tls/10.0.0.1:1, tcp/[fd00::1]:65535", ("tls/10.0.0.1:1", "tcp/[fd00::1]:65535")),
    ("group", "render", "render"), ("group", "  render ", "render"), ("group", "", None),
    ("group", "a b", "a b"), ("group", "g" * 64, "g" * 64), ("group", "none", "none"),
    ("is_hub", "1", True), ("is_hub", "true", True), ("is_hub", "TRUE", True), ("is_hub", "yes",
                                                                                True),
    ("is_hub", "on", True), ("is_hub", "0", False), ("is_hub", "False", False),
    ("is_hub", "false", False), ("is_hub", "no", False), ("is_hub", "Off", False), ("is_hub", "",
                                                                                    False),
    ("launch", "0", False), ("sweep", "no", False),
    ("timeout", "2", 2.0), ("timeout", "0.5", 0.5), ("timeout", "1e3", 1000.0), ("timeout", "",
                                                                                 None),
    ("request_time", "5", 5.0), ("host", "127.0.0.1", "127.0.0.1"),
    ("host", "::1", "::1"), ("host", "LocalHost", "localhost"), ("host", "0.0.0.0", "0.0.0.0"),
    ("host", " 192.0.2.7 ", "192.0.2.7"), ("host", "fe80::1%eth9", "fe80::1%eth9"),
    ("host", "127.1", "127.1"),
    ("peers", "a:1, b:2 ,,", ("a:1", "b:2")), ("peers", "", ()), ("traceback", "none", "none"),
    ("advertise", "192.0.2.7:4000", ("192.0.2.7", 4000)),
    ("advertise", " 192.0.2.7 ", ("192.0.2.7", None)),
    ("advertise", "[FD00::1]:3010", ("fd00::1", 3010)),
    ("facts", '{"gpus": [1, 2]}', {"gpus": [1, 2]}), ("facts", "", {}), ("max_text", "1024", 1024),
])
def test_a_variable_is_read_by_its_type(fresh_settings, monkeypatch, name, text, value):
    with monkeypatch.context() as patch:
        patch.setenv(variable(name), text)
        fresh_settings.reset()
        assert getattr(fresh_settings, name) == value
        assert type(getattr(fresh_settings, name)) is type(value)


def test_an_entry_of_net_peers_without_sense_is_named(fresh_settings, monkeypatch):
    named = [f"10.1.{number}.1" for number in range(100)]
    monkeypatch.setenv("NET_PEERS", ",".join([*named, "10.1.2.3:70000"]))
    with pytest.raises(SettingError, match=r"'10\.1\.2\.3:70000' has no port from 1 to 65535"):
        fresh_settings.peers
    with pytest.raises(SettingError, match=r"PEERS .*'10\.1\.2' is neither an IP address nor"):
        fresh_settings.set("peers", ["10.1.2"])


@pytest.mark.parametrize("value", [("192.0.2.7", 4000), ("192.0.2.7", None)])
def test_an_advertised_address_may_be_a_pair(fresh_settings, value):
    fresh_settings.set("advertise", value)
    assert fresh_settings.advertise == value
    for wrong in (("192.0.2.7",), ("192.0.2.7", "4000"), (1, 2), ("nas", 3010), 7):
        with pytest.raises(SettingError, match="ADVERTISE must"):
            fresh_settings.set("advertise", wrong)


def test_false_means_false(fresh_settings, monkeypatch):
    monkeypatch.setenv("NET_IS_HUB", "False")
    assert fresh_settings.is_hub is False


@each("name, text", [
    ("thread_limit", "abc"), ("thread_limit", ""), ("thread_limit", "-1"), ("thread_limit", "1.5"),
    ("thread_limit", "9" * 5000), ("thread_limit", "1025"), ("port_start", "abc"),
    ("port_start", "70000"), ("port_start", "0"), ("port_start", "-3010"), ("port_range", "-1"),
    ("is_hub", "maybe"), ("is_hub", "2"), ("is_hub", "None"), ("timeout", "soon"), ("timeout", "0"),
    ("timeout", "-1"), ("timeout", "nan"), ("timeout", "inf"), ("request_time", ""),
    ("engine", "nats"), ("engine", "zenoh "), ("router", ""), ("router", "hub.example:7447"),
    ("router", "tls/hub.example"), ("router", "udp/hub.example:1"), ("router", "tls/a:1,tls/b:0"),
    ("router", "tls/a:1,tls/[fd00::1]:1"),
    ("group", "a\nb"), ("group", "g" * 65), ("group", "None"), ("group", " None "),
    ("group", "\x1b[31m"), ("host", "a\tb"), ("host", ""), ("host", " "), ("host", "127.0.0.l"),
    ("host", "localhost."), ("host", "192.0.2"), ("host", "192.0.2.256"), ("host", "nas.lan"),
    ("host", "127.0.0.1 x"), ("host", "127.0.0.1,10.0.0.1"), ("host", "[::1]"), ("host", "::g"),
    ("interfaces", ""), ("interfaces", " , "),
    ("peers", "10.1.2.3,10.1.2.300"), ("peers", "10.1.2.3:0"), ("peers", "render farm"),
    ("advertise", ""), ("advertise", "nas.lan:3010"), ("advertise", "192.0.2.7:0"),
    ("advertise", "0.0.0.0:3010"), ("advertise", "224.0.0.1"), ("advertise", "192.0.2.7:3010,"),
    ("name", "n" * 65), ("facts", "[1]"), ("facts", "{"), ("facts", "5"),
    ("facts", '{"a": ' * 100_000), ("traceback", "some"), ("max_depth", "0"), ("max_depth", "201"),
    ("max_text", "1000"), ("allow", "192.0.2.300"), ("allow", "everybody"), ("secret", "short"),
    ("secret", ""), ("tls_cert", ""),
])
def test_a_bad_value_names_the_variable(fresh_settings, monkeypatch, name, text):
    fresh_settings.reset()
    with monkeypatch.context() as patch:
        patch.setenv(variable(name), text)
        with pytest.raises(SettingError, match=f"^{variable(name)} must") as caught:
            getattr(fresh_settings, name)
        # It is not forgotten, and mended without a new process.
        with pytest.raises(SettingError):
            getattr(fresh_settings, name)
    assert getattr(fresh_settings, name) == TABLE[name].default
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, NetError)
    if name == "secret":
        assert "short" not in str(caught.value).replace("shorter", "")
    else:
        assert f"not {text!r}"[:50] in str(caught.value)


def test_the_old_name_of_the_first_port_is_read_too(fresh_settings, monkeypatch):
    monkeypatch.setenv("NET_PORT", "4000")
    assert fresh_settings.port_start == 4000


def test_the_documented_name_of_the_first_port_counts_more(fresh_settings, monkeypatch):
    monkeypatch.setenv("NET_PORT", "4000")
    monkeypatch.setenv("NET_PORT_START", "5000")
    assert fresh_settings.port_start == 5000


def test_a_bad_value_under_the_old_name_names_that(fresh_settings, monkeypatch):
    monkeypatch.setenv("NET_PORT", "x")
    with pytest.raises(SettingError, match="^NET_PORT must"):
        fresh_settings.port_start


def test_a_variable_is_read_at_the_first_use_and_kept(fresh_settings, monkeypatch):
    monkeypatch.setenv("NET_TIMEOUT", "5")
    assert fresh_settings.timeout == 5
    monkeypatch.setenv("NET_TIMEOUT", "6")
    assert fresh_settings.timeout == 5
    fresh_settings.reset()
    assert fresh_settings.timeout == 6


# ------------------------------------------------------------------------------------ ports


def test_the_ports_are_inclusive(fresh_settings):
    assert list(fresh_settings.ports) == [3010, 3011, 3012, 3013, 3014, 3015]
    fresh_settings.set("port_range", 0)
    assert list(fresh_settings.ports) == [3010]


def test_ports_that_do_not_exist_are_refused(fresh_settings):
    fresh_settings.set("port_start", 65530)
    assert fresh_settings.ports[-1] == 65535
    fresh_settings.set("port_start", 65531)
    with pytest.raises(SettingError, match=r"NET_PORT_START \+ NET_PORT_RANGE .* not 65536"):
        fresh_settings.ports


# ------------------------------------------------------------------- configure and assignment


@each("name, value, taken", [
    ("thread_limit", 0, 0), ("thread_limit", "7", 7), ("is_hub", True, True), ("is_hub", "no",
                                                                               False),
    ("is_hub", 1, True), ("is_hub", 0, False), ("group", None, None), ("group", "x", "x"),
    ("timeout", None, None), ("timeout", 3, 3.0), ("timeout", fractions.Fraction(1, 2), 0.5),
    ("timeout", 1e300, 1e300), ("facts", {"a": (1, 2)}, {"a": [1, 2]}), ("facts", None, {}),
    ("peers", ["a:1", "b:2"], ("a:1", "b:2")), ("peers", None, ()), ("launch", False, False),
    ("sweep", None, None), ("sweep", True, True), ("sweep", 0, False),
    ("tls_cert", pathlib.Path("/a/b"), "/a/b"),
])
def test_a_setting_can_be_given_typed_or_as_text(fresh_settings, name, value, taken):
    fresh_settings.reset()
    fresh_settings.set(name, value)
    assert getattr(fresh_settings, name) == taken
    assert type(getattr(fresh_settings, name)) is type(taken)


@each("name, value", [
    ("thread_limit", None), ("thread_limit", 1.5), ("thread_limit", True), ("thread_limit", [1]),
    ("thread_limit", 5.0), ("thread_limit", decimal.Decimal("3.5")), ("thread_limit", b"5"),
    ("thread_limit", -1), ("thread_limit", 10 ** 1000), ("is_hub", None), ("is_hub", 2),
    ("is_hub", []), ("timeout", True), ("timeout", -1), ("timeout", float("nan")),
    ("timeout", float("inf")), ("timeout", 10 ** 400), ("timeout", "x"), ("timeout", [1]),
    ("request_time", None), ("group", 5), ("group", b"x"), ("group", ["x"]), ("host", 5),
    ("peers", 5), ("peers", [5]), ("peers", object()), ("peers", b"a:1"), ("facts", []),
    ("facts", {"a": object()}), ("facts", 5), ("traceback", None), ("traceback", []),
    ("tls_cert", 5), ("tls_cert", b"x"), ("secret", 5), ("secret", b"x" * 32), ("allow", [5]),
])
def test_a_bad_value_names_the_setting(fresh_settings, name, value):
    fresh_settings.reset()
    with pytest.raises(SettingError, match=f"^{name.upper()} must"):
        fresh_settings.set(name, value)
    assert getattr(fresh_settings, name) == TABLE[name].default


def test_an_unknown_setting_is_refused_with_the_known_ones(fresh_settings):
    for name in ("thread_limits", "", "ports", "THREAD_LIMIT", "__class__", "set"):
        with pytest.raises(SettingError, match="thread_limit, port_start"):
            fresh_settings.set(name, 1)
    with pytest.raises(AttributeError):
        fresh_settings.nothing


def test_assignment_to_the_module_counts(kept_settings):
    net.THREAD_LIMIT = 0
    assert net.THREAD_LIMIT == 0 and kept_settings.thread_limit == 0
    net.THREAD_LIMIT = "9"
    assert net.THREAD_LIMIT == 9
    with pytest.raises(SettingError, match="THREAD_LIMIT must be from 0 to 1024, not -1"):
        net.THREAD_LIMIT = -1
    assert net.THREAD_LIMIT == 9


def test_configure_counts_and_is_what_the_module_shows(kept_settings):
    net.configure(group="render", is_hub=True, timeout=2.5, facts={"gpus": 2})
    assert (net.GROUP, net.IS_HUB, net.TIMEOUT, net.FACTS) == ("render", True, 2.5, {"gpus": 2})
    net.configure(group=None)
    assert net.GROUP is None
    with pytest.raises(SettingError, match="no setting 'speed'"):
        net.configure(speed=1)


def test_the_module_has_no_other_names_in_upper_case():
    with pytest.raises(AttributeError, match="NOTHING"):
        net.NOTHING
    with pytest.raises(AttributeError):
        net.thread_limit
    assert not hasattr(net, "PORTS")


def test_every_documented_name_of_the_module_is_there(kept_settings):
    for name in DOCUMENTED:
        assert hasattr(net, name.upper())
    from net import PORT_START  # type: ignore[attr-defined]
    assert PORT_START == kept_settings.port_start


def test_a_type_checker_knows_the_names_that_configure_takes():
    source = pathlib.Path(net.__file__).read_text(encoding="utf-8")
    names = source.partition('TypedDict("_Values", {')[2].partition("}")[0]
    assert re.findall(r'"(\w+)": Any', names) == list(TABLE)


def test_the_facts_are_a_copy(fresh_settings):
    given = {"a": [1]}
    fresh_settings.set("facts", given)
    given["a"].append(2)
    assert fresh_settings.facts == {"a": [1]}


# Characters of each length in UTF-8, one that JSON escapes, and one that does not travel as UTF-8.
@pytest.mark.parametrize("letter, size", [("a", 1), ("é", 2), ("\U0001f600", 4), ("\n", 2),
                                          ("\ud800", 3)])
def test_facts_have_a_limit_in_bytes_of_json(fresh_settings, monkeypatch, letter, size):
    room = settings_module.MAX_FACTS - len('{"a": ""}')
    text = letter * (room // size) + "x" * (room % size)
    fresh_settings.set("facts", {"a": text})
    assert fresh_settings.facts == {"a": text}
    with pytest.raises(SettingError, match="^FACTS must be at most 32 KiB .* NET_FACTS or "
                                           r"net.configure\(facts=...\) has 32,769 b") as caught:
        fresh_settings.set("facts", {"a": text + "x"})
    assert len(str(caught.value)) < 500
    assert fresh_settings.facts == {"a": text}
    fresh_settings.reset()
    monkeypatch.setenv("NET_FACTS", '{"a": "' + "y" * (room + 1) + '"}')
    with pytest.raises(SettingError, match="^NET_FACTS must be at most 32 KiB of JSON"):
        fresh_settings.facts


def test_spaces_between_the_facts_do_not_count(fresh_settings, monkeypatch):
    monkeypatch.setenv("NET_FACTS", '{"a":' + " " * settings_module.MAX_FACTS + "1}")
    assert fresh_settings.facts == {"a": 1}


def test_settings_can_be_read_from_many_threads(fresh_settings, monkeypatch):
    monkeypatch.setenv("NET_THREAD_LIMIT", "17")
    found = []
    threads = [threading.Thread(target=lambda: found.append(fresh_settings.thread_limit))
               for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [17] * 20


def test_a_secret_is_never_shown(fresh_settings, monkeypatch):
    monkeypatch.setenv("NET_SECRET", "a secret of many letters")
    secret = fresh_settings.secret
    assert secret.reveal() == "a secret of many letters"
    assert "letters" not in f"{secret!r} {secret!s} {vars(fresh_settings)}"
    assert fresh_settings.secured and not Settings().__dict__


# ----------------------------------------------------------------------------------- groups


@each("group", ["None", "a\0", "g" * 65, 5, b"g"])
def test_what_is_no_name_of_a_group_is_refused(group):
    with pytest.raises(ValueError):
        parse_group(group)


# --------------------------------------------------------------------------------- loopback


@each("host", ["127.0.0.1", "127.0.0.2", "127.255.255.254", "localhost", "LOCALHOST", "::1",
               "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "127.1", "::1%lo"])
def test_loopback_hosts_keep_everything_here(fresh_settings, host):
    assert is_loopback(host)
    fresh_settings.set("host", host)
    assert fresh_settings.loopback_only


@each("host", ["192.0.2.1", "0.0.0.0", "::", "fe80::1", "127.evil.example", "128.0.0.1",
               "127.0.0.1.example", "127.0.0.256", "127.0.0.1.5", "localhost.example", "127.",
               "127", "1270.0.0.1", "::127.0.0.1", "::2", "", "host", "%", "a%::1"])
def test_other_hosts_do_not(host):
    assert not is_loopback(host)


def test_without_a_host_nothing_is_kept_here(fresh_settings):
    assert not fresh_settings.loopback_only


# --------------------------------------------------------------------------- the module itself

def test_dir_shows_the_api_and_the_settings_and_nothing_else():
    assert dir(net) == sorted([*net.__all__, *map(str.upper, TABLE)])
    assert "peer" not in dir(net) and net.peer is not None


def test_every_setting_is_declared_for_type_checkers():
    assert {name.lower() for name in net.__annotations__} == set(TABLE)


def test_assigning_an_unknown_setting_is_refused_as_configure_does(kept_settings):
    for wrong in ("TIMOUT", "X", "NET_TIMEOUT"):
        with pytest.raises(SettingError, match=f"no setting '{wrong.lower()}';.* are thread_l"):
            setattr(net, wrong, 5)
        assert not hasattr(net, wrong)


# ------------------------------------------------------------------- mistakes that would open

def test_an_interface_may_be_named_by_net_host(fresh_settings, monkeypatch):
    class Ip:
        def __init__(self, ip, is_ipv4, nice_name="Ethernet"):
            self.ip, self.is_IPv4, self.nice_name = ip, is_ipv4, nice_name

    class Adapter:
        name, nice_name = "eth9", "Ethernet"
        ips = [Ip(("fe80::1", 0, 2), False), Ip("192.0.2.9", True)]

    monkeypatch.setitem(sys.modules, "ifaddr", types.SimpleNamespace(
        get_adapters=lambda: [Adapter]))
    fresh_settings.set("host", "eth9")
    assert fresh_settings.host == "192.0.2.9"
    monkeypatch.setitem(sys.modules, "ifaddr", None)
    with pytest.raises(SettingError, match="must be a numeric address"):
        fresh_settings.set("host", "eth9")


@pytest.mark.parametrize("variable, meant", [
    ("NET_SECERT", "NET_SECRET"), ("NET_SECRETS", "NET_SECRET"), ("NET_HOTS", "NET_HOST"),
    ("NET_HOSTS", "NET_HOST"), ("NET_ALOW", "NET_ALLOW"), ("NET_TLS_CERTS", "NET_TLS_CERT"),
    ("NET_SECRETFILE", "NET_SECRET_FILE"),
])
def test_a_misspelt_variable_that_protects_is_refused(fresh_settings, monkeypatch, variable, meant):
    monkeypatch.setenv(variable, "x")
    for _ in range(2):
        with pytest.raises(SettingError, match=f"{variable} is no setting of app-net; is {meant} "):
            fresh_settings.timeout


def test_no_variable_is_found_to_make_no_sense_only_when_it_is_needed(fresh_settings, monkeypatch):
    """Or a peer would serve, and fail the first call that needs it, or send before it does."""
    for name in ("idle_time", "traceback", "allow", "max_connections", "sweep", "unix"):
        monkeypatch.setenv(variable(name), "nonsense")
        with pytest.raises(SettingError, match=variable(name)):
            fresh_settings.timeout
        monkeypatch.delenv(variable(name))
    assert fresh_settings.timeout is None


def test_a_variable_that_makes_no_sense_does_not_matter_once_its_setting_has_a_value(
        fresh_settings, monkeypatch):
    monkeypatch.setenv("NET_IDLE_TIME", "nonsense")
    fresh_settings.set("idle_time", 5)
    assert (fresh_settings.timeout, fresh_settings.idle_time) == (None, 5.0)


def test_another_misspelt_variable_is_warned_of_once(fresh_settings, monkeypatch):
    monkeypatch.setenv("NET_TIMOUT", "5")
    with pytest.warns(RuntimeWarning, match="NET_TIMOUT is no setting.*NET_TIMEOUT meant"):
        assert fresh_settings.timeout is None
    assert fresh_settings.thread_limit == 5


def test_variables_of_others_are_none_of_our_business(fresh_settings, monkeypatch):
    for name in ("NET_USER", "NET_MODE", "NET_ADMIN", "NET_HOSTNAME", "NET_TEST_FACTOR",
                 "NETWORK", "NET", "NET_", "NET_FRAMEWORK_VERSION"):
        monkeypatch.setenv(name, "x")
    assert fresh_settings.timeout is None
