"""A pretrained decoder in a downstream U-Net: which rows of which kernels are the pretrained ones."""

import functools
import json

import keras
import numpy as np
import pytest

from self_supervised_3d_tasks import training, transfer
from self_supervised_3d_tasks.algorithms.parts2whole import Parts2Whole
from self_supervised_3d_tasks.commands import experiment_run
from self_supervised_3d_tasks.errors import JobsFailed, TrainingDiverged, UserError
from self_supervised_3d_tasks.experiment import build, registry
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.files.models import save_model
from self_supervised_3d_tasks.finetuning import sweep as finetune_sweep
from self_supervised_3d_tasks.finetuning.baseline import baseline_settings
from self_supervised_3d_tasks.models.decoders.unet import unet as decoder
from self_supervised_3d_tasks.models.encoders.unet import unet
from self_supervised_3d_tasks.transfer import decoder as transfer_decoder
from self_supervised_3d_tasks.transfer.match import tensors_of

SHAPE = (16, 16, 1)
# With batch normalization, whose running statistics move too.
make_encoder = functools.partial(unet, enc_filters=2, num_layers=2, normalization="batch", dropout=0.0)
FRESH = {"decoder_logits/kernel", "decoder_logits/bias"}


def downstream(shape=SHAPE, *, encoder=make_encoder, normalization="batch", seed=5, **options):
    encoder = encoder(shape, seed=seed)
    return encoder, decoder(encoder, num_classes=3, normalization=normalization, dropout=0.0, seed=seed, **options)


def values(model):
    return {name: tensor.numpy().copy() for name, tensor in tensors_of(model.layers).items()}


def randomize(model, seed=0):
    """Give every weight a value of its own, as after training: zeros and ones would show nothing."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.uniform(0.1, 1, weight.shape))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run folder of a pretraining without skips, and its model."""
    task = Parts2Whole(SHAPE, normalization="batch", dropout=0.0)
    model = task.make_model(make_encoder(SHAPE, seed=1), seed=2)
    randomize(model)
    folder = tmp_path_factory.mktemp("run")
    save_model(model.get_layer("encoder"), folder / "encoder.keras")
    save_model(task.restorer(model), folder / "encoder_decoder.keras")
    return folder, model


def names(lines):
    return {line.split(":")[0] for line in lines}


def test_a_decoder_with_skips_gets_the_rows_that_see_what_comes_from_below(run):
    folder, pretrained = run
    encoder, model = downstream()
    before, stored = values(model), values(pretrained)
    report = transfer_decoder.load_decoder(model, folder)
    assert names(report.left) == FRESH and not report.unused
    assert report.left[0] == "decoder_logits/kernel: makes the output"
    assert report.adapted == [
        "decoder_level_1_conv_1/kernel: 4 input channels, initial values for the 4 of the skip",
        "decoder_level_0_conv_1/kernel: 2 input channels, initial values for the 2 of the skip",
    ]
    assert len(report.matched) == 2 * (2 + 2 * (2 + 4)) - 2  # each level: up, twice convolution and norm
    after = values(model)
    for name, value in after.items():
        if name in tensors_of(encoder.layers) or "/".join(name) in FRESH:
            np.testing.assert_array_equal(value, before[name])
        elif "/".join(name) in names(report.adapted):
            channels = value.shape[-2] // 2
            np.testing.assert_array_equal(value[..., :channels, :], stored[name])
            np.testing.assert_array_equal(value[..., channels:, :], before[name][..., channels:, :])
        else:
            np.testing.assert_array_equal(value, stored[name])


def test_the_rows_are_those_of_the_map_from_below(run):
    """The order of the concatenation, told by the network itself: without the skip's weights it is the pretrained."""
    folder, pretrained = run
    encoder, model = downstream()
    transfer.load_encoder(encoder, folder)
    report = transfer_decoder.load_decoder(model, folder)
    for level in (0, 1):
        kernel = model.get_layer(f"decoder_level_{level}_conv_1").kernel
        kernel.assign(np.where(np.arange(kernel.shape[-2])[:, None] < kernel.shape[-2] // 2, kernel.numpy(), 0.0))
    assert len(report.adapted) == 2
    image = np.random.default_rng(3).random((2, *SHAPE), np.float32)
    last = "decoder_level_0_norm_2"
    found, wanted = (
        keras.Model(one.input, one.get_layer(last).output).predict_on_batch(image) for one in (model, pretrained)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_without_skips_the_decoder_is_the_pretrained_one(run):
    folder, pretrained = run
    _, model = downstream((32, 32, 1), skips=False)
    report = transfer_decoder.load_decoder(model, folder)
    assert names(report.left) == FRESH and not report.adapted and not report.unused
    stored = values(pretrained)
    for name, value in values(model).items():
        if name[0].startswith("decoder_level"):
            np.testing.assert_array_equal(value, stored[name])


def test_the_encoder_alone_leaves_the_decoder_as_it_was(run):
    folder, pretrained = run
    encoder, model = downstream()
    before = values(model)
    transfer.load_encoder(encoder, folder)
    after, wanted = values(model), values(pretrained.get_layer("encoder"))
    for name, value in after.items():
        np.testing.assert_array_equal(value, wanted[name] if name in wanted else before[name])


def test_a_finetuned_file_gives_encoder_and_decoder(tmp_path):
    _, source = downstream(seed=1)
    randomize(source)
    save_model(source, tmp_path / "model.keras")
    encoder, model = downstream((32, 32, 1))
    assert not transfer.load_encoder(encoder, tmp_path / "model.keras").left
    report = transfer_decoder.load_decoder(model, tmp_path / "model.keras")
    assert names(report.left) == FRESH and not report.adapted  # its output too is one of other classes
    stored = values(source)
    for name, value in values(model).items():
        if "/".join(name) not in FRESH:
            np.testing.assert_array_equal(value, stored[name])


def test_a_decoder_that_is_a_model_in_the_model_is_found(run, tmp_path):
    folder, pretrained = run
    code = keras.Input(pretrained.get_layer("encoder").output.shape[1:])
    x, heads = code, {"encoder", "part"}
    for layer in pretrained.layers:
        x = x if layer.name in heads else layer(x)
    image = keras.Input(SHAPE)
    nested = keras.Model(image, keras.Model(code, x, name="decoder")(pretrained.get_layer("encoder")(image)))
    save_model(nested, tmp_path / "nested.keras")
    reports, models = [], []
    for source in (folder, tmp_path / "nested.keras"):
        _, model = downstream()
        reports.append(transfer_decoder.load_decoder(model, source))
        models.append(model)
    assert reports[0].matched == reports[1].matched and reports[0].adapted == reports[1].adapted
    for one, other in zip(*(model.weights for model in models), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_level_without_a_map_is_transferred_too(tmp_path):
    encoder = functools.partial(registry.encoder("resnet18"), width_multiplier=1 / 16)
    shape = (32, 32, 1)
    task = Parts2Whole(shape, normalization="batch")
    save_model(task.make_model(encoder(shape, seed=1), seed=2), tmp_path / "encoder_decoder.keras")
    _, model = downstream(shape, encoder=encoder)
    report = transfer_decoder.load_decoder(model, tmp_path)
    assert {"decoder_stem_up/kernel", "decoder_stem_conv_1/kernel"} <= set(report.matched)
    assert len(report.adapted) == len([layer for layer in model.layers if layer.name.endswith("_concat")]) > 1
    assert names(report.left) == FRESH


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"normalization": "none"}, "unused +decoder_level_1_norm_1/gamma"),
        (
            {"encoder": functools.partial(make_encoder, enc_filters=4)},
            r"_up/kernel: shape \(2, 2, 4, 8\) here, \(2, 2, 2, 4\)",
        ),
        ({"encoder": functools.partial(make_encoder, num_layers=3)}, "decoder_level_2_up/kernel: not in the file"),
    ],
)
def test_another_decoder_is_an_error_that_changes_nothing(run, options, reason):
    folder, _ = run
    _, model = downstream(**options)
    before = values(model)
    with pytest.raises(UserError, match=rf"decoder weights from (.|\n)*{reason}(.|\n)*was not loaded completely"):
        transfer_decoder.load_decoder(model, folder)
    np.testing.assert_equal(values(model), before)


def test_a_part_of_a_decoder_when_allowed(run):
    folder, pretrained = run
    _, model = downstream(normalization="none")
    report = transfer_decoder.load_decoder(model, folder, allow_partial=True)
    assert len(report.unused) == 16 and names(report.left) == FRESH
    np.testing.assert_array_equal(
        model.get_layer("decoder_level_0_up").kernel, pretrained.get_layer("decoder_level_0_up").kernel
    )


def test_sources_without_a_decoder_are_named_with_a_way_out(run, tmp_path):
    folder, _ = run
    save_model(make_encoder(SHAPE), tmp_path / "encoder.keras")
    with pytest.raises(UserError, match=r"transfer: .* needs encoder_decoder.keras, .*such as .*parts2whole"):
        transfer_decoder.find_decoder(tmp_path)
    with pytest.raises(UserError, match=r"transfer: .*/encoder.keras has none; give the run folder"):
        transfer_decoder.find_decoder(tmp_path / "encoder.keras")
    with pytest.raises(UserError, match="no such file"):
        transfer_decoder.find_decoder(tmp_path / "missing.keras")
    assert transfer_decoder.find_decoder(folder) == folder / "encoder_decoder.keras"


SWEEP = {
    **{"algorithm": "parts2whole", "dataset_name": "nifti", "data_dim": 8, "num_classes": 2, "tensorboard": False},
    **{"enc_filters": 2, "num_layers": 1, "pooling": "none", "exp_splits": [100], "repetitions": 1},
    **{"data_dir_train": "scans", "model_checkpoint": "pretrained", "base_workspace": "runs"},
}


@pytest.fixture
def sweep(tmp_path, write_scans, monkeypatch):
    """A folder with scans and a pretraining; loads a finetuning experiment in it."""
    monkeypatch.chdir(tmp_path)
    write_scans(tmp_path / "scans", 8)

    def load(**keys):
        (tmp_path / "sweep.json").write_text(json.dumps(SWEEP | keys))
        return load_experiment("finetune", tmp_path / "sweep.json")

    experiment = load()
    model = build.make_algorithm(experiment).make_model(build.make_encoder(experiment, (8, 8, 8, 1), seed=1), seed=2)
    randomize(model)
    save_model(model.get_layer("encoder"), tmp_path / "pretrained" / "encoder.keras")
    save_model(model, tmp_path / "pretrained" / "encoder_decoder.keras")
    return load, model


def test_a_sweep_starts_from_the_pretrained_decoder(sweep, monkeypatch):
    load, pretrained = sweep
    seen = {}

    def stop(model, *, folder, **options):
        seen[folder.path.name] = values(model)
        raise TrainingDiverged("seen enough")

    monkeypatch.setattr(training, "fit", stop)
    experiment = load(transfer="encoder_decoder", epochs_initialized=0, epochs_frozen=1)
    with pytest.raises(JobsFailed):
        finetune_sweep.run(finetune_sweep.plan(experiment), experiment_run.claim(experiment, resume=False))
    stored = values(pretrained) | values(pretrained.get_layer("encoder"))
    scratch = seen["100_random_0"]
    for name, value in seen["100_frozen_0"].items():
        label = "/".join(name)
        if label != "decoder_level_0_conv_1/kernel":
            np.testing.assert_array_equal(value, (scratch if label in FRESH else stored)[name])
        if name[0].startswith("decoder_") and label not in FRESH:
            assert not np.array_equal(value, scratch[name])


def test_from_scratch_the_key_changes_nothing(sweep):
    load, _ = sweep
    one, other = (baseline_settings(load(transfer=key)) for key in ("encoder", "encoder_decoder"))
    assert one == other


def test_a_pretraining_without_decoder_is_told_before_the_training(sweep, tmp_path):
    load, _ = sweep
    (tmp_path / "pretrained" / "encoder_decoder.keras").unlink()
    finetune_sweep.plan(load())
    finetune_sweep.plan(load(transfer="encoder_decoder", epochs_initialized=0))  # from scratch only
    with pytest.raises(
        UserError, match='transfer: "encoder_decoder" needs encoder_decoder.keras, but pretrained holds'
    ):
        finetune_sweep.plan(load(transfer="encoder_decoder"))
