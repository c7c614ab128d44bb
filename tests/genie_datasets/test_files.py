"""Files that appear whole or not at all, folders, and locks."""

import os
import subprocess
import sys

import pytest

from genie_datasets.base.errors import UserError
from genie_datasets.base.file_lock import file_lock, is_at
from genie_datasets.base.files import atomic_file, make_folder, write_atomically


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_appears_when_the_block_ends_without_an_error(tmp_path, durable):
    path = tmp_path / "new" / "file"
    with atomic_file(path, durable) as stream:
        stream.write(b"one")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), atomic_file(path, durable) as stream:
        stream.write(b"two" * (1 // 0))
    assert path.read_bytes() == b"one"
    assert os.listdir(path.parent) == ["file"]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    write_atomically(tmp_path / "file", b"one")
    with pytest.raises(UserError, match=r"cannot write .*file/below \(File exists\): free disk space, or choose"):
        write_atomically(tmp_path / "file" / "below", b"two")
    (tmp_path / "file.tmp").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        write_atomically(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_bytes() == b"one"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    assert make_folder(tmp_path / "a" / "b").is_dir()
    assert make_folder(str(tmp_path / "a")) == tmp_path / "a"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file cannot be made or written \(it is a file\); choose another folder"):
        make_folder(tmp_path / "file")


HOLDER = """
import sys, time
from pathlib import Path
from genie_datasets.base.file_lock import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_is_refused_while_it_is_held_and_free_when_its_holder_dies(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BlockingIOError), file_lock(path, wait=False):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with file_lock(path, wait=False), file_lock(tmp_path / "other", wait=False) as other:
        assert is_at(other, tmp_path / "other")
        (tmp_path / "other").unlink()
        assert not is_at(other, tmp_path / "other")
