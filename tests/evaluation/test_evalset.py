import pytest
from eval_world import COLOURS, colour_samples, picture, write_set, write_tar

from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.evaluation.evalset import EvalSample, open_evalset


@pytest.fixture
def folder(tmp_path):
    return write_set(tmp_path / "wds_x_test", colour_samples(9), classnames=COLOURS)


def read(folder, test_size=0):
    source = open_evalset(str(folder), test_size=test_size, classes=True)
    return [sample.label(len(source.classnames)) for sample in source.samples]


def test_every_sample_of_every_tar_is_read_once(folder):
    assert sorted(read(folder, 9)) == [0, 0, 0, 1, 1, 2, 2, 3, 3]


def no_list(f):
    (f / "test" / "nshards.txt").unlink()


def bad_list(f):
    (f / "test" / "nshards.txt").write_text("two")


def lost_tar(f):
    (f / "test" / "1.tar").unlink()


def extra_tar(f):
    (f / "test" / "7.tar").write_bytes((f / "test" / "1.tar").read_bytes())


def cut_tar(f):
    path = f / "test" / "1.tar"
    path.write_bytes(path.read_bytes()[:1300])


def no_samples(f):
    write_set(f, [])


def label_out_of_range(f):
    write_set(f, [("k", {"png": picture((1, 2, 3)), "cls": b"4"})], tars=1)
    (f / "test" / "1.tar").unlink()


def label_no_number(f):
    write_tar(f / "test" / "1.tar", [("k", {"png": picture((1, 2, 3)), "cls": b"red"})])


def no_label(f):
    write_tar(f / "test" / "1.tar", [("k", {"png": picture((1, 2, 3))})])


def no_placeholder(f):
    (f / "zeroshot_classification_templates.txt").write_text("a {c}\na photo\n")


def empty_line(f):
    (f / "classnames.txt").write_text("red\n\nblue\n")


def no_classes(f):
    (f / "classnames.txt").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_list, "nshards.txt"),
        (bad_list, "says 'two', not a number"),
        (lost_tar, "1.tar is missing"),
        (extra_tar, "says 2 tars and 3 are there"),
        (cut_tar, "1.tar.*truncated"),
        (no_samples, "holds no samples"),
        (label_out_of_range, r"0\.tar, sample k: label 4 is not in 0\.\.3"),
        (label_no_number, "label 'red' is not a whole number"),
        (no_label, "no .cls beside the picture"),
        (no_placeholder, "line 2: 'a photo' has no {c}"),
        (empty_line, "classnames.txt is empty or has an empty line"),
        (no_classes, "no file at .*classnames.txt"),
    ],
)
def test_a_spoilt_set_is_named(folder, spoil, message):
    spoil(folder)
    with pytest.raises(BadInputError, match=message):
        read(folder)


def test_a_sample_without_picture_or_caption_is_named():
    sample = EvalSample("k", "0.tar, sample k", {"cls": b"1", "txt": b" \n\n"})
    with pytest.raises(CorruptDataError, match=r"0\.tar, sample k: no picture"):
        sample.image()
    with pytest.raises(CorruptDataError, match=r"0\.tar, sample k: no caption"):
        sample.captions()
    with pytest.raises(CorruptDataError, match="not UTF-8"):
        EvalSample("k", "w", {"txt": b"\xff"}).captions()
