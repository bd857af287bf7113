"""Files are whole or absent, and one process at a time writes a run."""

import os
import subprocess
import sys

import pytest

from vitlab.errors import RunError
from vitlab.files import Lock, append_json, read_json_lines, write_bytes, write_json


def test_a_failed_write_leaves_the_old_content_and_no_temporary_file(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_json(file, {"old": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(file, b"new")
    assert file.read_text() == '{\n  "old": 1\n}\n'
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path):
    file = tmp_path / "metrics.jsonl"
    append_json(file, {"step": 1})
    append_json(file, {"step": 2})
    with open(file, "a") as stream:
        stream.write('{"step": 3, "lo')
    assert read_json_lines(file) == [{"step": 1}, {"step": 2}]
    assert read_json_lines(tmp_path / "none.jsonl") == []


def test_a_lock_names_its_holder_and_falls_with_it(tmp_path):
    script = (
        "import sys, pathlib, vitlab.files as files\n"
        f"with files.Lock(pathlib.Path({str(tmp_path / '.lock')!r})):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunError, match=rf"pid {holder.pid} "), Lock(tmp_path / ".lock"):
        pass
    holder.kill()
    holder.communicate()
    with Lock(tmp_path / ".lock"):
        assert f"pid {os.getpid()}" in (tmp_path / ".lock").read_text()
