"""Files are whole or absent; JSON stays readable."""

import io
import json
import sys

import pytest

from ltkd.files import progress, read_json, shown, write_atomically, write_json


def test_json_comes_back_and_a_matrix_row_takes_one_line(tmp_path):
    value = {"rows": [[1, 2.5], [None, -3e-7]], "names": ["a [1,  2]", "日本"], "empty": []}
    write_json(tmp_path / "value.json", value)
    text = (tmp_path / "value.json").read_text()
    assert json.loads(text) == value
    assert "[1, 2.5]" in text and "日本" in text


def test_a_name_that_is_no_text_comes_back(tmp_path):
    write_json(tmp_path / "value.json", {"folder": "caf\udce9"})
    assert read_json(tmp_path / "value.json") == {"folder": "caf\udce9"}


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "caf\udce9"])
def test_damaged_json_is_one_sentence(tmp_path, text):
    (tmp_path / "value.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"value.json is damaged \(.*\): restore or delete it\.$"):
        read_json(tmp_path / "value.json")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(file):
        file.write(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


def test_an_unwritable_place_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"Could not write .* Check that the folder can be written"):
        write_atomically(tmp_path / "file" / "below", lambda file: file.write(b"text"))


def test_paths_are_shown_from_home_on(home, tmp_path):
    assert shown(home / "saved_model" / "x.pth") == "saved_model/x.pth"
    assert shown(tmp_path / "elsewhere") == str(tmp_path / "elsewhere")


def test_no_bar_where_nobody_watches(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert progress(range(3)).disable


@pytest.mark.parametrize(("terminal", "notebook"), [(True, False), (False, True)])
def test_a_bar_in_a_terminal_or_a_notebook(terminal, notebook, monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    if notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", None)
    else:
        monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert not progress(range(3)).disable
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert progress(range(3)).disable


def test_what_is_half_written_lies_beside_its_target(tmp_path):
    """On one file system, so that it can be renamed; hidden, so that nobody takes it for whole."""
    seen = []
    write_atomically(tmp_path / "a.txt", lambda file: seen.extend(tmp_path.iterdir()))
    assert [f.name.startswith(".a.txt.") and f.suffix == ".part" for f in seen] == [True]
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]
