"""Packages of alertbeam; Beam ships them to workers with `--setup_file ./setup.py`."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="alertbeam",
    version="0.1.0",
    description="Microsoft security alerts from Event Hubs into every SIEM, each accounted for",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["pipelines*", "transforms*", "schemas*"]),
    package_data={
        "schemas": ["py.typed"],
        "transforms": ["py.typed", "shapes.json"],
        "pipelines": ["report/page.html", "what_if/page.html"],
    },
    install_requires=[
        "apache-beam[azure]==2.77.0",
        "azure-eventhub==5.15.1",  # its private parts are used: transforms/read/sdk.py
        "azure-identity>=1.27,<2",
        "prometheus-client>=0.26,<0.27",  # its private parts are used: transforms/metrics.py
        "azure-storage-blob>=12.28,<13",
        "fastavro>=1.10,<2",
        "isal>=1.7,<2",  # inflates Capture's blocks at twice zlib's speed
        "jinja2>=3.1.6,<4",
        "mmh3>=5.2,<6",  # how Flink finds the worker of a key: transforms/spread.py
        "msgspec>=0.22,<0.23",
        "pyarrow",  # Beam's own
        "pydantic>=2.14,<3",
        "rich>=15,<16",
        "ruamel.yaml>=0.19,<0.20",
        "typer>=0.29,<0.30",
        "urllib3>=2.5,<3",
        "zstandard>=0.23,<1",  # a codec of Avro's
    ],
    extras_require={
        "kafka": ["confluent-kafka>=2.16,<3"],
        "google": ["google-auth>=2.40,<3"],  # google_secops
        "gs": ["google-auth-httplib2>=0.2,<1", "google-cloud-storage>=3,<4"],  # Beam's needs both
        "s3": ["boto3>=1.40,<2"],  # the file sink's s3://
        "dev": [
            "avro[snappy,zstandard]==1.12.2",  # Apache's own writer of it
            "azure-eventhub-checkpointstoreblob==1.2.0",
            "boto3",
            "confluent-kafka",
            "cryptography",  # test certificates
            "duckdb",
            "google-auth",
            "google-auth-httplib2",
            "google-cloud-storage",
            "hypothesis",
            "jsonschema",
            "mypy",
            "ocsf-json-schema",  # OCSF's published schemas, and models of its classes
            "py-ocsf-models",
            "pyjwt",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
        ],
    },
    entry_points={"console_scripts": ["alertbeam = pipelines.cli:main"]},
)
