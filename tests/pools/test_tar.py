import io
import tarfile

import pytest
from made_up import picture, tar_members, write_tar

from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.pools.tar import TarReader, TarWriter


def read(path):
    with TarReader(str(path)) as reader:
        return [(m.name, reader.read(m)) for m in reader.members()]


def test_reads_what_tarfile_writes_in_each_format(tmp_path):
    long_name = "d" * 90 + "/" + "f" * 80 + ".txt"
    members = [("a.jpg", b"x" * 513), ("a.txt", b""), (long_name, b"long"), ("ünïcode.txt", b"u")]
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        path = tmp_path / f"{kind}.tar"
        with tarfile.open(path, "w", format=kind) as tar:
            folder = tarfile.TarInfo("somewhere")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        assert read(path) == members


def test_writes_what_tarfile_reads_and_the_same_bytes_each_time(tmp_path):
    made = []
    for _ in range(2):
        buffer = io.BytesIO()
        writer = TarWriter(buffer)
        writer.add_sample("k", {"jpg": b"1" * 600, "txt": b"two"})
        writer.add("l" * 150 + ".txt", b"long")
        writer.finish()
        made.append(buffer.getvalue())
    assert made[0] == made[1]
    (tmp_path / "x.tar").write_bytes(made[0])
    want = [("k.jpg", b"1" * 600), ("k.txt", b"two"), ("l" * 150 + ".txt", b"long")]
    assert tar_members(tmp_path / "x.tar") == want == read(tmp_path / "x.tar")


def test_samples_group_neighbours_by_key_as_webdataset_does(tmp_path):
    write_tar(
        tmp_path / "x.tar",
        [
            ("a.jpg", b"1"),
            ("a.TXT", b"2"),
            ("b.seg.png", b"3"),
            ("d/a.jpg", b"4"),
            ("d/a.jpg", b"5"),
            ("noext", b"6"),
        ],
    )
    with TarReader(str(tmp_path / "x.tar")) as reader:
        found = [(s.key, sorted(s.members)) for s in reader.samples()]
    assert found == [("a", ["jpg", "txt"]), ("b", ["seg.png"]), ("d/a", ["jpg"]), ("d/a", ["jpg"])]


@pytest.mark.parametrize("cut", [0, 100, 600, 1024, 1600, 2048])
def test_every_truncation_is_an_error_that_names_the_file(tmp_path, cut):
    write_tar(tmp_path / "x.tar", [("a.jpg", b"x" * 700), ("a.txt", b"y" * 10)])
    whole = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:cut])
    with pytest.raises(CorruptDataError, match=r"cut\.tar"):
        read(tmp_path / "cut.tar")


def test_a_flipped_header_byte_is_an_error(tmp_path):
    write_tar(tmp_path / "x.tar", [("a.jpg", b"x" * 700), ("a.txt", b"y")])
    data = bytearray((tmp_path / "x.tar").read_bytes())
    data[512 + 1024 + 3] ^= 0x20
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(CorruptDataError, match="checksum"):
        read(tmp_path / "x.tar")


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil.txt", "a/../../evil.txt"])
def test_names_that_would_leave_the_folder_are_refused(tmp_path, name):
    write_tar(tmp_path / "x.tar", [("ok.txt", b"1"), (name, b"2")])
    with pytest.raises(BadInputError, match="would leave the folder"):
        read(tmp_path / "x.tar")


def test_pictures_survive(tmp_path):
    write_tar(tmp_path / "x.tar", [("a.jpg", picture(1)), ("a.txt", b"t")])
    assert dict(read(tmp_path / "x.tar"))["a.jpg"] == picture(1)


def test_a_zeroed_header_is_not_the_end(tmp_path):
    write_tar(tmp_path / "x.tar", [("a.jpg", b"x" * 700), ("a.txt", b"y"), ("b.txt", b"z")])
    data = bytearray((tmp_path / "x.tar").read_bytes())
    data[1536:2048] = bytes(512)
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(CorruptDataError, match="zeros where a header should be"):
        read(tmp_path / "x.tar")
