"""The examples of docs/containers.rst: true YAML, with settings that there are."""
from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any, Iterator

import pytest

from net.settings import TABLE, parse_named

yaml = pytest.importorskip("yaml")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "containers.rst"
#: What stands for a value that is given elsewhere.
ELSEWHERE = {"$(HOST_IP)": "192.0.2.7",
             "${NET_SECRET:?make one with python3 -m net secret}": "s" * 16}


def documents() -> list[dict[str, Any]]:
    blocks = re.findall(r"^\.\. code-block:: yaml\n\n((?:   .*\n|\n)+)", PAGE.read_text(), re.M)
    return [one for block in blocks for one in yaml.safe_load_all(textwrap.dedent(block))]


def containers(document: dict[str, Any]) -> Iterator[tuple[dict[str, str], dict[int, int]]]:
    """The NET_ variables of each container, and its published ports: outer -> inner."""
    for service in document.get("services", {}).values():
        ports = dict(map(int, port.split(":")) for port in service.get("ports", ()))
        yield {name: str(value) for name, value in service["environment"].items()}, ports
    spec = document.get("spec", {})
    for container in spec.get("template", {}).get("spec", spec).get("containers", ()):
        ports = {port["hostPort"]: port["containerPort"] for port in container["ports"]
                 if "hostPort" in port}
        yield {one["name"]: str(one.get("value", "s" * 16)) for one in container["env"]
               if one["name"].startswith("NET_")}, ports


def test_each_example_has_settings_that_there_are_and_publishes_what_it_advertises():
    kinds = [document.get("kind", "Compose") for document in documents()]
    assert kinds == ["Compose", "Compose", "Service", "Deployment", "Pod"]
    found = [one for document in documents() for one in containers(document)]
    assert len(found) == 5
    for variables, ports in found:
        values = {}
        for name, text in variables.items():
            for placeholder, value in ELSEWHERE.items():
                text = text.replace(placeholder, value)
            values[name] = TABLE[name[4:].lower()].read(name, text)
        assert values["NET_SECRET"] and values["NET_PEERS"]
        assert ("NET_ADVERTISE" in values) is bool(ports)
        if ports:
            assert values["NET_PORT_RANGE"] == 0 and ports == {values["NET_ADVERTISE"][1]: 3010}


def test_what_the_examples_name_is_in_them():
    services = {name for document in documents() for name in document.get("services", {})}
    headless = [document for document in documents() if document.get("kind") == "Service"]
    assert [one["spec"]["clusterIP"] for one in headless] == ["None"]
    services |= {one["metadata"]["name"] for one in headless}
    entries = [entry for document in documents() for variables, _ in containers(document)
               for entry in variables["NET_PEERS"].split(",")]
    named = {parse_named(entry)[0] for entry in entries}
    assert {name for name in named if not name[0].isdigit()} <= services
