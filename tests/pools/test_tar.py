import io
import itertools
import random
import tarfile

import numpy as np
import pytest
from made_up import picture, tar_members, write_tar

from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.pools import tar_index
from gristmill.pools.tar import TarReader, TarWriter, member_header
from gristmill.pools.tar_batch import BatchCopier, Members, headers


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


def indexed(path, way=tar_index.index_tar):
    """Samples as lists of (extension, offset, size); None when the way gives no index."""
    with TarReader(str(path)) as reader:
        index = way(reader)
        if index is None:
            return None
        rows = zip(index.kinds, index.offsets, index.sizes, strict=True)
        members = [(index.extensions[k], int(o), int(n)) for k, o, n in rows]
        return [members[a:b] for a, b in itertools.pairwise(index.starts)]


def grouped(path):
    with TarReader(str(path)) as reader:
        return [[(e, m.offset, m.size) for e, m in s.members.items()] for s in reader.samples()]


ODD_NAMES = ["noext", ".hidden", "a.", "A.JPG", "d.e/f", "d.e/f.txt", "b.seg.PNG", "a..b", ".x.y"]


@pytest.mark.parametrize("seed", range(30))
def test_the_index_lists_what_a_walk_finds(tmp_path, seed):
    rng = random.Random(seed)
    names = [f"{rng.randrange(9):03d}.{rng.choice(['jpg', 'json', 'txt'])}" for _ in range(30)]
    names[rng.randrange(30)] = rng.choice(ODD_NAMES)
    names[rng.randrange(30)] = rng.choice(
        ["ü.txt", "d" * 60 + "/" + "f" * 60 + ".jpg", "n" * 96 + ".jpg", "x.y"]
    )
    kind = rng.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
    with tarfile.open(tmp_path / "x.tar", "w", format=kind) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = rng.choice([0, 1, 511, 512, 513, 9000]), rng.random()
            if kind != tarfile.PAX_FORMAT:
                info.mtime = 5
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    assert indexed(tmp_path / "x.tar") == grouped(tmp_path / "x.tar")


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_plain_tars_are_indexed_the_quick_way(tmp_path, kind):
    """webdataset's own writer stores fractions of seconds, which take a pax header a member."""
    with tarfile.open(tmp_path / "x.tar", "w", format=kind) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for i in range(20):
            for extension in ("jpg", "txt"):
                info = tarfile.TarInfo(f"folder/{i:05d}.{extension}")
                info.size, info.mtime = 600 * i, 0.5 if kind == tarfile.PAX_FORMAT else 5
                tar.addfile(info, io.BytesIO(bytes(info.size)))
    quick = indexed(tmp_path / "x.tar", tar_index._quick)
    assert quick == grouped(tmp_path / "x.tar") and len(quick) == 20


def test_no_damage_to_headers_escapes_the_index(tmp_path):
    """A changed byte gives the walk's error, byte and all, or the walk's samples."""
    write_tar(tmp_path / "x.tar", [("a.jpg", b"x" * 700), ("a.txt", b"y"), ("b.txt", b"z" * 30)])
    whole = (tmp_path / "x.tar").read_bytes()
    rng = random.Random(0)
    for block in (0, 1536, 2560, 3584):
        for at in (0, 100, 124, 129, 134, 135, 136, 148, 153, 154, 155, 156, 257, 345, 500):
            data = bytearray(whole)
            data[block + at] = rng.choice([0, 32, 45, 48, 55, 57, 76, 120, 128, 255])
            (tmp_path / "y.tar").write_bytes(data)
            outcomes = []
            for way in (indexed, grouped):
                try:
                    outcomes.append(way(tmp_path / "y.tar"))
                except (CorruptDataError, BadInputError) as error:
                    outcomes.append(str(error))
            assert outcomes[0] == outcomes[1], (block, at, data[block + at])


@pytest.mark.parametrize("size", ["-0000001000", "77777777777", "00000000_10", "0o000000010"])
def test_odd_numbers_lead_the_index_nowhere(tmp_path, size):
    write_tar(tmp_path / "x.tar", [("a.jpg", b"x" * 700), ("a.txt", b"y")])
    data = bytearray((tmp_path / "x.tar").read_bytes())
    data[1536 + 124 : 1536 + 135] = size.encode()
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(CorruptDataError):
        indexed(tmp_path / "x.tar")


def test_headers_made_together_are_those_made_alone():
    sizes = [0, 1, 511, 512, 513, 8**11 - 1, 123_456_789]
    names = ["a", "0123.jpg", "ü.txt", "n" * 100, "d/e.f", "x.json", "\udcff.txt"]
    made = headers([n.encode("utf-8", "surrogateescape") for n in names], np.array(sizes))
    for row, name, size in zip(made, names, sizes, strict=True):
        assert row.tobytes() == member_header(name, size)


def test_members_copied_together_are_those_written_alone(tmp_path):
    rng = random.Random(1)
    for number in range(2):
        write_tar(
            tmp_path / f"{number}.tar",
            [(f"{i}.txt", rng.randbytes(rng.choice([0, 1, 512, 700]))) for i in range(40)],
        )
    readers = [TarReader(str(tmp_path / f"{i}.tar")) for i in range(2)]
    listed = [[m for m in reader.members()] for reader in readers]
    chosen = [(0, i) for i in range(20)] + [
        (rng.randrange(2), rng.randrange(40)) for _ in range(50)
    ]
    members = Members(
        names=[f"{i}.out".encode() for i in range(70)],
        sources=np.array([n for n, _ in chosen]),
        offsets=np.array([listed[n][i].offset for n, i in chosen]),
        sizes=np.array([listed[n][i].size for n, i in chosen]),
    )
    together, alone = io.BytesIO(), io.BytesIO()
    copier = BatchCopier()
    for _ in range(2):  # the second meets a used buffer
        copier.copy(members, readers.__getitem__, together)
        writer = TarWriter(alone)
        for i, (n, m) in enumerate(chosen):
            writer.add(f"{i}.out", readers[n].read(listed[n][m]))
    assert together.getvalue() == alone.getvalue()
    far = Members(
        names=[b"x"], sources=np.array([0]), offsets=np.array([10**9]), sizes=np.array([9])
    )
    with pytest.raises(CorruptDataError, match=r"0\.tar, byte 1000000000: ends earlier"):
        copier.copy(far, readers.__getitem__, together)


def test_padding_is_zero_whatever_it_was(tmp_path):
    write_tar(tmp_path / "x.tar", [("a.jpg", b"x" * 700), ("a.txt", b"y" * 3)])
    data = bytearray((tmp_path / "x.tar").read_bytes())
    data[512 + 700 : 1536] = b"#" * (1024 - 700)
    (tmp_path / "x.tar").write_bytes(data)
    made = io.BytesIO()
    members = Members(
        names=[b"b.jpg", b"b.txt"],
        sources=np.zeros(2, np.int64),
        offsets=np.array([512, 2048]),
        sizes=np.array([700, 3]),
    )
    with TarReader(str(tmp_path / "x.tar")) as reader:
        BatchCopier().copy(members, lambda _: reader, made)
    assert b"#" not in made.getvalue()
