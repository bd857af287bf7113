"""The doctor's block tells all about an installation and nothing about its owner."""

import getpass
import json
import socket
import tomllib
from pathlib import Path

import pytest

from vitlab import cli, doctor
from vitlab.training.step import TrainingStep


@pytest.fixture
def owned(tmp_path, monkeypatch) -> Path:
    """A home of somebody, in which the data lies."""
    home = tmp_path / "ada-lovelace"
    (home / "data").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("VITLAB_DATA", str(home / "data"))
    monkeypatch.setenv("VITLAB_CIFAR10_URL", "https://ada:secret@example.org/cifar.tar.gz")
    return home


def test_a_sound_installation_passes_and_its_block_names_nobody(owned, capsys):
    assert cli.main(["doctor", "--device", "cpu", "--json"]) == 0
    block = capsys.readouterr().out
    facts = json.loads(block)
    assert facts["self-test"]["passed"] and facts["self-test"]["resumes bit-identically"]
    assert facts["data"]["digits"] == "comes with scikit-learn"
    assert facts["data"]["cifar10"].startswith("not here")
    assert (
        facts["environment"]["VITLAB_DATA"] == facts["environment"]["VITLAB_CIFAR10_URL"] == "set"
    )
    assert facts["hardware"]["threads"] > 0
    for secret in ("ada", str(owned), socket.gethostname(), str(Path.home())):
        assert secret not in block.replace("metadata", "")
    assert f"/{getpass.getuser()}" not in block


def test_a_broken_installation_is_told_what_broke(owned, monkeypatch, capsys):
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(f"cannot read {owned}/data/secret")

    monkeypatch.setattr(TrainingStep, "__call__", fail)
    assert cli.main(["doctor", "--device", "cpu"]) == 1
    block = capsys.readouterr().out
    assert "OSError: cannot read ~/data/secret" in block
    assert "ada-lovelace" not in block


def test_a_data_root_that_is_no_folder_is_part_of_the_report():
    assert doctor.found("cifar10", "/no/such/folder") == "the data root is no folder"


def test_the_doctor_knows_every_extra():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for name, packages in doctor.EXTRAS.items():
        assert [words.partition(">")[0] for words in extras[name]] == list(packages)
    assert set(extras) - set(doctor.EXTRAS) == {"dev"}
