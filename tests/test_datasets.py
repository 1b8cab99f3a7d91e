"""How folders become pairs, how LR is made, and how published sets get here."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from sr_cli import datasets
from sr_cli.errors import InputError
from sr_cli.metrics.psnr import psnr
from tests.fake_hub import FakeHub

small_images = hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3))).map(
    lambda image: image.repeat(4, 0).repeat(4, 1)
)


def save(path: Path, height: int = 16, width: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_published_lr_is_close_to_ours(shared: Path) -> None:
    scores = []
    for name in ("Set5", "Set14"):
        for pair in datasets.from_folder(shared / "data/test" / name).pairs:
            hr, lr = datasets.load(pair)
            assert lr is not None
            scores.append(psnr(datasets.reduce_image(hr), lr))
    assert len(scores) == 19
    assert min(scores) > 46


@given(small_images)
def test_aliased_reduction_is_torchs(image: np.ndarray) -> None:
    image = np.random.default_rng(image.shape[0]).integers(0, 256, image.shape, dtype=np.uint8)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255
    size = (image.shape[0] // 4, image.shape[1] // 4)
    expected = torch.nn.functional.interpolate(tensor, size=size, mode="bicubic", align_corners=False)
    expected = expected[0].permute(1, 2, 0).clamp(0, 1).numpy()
    np.testing.assert_allclose(datasets.reduce_aliased(image), expected, atol=1e-6)


def test_layouts(tmp_path: Path) -> None:
    save(tmp_path / "plain/b.png")
    save(tmp_path / "plain/a.jpg")
    (tmp_path / "plain/notes.txt").write_text("not an image")
    save(tmp_path / "folders/HR/0801.png")
    save(tmp_path / "folders/LR/0801x4.png", 4, 4)
    save(tmp_path / "suffixes/x_HR.png")
    save(tmp_path / "suffixes/x_LR.png", 4, 4)
    plain, folders, suffixes = (datasets.from_folder(tmp_path / n) for n in ("plain", "folders", "suffixes"))
    assert [(p.name, p.lr) for p in plain.pairs] == [("a.jpg", None), ("b.png", None)]
    assert plain.lr == "made"
    for dataset, name in ((folders, "0801.png"), (suffixes, "x_HR.png")):
        assert (dataset.lr, [p.name for p in dataset.pairs]) == ("shipped", [name])
        hr, lr = datasets.load(dataset.pairs[0])
        assert lr is not None
        assert (hr.shape, lr.shape) == ((16, 16, 3), (4, 4, 3))


def test_files_without_a_partner_are_named(tmp_path: Path) -> None:
    save(tmp_path / "a_HR.png")
    save(tmp_path / "a_LR.png", 4, 4)
    save(tmp_path / "b_HR.png")
    save(tmp_path / "c_LR.png", 4, 4)
    save(tmp_path / "stray.png")
    problems = {p.name: p.problem for p in datasets.from_folder(tmp_path).pairs}
    assert problems["a_HR.png"] is None
    assert problems["b_HR.png"] == "no LR image of this name"
    assert problems["c_LR.png"] == "no HR image of this name"
    assert "neither" in str(problems["stray.png"])


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image in it"):
        datasets.from_folder(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        datasets.from_folder(tmp_path / "absent")


def test_load_names_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(InputError, match=r"broken\.png: "):
        datasets.load(datasets.from_folder(tmp_path).pairs[0])
    pair = datasets.Pair("p", save(tmp_path / "p.png", 16, 20), save(tmp_path / "q.png", 5, 4))
    with pytest.raises(InputError, match="LR of 4x5 does not fit HR of 20x16"):
        datasets.load(pair)
    with pytest.raises(InputError, match="smaller than 4"):
        datasets.load(datasets.Pair("t", save(tmp_path / "t.png", 3, 8), None))


def test_hr_is_cropped_to_multiples_of_four(tmp_path: Path) -> None:
    hr, lr = datasets.load(datasets.Pair("p", save(tmp_path / "p.png", 18, 21), None))
    assert hr.shape == (16, 20, 3)
    assert lr is None


def png(height: int, width: int, seed: int = 0) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred(members: dict[str, bytes], *special: tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for info in special:
            archive.addfile(info)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def serve(hub: FakeHub, name: str, hr: bytes, lr: bytes | None) -> None:
    known = datasets.NAMED[name]
    hub.files[f"datasets/{known.repo}/{known.hr.file}"] = hr
    if known.lr and lr:
        hub.files[f"datasets/{known.repo}/{known.lr.file}"] = lr


@pytest.fixture
def set5(fake_hub: FakeHub) -> FakeHub:
    """A Hub with a Set5 of small images, in archives of the published shape."""
    names = ("baby", "bird", "butterfly", "head", "woman")
    hr = {f"Set5_HR/{name}.png": png(32, 48, i) for i, name in enumerate(names)}
    lr = {f"Set5_LR_x4/{name}.png": png(8, 12, i) for i, name in enumerate(names)}
    folder = tarfile.TarInfo("Set5_HR")
    folder.type = tarfile.DIRTYPE
    serve(fake_hub, "set5", tarred({**hr, "Set5_HR/.hidden.png": b"x", "Set5_HR/README": b"x"}, folder), tarred(lr))
    return fake_hub


def test_a_named_set_is_fetched_once(set5: FakeHub, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    dataset = datasets.named("set5", tmp_path / "sets", progress=lambda *args: seen.append(args))
    assert [pair.name for pair in dataset.pairs] == ["baby.png", "bird.png", "butterfly.png", "head.png", "woman.png"]
    assert dataset.lr == "shipped"
    hr, lr = datasets.load(dataset.pairs[0])
    assert lr is not None
    assert (hr.shape, lr.shape) == ((32, 48, 3), (8, 12, 3))
    assert seen[-1][1] == seen[-1][2]
    requests = len(set5.requests)
    assert datasets.named("set5", tmp_path / "sets", offline=True) == dataset
    assert len(set5.requests) == requests
    assert not list((tmp_path / "hf").rglob("*.tar.gz")), "the archives need not stay"


def test_a_damaged_copy_is_fetched_again_and_must_be_the_same(set5: FakeHub, tmp_path: Path) -> None:
    cache = tmp_path / "sets"
    datasets.named("set5", cache)
    (cache / "set5/HR/baby.png").unlink()
    assert len(datasets.named("set5", cache).pairs) == 5
    (cache / "set5/HR/baby.png").unlink()
    other = {f"Set5_HR/{i}.png": png(32, 48, i) for i in range(5)}
    serve(set5, "set5", tarred(other), None)
    with pytest.raises(InputError, match="not the file that was downloaded first"):
        datasets.named("set5", cache)


def test_a_set_with_another_number_of_images_is_refused(set5: FakeHub, tmp_path: Path) -> None:
    serve(set5, "set5", tarred({"Set5_HR/one.png": png(8, 8)}), None)
    with pytest.raises(InputError, match="holds 1 images instead of 5"):
        datasets.named("set5", tmp_path / "sets")
    assert not (tmp_path / "sets/set5").exists()


def test_without_a_network_it_says_what_it_would_fetch(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        datasets.named("div2k-val", tmp_path / "sets", offline=True)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("480 MB", "DIV2K_valid_HR.zip", "DIV2K_valid_LR_bicubic_X4.zip", "--data", "goodfellowliu/DIV2K"):
        assert part in message
    with pytest.raises(InputError, match="unknown data set 'set6'"):
        datasets.named("set6", tmp_path / "sets")


def entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def zip_with_link() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo("a/link.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return file.getvalue()


def lying_zip() -> bytes:
    """A zip whose directory claims 10 bytes for a member that inflates to 50 MB."""
    data = bytearray(zipped({"a.png": bytes(50_000_000)}))
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (10).to_bytes(4, "little")
    return bytes(data)


HOSTILE = {
    "a path upwards": (tarred({"good.png": png(4, 4), "../../evil.png": b"x"}), ".tar.gz"),
    "an absolute path": (tarred({"/tmp/evil.png": b"x"}), ".tar.gz"),
    "a path upwards in a zip": (zipped({"good.png": png(4, 4), "a/../../evil.png": b"x"}), ".zip"),
    "a Windows path": (zipped({"..\\evil.png": b"x"}), ".zip"),
    "a symbolic link": (tarred({}, entry("a.png", tarfile.SYMTYPE, "/etc/passwd")), ".tar.gz"),
    "a hard link": (tarred({}, entry("a.png", tarfile.LNKTYPE, "../../x")), ".tar.gz"),
    "a device": (tarred({}, entry("a.png", tarfile.CHRTYPE)), ".tar.gz"),
    "a link in a zip": (zip_with_link(), ".zip"),
    "a bomb of zeros": (tarred({"a.png": bytes(60_000_000)}), ".tar.gz"),
    "a bomb in a zip": (zipped({"a.png": bytes(60_000_000)}), ".zip"),
    "a bomb that is no image": (tarred({"a.bin": bytes(60_000_000)}), ".tar.gz"),
    "a zip that lies": (lying_zip(), ".zip"),
    "two of one name": (zipped({"a/x.png": b"1", "b/x.png": b"2"}), ".zip"),
    "no archive": (b"<html>not found</html>", ".zip"),
    "half an archive": (tarred({"a.png": png(200, 200)})[:-5000], ".tar.gz"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_are_refused_and_write_nothing_outside(kind: str, tmp_path: Path) -> None:
    data, suffix = HOSTILE[kind]
    archive = tmp_path / f"archive{suffix}"
    archive.write_bytes(data)
    target = tmp_path / "cache" / "images"
    target.parent.mkdir()
    with pytest.raises(InputError) as caught:
        datasets.unpack(archive, target, limit=1 << 20)
    assert "\n" not in str(caught.value)
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and target not in p.parents]
    assert outside == [archive]
    written = sum(p.stat().st_size for p in target.rglob("*")) if target.exists() else 0
    assert written <= 1 << 20
    assert not Path("/tmp/evil.png").exists()


def test_a_hostile_set_leaves_the_cache_as_it_was(set5: FakeHub, tmp_path: Path) -> None:
    serve(set5, "set5", tarred({"good.png": png(4, 4), "../../evil.png": b"x"}), None)
    with pytest.raises(InputError, match="leads out of the archive"):
        datasets.named("set5", tmp_path / "sets")
    assert [path.name for path in (tmp_path / "sets").iterdir()] == [".set5.lock"]


def test_two_that_want_the_same_set_install_it_once(set5: FakeHub, tmp_path: Path) -> None:
    serve(
        set5,
        "set5",
        tarred({f"{i}.png": png(4, 4) for i in range(5)}),
        tarred({f"{i}.png": png(1, 1) for i in range(5)}),
    )
    with ThreadPoolExecutor(3) as pool:
        found = [
            future.result() for future in [pool.submit(datasets.named, "set5", tmp_path / "sets") for _ in range(3)]
        ]
    assert {len(dataset.pairs) for dataset in found} == {5}
    assert sum("/lfs/" in request.path for request in set5.requests) == 2
