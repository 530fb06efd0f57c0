from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

TESTS = [
    "hypothesis>=6.80",
    "pytest>=7.4",
    "pytest-timeout>=2.1",
    # Numpy and cryptography are optional for users, but what we do with them is tested.
    "numpy>=1.21",
    "cryptography>=41; implementation_name == 'cpython'",
    # The last one that comes built for PyPy 3.9.
    "cryptography>=41,<44; implementation_name == 'pypy' and python_version < '3.10'",
]
DOCS = ["sphinx>=7.1"]
TOOLS = ["coverage>=7.10", "flake8>=6.1", "tox>=4.11"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def version() -> str:
    """The version that net/__init__.py states, read without importing it."""
    found = re.search(r'^__version__ = "([^"]+)"$', read("net/__init__.py"), re.MULTILINE)
    if found is None:
        raise RuntimeError('net/__init__.py has no line __version__ = "..."')
    return found.group(1)


setup(
    name="app-net",
    version=version(),
    description="Call a function here or on another peer of the LAN: same name, same result.",
    long_description=read("README.rst") + "\n\n" + read("HISTORY.rst"),
    long_description_content_type="text/x-rst",
    author="app-net developers",
    license="MIT",
    license_files=["LICENSE"],
    keywords="peer-to-peer rpc lan discovery events",
    # Every subpackage; nothing beside net.
    packages=find_packages(include=["net", "net.*"]),
    package_data={"net": ["py.typed"]},
    zip_safe=False,
    python_requires=">=3.9",
    install_requires=["ifaddr>=0.2"],
    extras_require={
        "secure": ["cryptography>=41"],
        "test": TESTS,
        "docs": DOCS,
        "dev": TESTS + DOCS + TOOLS,
    },
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: Implementation :: CPython",
        "Programming Language :: Python :: Implementation :: PyPy",
        "Topic :: Software Development :: Libraries",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
)
