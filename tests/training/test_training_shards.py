"""From `--data` to shards: what is found, how it is pinned, what is refused."""

import hashlib
import json

import pytest
from training_shards import picture_bytes, write_shards, write_tar

from gristmill.core.errors import BadInputError
from gristmill.training.preflight import check_members, spread
from gristmill.training.shards import resolve


def test_folders_tars_and_nested_shards_are_found(tmp_path):
    write_shards(tmp_path / "a" / "x" / "shards", count=2)
    write_shards(tmp_path / "b", count=1)
    data = f"{tmp_path / 'a'}::{tmp_path / 'b' / '00000000.tar'}"
    first, second = resolve(data, "1::2")
    names = [shard.uri.removeprefix(str(tmp_path)) for shard in first.shards]
    assert names == ["/a/x/shards/00000000.tar", "/a/x/shards/00000001.tar"]
    assert len(second.shards) == 1
    assert (first.weight, second.weight) == (1, 2)
    assert resolve(str(tmp_path / "a" / "x" / "shards" / "{00000000..00000001}.tar"))


def test_a_source_is_pinned_by_names_and_sizes(tmp_path):
    folder = write_shards(tmp_path / "a", count=2)
    before = resolve(str(folder))[0].identity()
    assert resolve(str(folder))[0].identity() == before
    write_tar(folder / "00000001.tar", {"a.txt": b"x" * 20_000})
    assert resolve(str(folder))[0].identity() != before


def test_missing_shards_of_a_dense_set_are_refused(tmp_path):
    folder = write_shards(tmp_path / "a", count=3)
    meta = {"output_shard_count": 4, "output_shard_format": "{:08d}.tar"}
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(BadInputError, match=r"should hold 4 shards.*has 3 \(00000003.tar is miss"):
        resolve(str(tmp_path))
    (folder / "meta.json").write_text(json.dumps(meta | {"output_shard_count": 3}))
    assert resolve(str(tmp_path))[0].identity()["meta_sha256"]


def test_no_shards_empty_shards_and_unfinished_runs_are_refused(tmp_path):
    with pytest.raises(BadInputError, match="no .tar shards"):
        resolve(str(tmp_path / "nowhere"))
    folder = write_shards(tmp_path / "a", count=1)
    (folder / "00000001.tar").touch()
    with pytest.raises(BadInputError, match="1 of 2 shards are empty"):
        resolve(str(folder))
    (folder / "00000001.tar").unlink()
    (folder / "config.json").write_text("{}")
    with pytest.raises(BadInputError, match="unfinished run"):
        resolve(str(folder))


@pytest.mark.parametrize(
    "members", [{"a.jpg": picture_bytes()}, {"a.txt": b"t"}, {"a.jpg": b"j", "b.txt": b"t"}, {}]
)
def test_preflight_sees_that_there_are_no_pairs(tmp_path, members):
    write_tar(tmp_path / "0.tar", members)
    with pytest.raises(BadInputError, match="no sample in .* has both caption and image"):
        check_members(resolve(str(tmp_path)))


def finished_reshard(folder, *, count=3):
    """A run as the resharder leaves it; the folder of its shards."""
    made = write_shards(folder / "shards", count=count)
    facts = {"output_shard_count": count, "output_shard_format": "{:08d}.tar"}
    (made / "meta.json").write_text(json.dumps(facts))
    outputs = {
        f"shards/{path.name}": {"sha256": "x", "bytes": path.stat().st_size}
        for path in made.iterdir()
    }
    (folder / "config.json").write_text(json.dumps({"hash": "h", "config": {}}))
    (folder / "DONE").write_text(json.dumps({"outputs": outputs}))
    return made


def test_every_spelling_of_a_folder_has_one_identity_with_its_runs_manifest(tmp_path):
    made = finished_reshard(tmp_path / "run")
    spellings = [made, made / "{00000000..00000002}.tar", tmp_path / "run", tmp_path]
    first, *others = (resolve(str(spelling))[0].identity() for spelling in spellings)
    assert all(other == first for other in others)
    assert first["pinned_by"] == "reshard manifest"
    manifest = (tmp_path / "run" / "DONE").read_bytes()
    assert first["reshard_manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    assert resolve(str(made / "{00000000..00000001}.tar"))[0].identity() != first


def test_other_folders_say_that_only_names_and_sizes_pin_them(shards):
    identity = resolve(str(shards))[0].identity()
    assert identity["pinned_by"] == "names and sizes"
    assert identity["reshard_manifest_sha256"] == ""


def test_a_shard_unlike_its_runs_manifest_is_refused(tmp_path):
    made = finished_reshard(tmp_path / "run")
    write_tar(made / "00000001.tar", {"a.txt": b"x" * 50_000})
    with pytest.raises(BadInputError, match=r"00000001.tar has [\d,]+ bytes, its run's DONE says"):
        resolve(str(made))


def test_an_unfinished_reshard_is_refused_from_above_and_from_inside(tmp_path):
    made = finished_reshard(tmp_path / "runs" / "one")
    finished_reshard(tmp_path / "runs" / "two")
    (tmp_path / "runs" / "one" / "DONE").unlink()
    inside = ["", "00000000.tar", "{00000000..00000001}.tar"]
    for data in [tmp_path / "runs", tmp_path / "runs" / "one", *(made / name for name in inside)]:
        with pytest.raises(BadInputError, match=r"runs/one is an unfinished run"):
            resolve(str(data))
    assert resolve(str(tmp_path / "runs" / "two" / "shards"))


def test_a_config_of_another_program_is_no_unfinished_run(tmp_path):
    folder = write_shards(tmp_path / "a", count=1)
    (folder / "config.json").write_text('{"model_type": "clip"}')
    assert resolve(str(folder))


def test_preflight_looks_at_shards_spread_over_the_list(tmp_path, caplog):
    for i in range(9):
        good = {"a.jpg": picture_bytes(), "a.txt": b"t"}
        write_tar(tmp_path / f"{i}.tar", good if i == 8 else {"a.jpg": picture_bytes()})
    [source] = resolve(str(tmp_path))
    assert [shard.uri[-5] for shard in spread(source.shards)] == ["0", "2", "4", "6", "8"]
    check_members([source])
    assert not caplog.records


def test_preflight_only_warns_of_what_it_cannot_know(tmp_path, caplog):
    late = {f"{i:03}.jpg": b"j" for i in range(100)} | {"z.jpg": b"j", "z.txt": b"t"}
    write_tar(tmp_path / "0.tar", late)
    check_members(resolve(str(tmp_path)))
    assert "no caption and image of one key" in caplog.text
