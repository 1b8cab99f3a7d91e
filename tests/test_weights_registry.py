"""The user's own models: from runs, files and the Hub; and published there."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from safetensors.torch import save_file

from sr_cli import hub, weights
from sr_cli.errors import UsageError, WeightsError
from sr_cli.weights import manifest, registry
from sr_cli.weights.publish import publish
from sr_cli.weights.registry import AddOptions
from tests.fake_hub import COMMIT, FakeHub
from tests.test_rrdbnet import new_style, old_style
from tests.test_weights_runs import make_run

STATE = old_style(new_style(2, 2, 8, 4), 2, 2)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRUP_HOME", str(tmp_path / "srup"))
    monkeypatch.setattr(hub, "BACKOFF", 0.001)
    return tmp_path / "srup"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(STATE, tmp_path / "4x-Thing.safetensors")
    return tmp_path / "4x-Thing.safetensors"


def test_a_file_is_copied(file: Path, home: Path) -> None:
    entry = registry.add(str(file), "thing", AddOptions(licence="MIT", summary="a thing"))
    file.unlink()
    loaded = weights.load("thing")
    assert loaded.path == home / "weights" / "thing-pixel.safetensors"
    assert (entry.summary, entry.stages["pixel"].licence, entry.config["family"]) == ("a thing", "MIT", "rrdbnet")
    assert list(weights.read_manifest().models)[-1] == "thing"
    assert "mesrgan" in weights.read_manifest().models


def test_a_run_is_added_with_its_stages_which_belong_together(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    pixel = hashlib.sha256((run / "pixel.best.safetensors").read_bytes()).hexdigest()
    make_run(run, "gan", 1, parent_sha256=pixel)
    entry = registry.add(str(run), "mine")
    assert list(entry.stages) == ["pixel", "gan"]
    assert entry.default_stage == "pixel"
    assert entry.stages["gan"].parent_sha256 == entry.stages["pixel"].sha256 == pixel
    assert entry.stages["pixel"].training is not None
    assert weights.load("mine:gan").stage == "gan"
    assert weights.load_blend("mine", 0.5).name == "mine"


def test_a_stage_can_come_later_but_not_twice_and_not_of_another_network(tmp_path: Path, file: Path) -> None:
    run = make_run(tmp_path / "run")
    registry.add(str(run), "mine")
    with pytest.raises(UsageError, match="mine:pixel exists"):
        registry.add(str(run), "mine")
    registry.add(str(run), "mine", AddOptions(overwrite=True))
    registry.add(str(make_run(tmp_path / "later", "gan", 1)), "mine")
    assert list(weights.read_manifest().models["mine"].stages) == ["pixel", "gan"]
    with pytest.raises(WeightsError, match=r"but mine is .*choose another name"):
        registry.add(str(file), "mine", AddOptions(stage="photo"))
    make_run(run, "gan", 2)
    assert list(registry.add(str(run), "only", AddOptions(stage="gan")).stages) == ["gan"]
    with pytest.raises(WeightsError, match="has the stages gan, pixel, not photo"):
        registry.add(str(run), "only", AddOptions(stage="photo"))


@pytest.mark.parametrize(
    ("name", "stage", "message"),
    [("mesrgan", None, "built-in"), ("Mine!", None, "lower-case"), ("mine", "best", "--stage must be one of")],
)
def test_names_and_stages_that_cannot_be_used(file: Path, name: str, stage: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        registry.add(str(file), name, AddOptions(stage=stage))
    assert not manifest.user_path().exists()


def test_nothing_is_recorded_of_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights file"):
        registry.add(str(tmp_path / "missing.safetensors"), "x")
    with pytest.raises(WeightsError, match="not a training run"):
        registry.add(str(tmp_path), "x")
    assert not manifest.user_path().exists()


def test_a_file_of_the_hub_is_pinned(fake_hub: FakeHub, file: Path) -> None:
    fake_hub.files["someone/upscalers/4x/Thing.safetensors"] = file.read_bytes()
    entry = registry.add("hf:someone/upscalers/4x/Thing.safetensors", "thing")
    place = entry.stages["pixel"].hub
    assert place == manifest.HubFile("someone/upscalers", COMMIT, "4x/Thing.safetensors")
    assert entry.stages["pixel"].licence == "unknown"
    requests = len(fake_hub.requests)
    assert weights.load("thing", offline=True).generator.config.family == "rrdbnet"
    assert len(fake_hub.requests) == requests
    deleted = registry.remove("thing")
    assert deleted
    assert not deleted[0].exists()
    assert "thing" not in weights.read_manifest().models


def test_a_revision_of_the_hub_is_taken(fake_hub: FakeHub, file: Path) -> None:
    fake_hub.files["a/b/x.safetensors"] = file.read_bytes()
    revision = "f" * 40
    entry = registry.add(f"hf:a/b@{revision}/x.safetensors", "thing")
    assert entry.stages["pixel"].hub == manifest.HubFile("a/b", revision, "x.safetensors")


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("hf:onlyname/x.safetensors", UsageError, "not of the form"),
        ("hf:a/b/../../c/x.safetensors", UsageError, "inside the repository"),
        ("hf:a/b/..\\c\\x.safetensors", UsageError, "inside the repository"),
        ("hf:a/b//x.safetensors", UsageError, "inside the repository"),
        ("hf:../b/x.safetensors", UsageError, "inside the repository"),
        ("hf:a/b/x.pth", UsageError, r"only \.safetensors"),
        ("hf:a/b/missing.safetensors", WeightsError, "has no a/b/missing"),
    ],
)
def test_hub_sources_that_cannot_be_added(fake_hub: FakeHub, source: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        registry.add(source, "thing")
    assert not manifest.user_path().exists()
    assert not [request for request in fake_hub.requests if ".." in request.path]


def test_models_added_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    names = [f"mine-{number}" for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: registry.add(str(run), name), names))
    assert set(names) <= weights.read_manifest().models.keys()


def test_remove(tmp_path: Path, home: Path) -> None:
    registry.add(str(make_run(tmp_path / "run")), "mine")
    assert registry.remove("mine") == [home / "weights" / "mine-pixel.safetensors"]
    assert list((home / "weights").iterdir()) == []
    with pytest.raises(WeightsError, match="unknown model 'mine'"):
        registry.remove("mine")
    with pytest.raises(UsageError, match=r"mesrgan-poster is built in .* nothing to remove"):
        registry.remove("mesrgan-poster")


def test_verify_finds_damage(tmp_path: Path, home: Path) -> None:
    registry.add(str(make_run(tmp_path / "run")), "mine")
    registry.add(str(make_run(tmp_path / "run2")), "other")
    by_name = {(v.name, v.stage): v.status for v in registry.verify([])}
    assert by_name[("mine", "pixel")] == by_name[("other", "pixel")] == "ok"
    assert by_name[("remacri", "gan")] == "not downloaded"
    path = home / "weights" / "mine-pixel.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    (damaged,) = registry.verify(["mine"])
    assert (damaged.status, damaged.path) == ("damaged", path)
    path.unlink()
    (missing,) = registry.verify(["mine"])
    assert missing.status == "missing"
    with pytest.raises(WeightsError, match="unknown model"):
        list(registry.verify(["nonsense"]))


def test_publishing_and_adding_again_keeps_what_is_known(
    fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecrettoken")
    run = make_run(tmp_path / "run")
    registry.add(str(run), "mine", AddOptions(licence="CC-BY-4.0", summary="my network"))
    done = publish("mine", "someone/my-model")
    assert (done.commit, done.repo) == (COMMIT, "someone/my-model")
    assert set(done.files) == {"mine-pixel.safetensors", "README.md", "srup.json"}
    assert fake_hub.files["someone/my-model/mine-pixel.safetensors"] == (run / "pixel.best.safetensors").read_bytes()
    card = fake_hub.files["someone/my-model/README.md"].decode()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "srup models add hf:someone/my-model/mine-pixel.safetensors" in card
    assert "photos-a" in card
    entry = manifest.parse(fake_hub.files["someone/my-model/srup.json"].decode(), "srup.json", tmp_path).models["mine"]
    assert entry.stages["pixel"].licence == "CC-BY-4.0"
    assert {r.headers["authorization"] for r in fake_hub.requests if "authorization" in r.headers} == {
        "Bearer hf_verysecrettoken"
    }
    assert "verysecret" not in "".join(capfd.readouterr())

    again = registry.add("hf:someone/my-model/mine-pixel.safetensors", "theirs")
    assert again.stages["pixel"].licence == "CC-BY-4.0"
    assert again.stages["pixel"].training == entry.stages["pixel"].training


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(("status", "message"), [(403, "refuses the login"), (400, "HTTP 400")])
def test_publishing_that_fails_is_one_line_without_the_token(
    fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, status: int, message: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecrettoken")
    registry.add(str(make_run(tmp_path / "run")), "mine")
    fake_hub.fault(method, status=status, times=100)
    with pytest.raises(WeightsError, match=f"cannot publish to someone/x: .*{message}") as error:
        publish("mine", "someone/x")
    assert "verysecret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_publishing_needs_weights_a_login_and_a_repository(
    fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    registry.add(str(make_run(tmp_path / "run")), "mine")
    with pytest.raises(WeightsError, match="hf auth login"):
        publish("mine", "someone/x")
    with pytest.raises(UsageError, match="USER/REPO"):
        publish("mine", "x")
    with pytest.raises(WeightsError, match="no weights to publish"):
        publish("mesrgan-poster", "someone/x")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE"):
        publish("mine", "someone/x")
    assert fake_hub.count("POST") == 0


def test_spandrel_opens_other_architectures(tmp_path: Path) -> None:
    import torch
    from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact

    from sr_cli import inference

    network = SRVGGNetCompact(num_feat=8, num_conv=2, upscale=4)
    save_file(network.state_dict(), tmp_path / "compact.safetensors")
    loaded = weights.load(tmp_path / "compact.safetensors")
    assert loaded.generator.config.to_dict() == {"family": "spandrel", "architecture": "RealESRGAN Compact", "scale": 4}
    rgb = torch.rand(1, 3, 9, 11)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.generator.fold()(rgb), network(rgb))
    registry.add(str(tmp_path / "compact.safetensors"), "compact")
    result = inference.Upscaler("compact", device="cpu").upscale(rgb[0].permute(1, 2, 0).numpy())
    assert result.pixels.shape == (36, 44, 3)


def test_broken_user_manifests_are_named(home: Path) -> None:
    home.mkdir()
    (home / "manifest.json").write_text(json.dumps({"schema": 1}), "utf-8")
    with pytest.raises(WeightsError, match=r"srup/manifest\.json: field 'models' is missing"):
        registry.user_models()


def test_nothing_is_lost_when_several_are_added_at_once(file: Path) -> None:
    names = [f"thing{index}" for index in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: registry.add(str(file), name), names))
    assert set(names) <= set(weights.read_manifest().models)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(registry.remove, names))
    assert not set(names) & set(weights.read_manifest().models)
