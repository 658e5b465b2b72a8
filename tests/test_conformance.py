"""What every algorithm, encoder, decoder, head and experiment file must do; a new file is picked up by itself."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import numpy as np
import pytest

from self_supervised_3d_tasks.algorithms.kinds import ComparingAlgorithm
from self_supervised_3d_tasks.algorithms.restoring import RestoringAlgorithm
from self_supervised_3d_tasks.errors import UserError
from self_supervised_3d_tasks.experiment import build, registry
from self_supervised_3d_tasks.experiment.load import load_experiment
from self_supervised_3d_tasks.finetuning.baseline import baseline_settings
from self_supervised_3d_tasks.models import heads
from self_supervised_3d_tasks.training import optimizers
from self_supervised_3d_tasks.training.first_step import make_variables

REPOSITORY = Path(__file__).resolve().parents[1]
FILES = sorted((REPOSITORY / "configs_json").glob("*.json"))
FINETUNE_FILES = sorted((REPOSITORY / "configs_json" / "finetune").glob("*.json"))
ALGORITHMS = registry.known("algorithm")
ENCODERS = registry.known("encoder")
DECODERS = registry.known("decoder")
HEADS = registry.known("head")
RANKS = (2, 3)
SIDE = 32  # of what an encoder sees under a decoder or head
SCAN_SIDE = 36  # of what a task sees: a third of it, without the jitter, must survive two poolings and a final one
BATCH = 2
# Encoders of any rank.
OWN_ENCODERS = ("resnet18", "unet", "vgg11")
# The other networks of keras.applications are made of the same layers, and take minutes.
SLOW_ENCODERS = ("inception", "resnet1", "resnet5")
SIDES = {"inceptionv3": 75, "inceptionresnetv2": 75}


def encoder_params(*others):
    """Every encoder with everything else, as parameters of a test; encoders vary slowest."""
    return [
        pytest.param(*names, marks=pytest.mark.slow)
        if names[0] not in OWN_ENCODERS and names[0].startswith(SLOW_ENCODERS)
        else names
        for names in itertools.product(ENCODERS, *others)
    ]


def refuses(encoder: str, rank: int, *, decoder: bool) -> bool:
    """Whether the encoder says, before anything is built, that it cannot do this."""
    try:
        registry.encoder_check(encoder)((*[SIDES.get(encoder, SIDE)] * rank, 2), decoder=decoder)
    except UserError:
        return True
    return False


def build_algorithm(name: str, rank: int, channels: int = 1, side: int | None = None):
    task = registry.algorithm(name)
    side = side or (SIDE if issubclass(task, RestoringAlgorithm) else SCAN_SIDE)
    # Views as large as the scan, for encoders that divide sizes by 32.
    large = {"global_dim": side, "local_dim": side}
    return task((*[side] * rank, channels), **{key: large[key] for key in large.keys() & registry.options(task)})


def build_encoder(input_shape, name: str = "unet", seed: int = 0, normalization: str = "group"):
    """A small encoder; dropout would drown what a few steps with a few filters can learn."""
    builder = registry.encoder(name)
    small = {"enc_filters": 4, "num_layers": 2, "dropout": 0.0, "width_multiplier": 1 / 16}
    small["normalization"] = normalization
    return builder(input_shape, **{key: small[key] for key in small.keys() & registry.options(builder)}, seed=seed)


def smooth_images(count: int, rank: int, channels: int = 1, seed: int = 0, side: int = SCAN_SIDE) -> np.ndarray:
    """Blurred noise in [0, 1]: as different as scans, and as smooth."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).normal(size=(count, *[side] * rank, channels))
    images = np.stack([gaussian_filter(image, sigma=(*[3] * rank, 0)) for image in noise])
    return ((images - images.min()) / (images.max() - images.min())).astype("float32")


def scans_for(algorithm) -> np.ndarray:
    count = max(BATCH, algorithm.sampling.min_batch)
    return smooth_images(count, rank_of(algorithm), side=algorithm.input_shape[0])


@functools.cache
def traced(algorithm):
    """The task's `make_example` as the stream calls it; tracing it takes longer than the rest of a test."""
    import tensorflow as tf

    return tf.function(algorithm.make_example, autograph=False)


def batches(algorithm, images: np.ndarray, seed: int = 0):
    """The images as one batch."""
    import tensorflow as tf

    seeds = np.stack([np.full(len(images), seed), np.arange(len(images))], axis=1).astype(np.int32)
    dataset = tf.data.Dataset.from_tensor_slices((images, seeds)).map(traced(algorithm)).batch(len(images))
    if (make_batch := algorithm.sampling.make_batch) is not None:

        def made(inputs, targets):
            return make_batch(inputs, targets, tf.constant([seed, 7]))

        dataset = dataset.map(tf.autograph.experimental.do_not_convert(made))
    return dataset


def algorithm_params(slow_ranks=()):
    """Every task in every rank, as parameters of the fixture; a rank can be left to the slow tests."""
    return [
        pytest.param((name, rank), id=f"{name}-{rank}d", marks=[pytest.mark.slow] if rank in slow_ranks else [])
        for name, rank in itertools.product(ALGORITHMS, RANKS)
    ]


small_algorithm = functools.cache(build_algorithm)


@pytest.fixture(params=algorithm_params())
def algorithm(request):
    return small_algorithm(*request.param)


@functools.cache
def untrained(algorithm):
    """A model of the task, for tests that only look at it."""
    return algorithm.make_model(build_encoder(algorithm.encoder_shape), seed=1)


def rank_of(algorithm) -> int:
    return len(algorithm.input_shape) - 1


def test_same_seed_same_example_and_other_seed_other_example(algorithm):
    import tensorflow as tf

    images = scans_for(algorithm)

    def flat(seed):
        ((inputs, targets),) = batches(algorithm, images, seed)
        return [leaf.numpy() for leaf in tf.nest.flatten((inputs, targets))]

    first, again = flat(1), flat(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    others = (flat(seed) for seed in range(2, 8))  # one that differs is enough
    assert any(not np.array_equal(a, b) for other in others for a, b in zip(first, other, strict=True))


def test_examples_have_static_shapes(algorithm):
    import tensorflow as tf

    specification = batches(algorithm, scans_for(algorithm)).element_spec
    for leaf in tf.nest.flatten(specification):
        assert None not in leaf.shape[1:]


def assert_loss_reaches_the_encoder(algorithm, model, images):
    """The loss has one finite value per scan, and every kernel of the encoder has an effect on it."""
    import tensorflow as tf

    ((inputs, targets),) = batches(algorithm, images)
    # In training mode, since at initialisation running statistics say nothing yet.
    with tf.GradientTape() as tape:
        outputs = model(inputs, training=True)
        loss = algorithm.loss(targets, outputs)
    assert loss.shape == (len(images),)
    assert np.isfinite(loss).all()
    variables = model.get_layer("encoder").trainable_variables
    assert variables
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    # A convolution's bias before BatchNormalization has no effect; every kernel must have one.
    dead = [
        variable.path
        for variable, gradient in zip(variables, gradients, strict=True)
        if "kernel" in variable.name and (gradient is None or not np.any(gradient))
    ]
    assert dead == []


def test_loss_is_per_sample_finite_and_reaches_every_encoder_weight(algorithm):
    assert_loss_reaches_the_encoder(algorithm, untrained(algorithm), scans_for(algorithm))


@pytest.mark.parametrize("algorithm", algorithm_params(slow_ranks=(3,)), indirect=True)
@pytest.mark.parametrize("encoder", [name for name in OWN_ENCODERS if name != "unet"])
def test_loss_reaches_every_weight_of_the_other_encoders(algorithm, encoder):
    model = algorithm.make_model(build_encoder(algorithm.encoder_shape, encoder), seed=1)
    assert_loss_reaches_the_encoder(algorithm, model, scans_for(algorithm))


def test_chance_is_a_share_of_known_metrics(algorithm):
    names = {getattr(metric, "name", None) or metric.__name__ for metric in algorithm.metrics()}
    chance = algorithm.chance(BATCH)
    assert chance.keys() <= names
    assert all(0 < value < 1 for value in chance.values())


def densenet_task(name: str):
    """A task in 2D with DenseNet-121 under it, and images whose patches are large enough for that."""
    check = registry.encoder_check("densenet121")
    if issubclass(registry.algorithm(name), RestoringAlgorithm):
        with pytest.raises(UserError, match="no maps"):
            check((*[SIDE] * 2, 1), decoder=True)
        pytest.skip("refused: the task has a decoder")
    for side in (32, 64, 96, 128):
        try:
            algorithm = build_algorithm(name, 2, side=side)
            check(algorithm.encoder_shape, decoder=False)
            break
        except UserError:
            continue
    model = algorithm.make_model(build_encoder(algorithm.encoder_shape, "densenet121"), seed=1)
    return algorithm, model, smooth_images(BATCH, 2, side=side)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ("rotation", "cpc") else pytest.mark.slow) for name in ALGORITHMS]
)
def test_loss_reaches_every_weight_of_densenet_in_2d(name):
    assert_loss_reaches_the_encoder(*densenet_task(name))


def assert_fit_learns(algorithm, model, images):
    model.compile(optimizer=optimizers.make_optimizer(3e-3), loss=algorithm.loss, metrics=algorithm.metrics())
    dataset = batches(algorithm, images).cache()
    make_variables(model, dataset)  # else the step is traced twice
    # Nothing but two images tells the columns of cpc in 3D: that takes the most steps to learn by heart.
    epochs = 6 if algorithm.name == "cpc" and algorithm.rank == 3 else 2
    history = model.fit(dataset.repeat(), epochs=epochs, steps_per_epoch=10, verbose=0, shuffle=False).history
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("algorithm", algorithm_params(slow_ranks=(3,)), indirect=True)
def test_fit_learns_two_images(algorithm):
    model = algorithm.make_model(build_encoder(algorithm.encoder_shape), seed=1)
    assert_fit_learns(algorithm, model, scans_for(algorithm))


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_fit_learns_two_images_with_densenet(name):
    assert_fit_learns(*densenet_task(name))


def assert_reloads(algorithm, model, images, path):
    import keras
    import tensorflow as tf

    model.save(path)
    again = keras.saving.load_model(path, compile=False, safe_mode=True)
    ((inputs, _),) = batches(algorithm, images)
    for a, b in zip(tf.nest.flatten(model(inputs)), tf.nest.flatten(again(inputs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [name for name in OWN_ENCODERS if name != "unet"])
def test_fit_learns_two_images_with_the_other_encoders(algorithm, encoder):
    # A 16th of their channels on maps of a voxel or two: a group normalization leaves little of that.
    model = build_encoder(algorithm.encoder_shape, encoder, normalization="batch")
    assert_fit_learns(algorithm, algorithm.make_model(model, seed=1), scans_for(algorithm))


def test_pretext_model_reloads_in_safe_mode(algorithm, tmp_path):
    assert_reloads(algorithm, untrained(algorithm), scans_for(algorithm), tmp_path / "model.keras")


def test_what_kinds_of_tasks_add_belongs_to_their_model(algorithm):
    model = untrained(algorithm)
    ((inputs, targets),) = batches(algorithm, scans_for(algorithm))
    if isinstance(algorithm, RestoringAlgorithm):
        seen, wanted = algorithm.restorations(inputs, targets)
        assert seen.shape == wanted.shape
        assert algorithm.restorer(model)(seen[:, 0]).shape == wanted[:, 0].shape
    if isinstance(algorithm, ComparingAlgorithm):
        assert all(code.shape[0] is None for code in algorithm.codes(model).values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_pretext_model_with_densenet_reloads_in_safe_mode(name, tmp_path):
    assert_reloads(*densenet_task(name), tmp_path / "model.keras")


def test_describe_shows_images(algorithm):
    import tensorflow as tf

    image = scans_for(algorithm)[0]
    inputs, targets = algorithm.make_example(tf.constant(image), tf.constant([0, 0]))
    panels = algorithm.describe(inputs, targets)
    assert panels
    for panel in panels:
        assert panel.title
        assert np.ndim(panel.image) == rank_of(algorithm) + 1


def assert_one_step_changes_the_encoder(encoder, model, loss, images, targets):
    import keras

    from self_supervised_3d_tasks import losses

    model.compile(optimizer=keras.optimizers.SGD(1e-2), loss=losses.get(loss, class_weights=None), run_eagerly=True)
    before = [weight.numpy() for weight in encoder.trainable_variables]
    assert np.isfinite(model.train_on_batch(images, targets))
    assert any(not np.array_equal(a, b.numpy()) for a, b in zip(before, encoder.trainable_variables, strict=True))


@pytest.mark.parametrize(("encoder", "decoder", "rank"), encoder_params(DECODERS, RANKS))
def test_every_encoder_trains_under_every_decoder_or_refuses(encoder, decoder, rank):
    if refuses(encoder, rank, decoder=True):
        assert encoder not in OWN_ENCODERS
        return
    side = SIDES.get(encoder, SIDE)
    built = build_encoder((*[side] * rank, 2), encoder)
    model = registry.decoder(decoder)(built, num_classes=3, seed=5)
    assert model.output_shape == (None, *[side] * rank, 3)
    images = smooth_images(BATCH, rank, channels=2, side=side)
    masks = np.random.default_rng(0).integers(0, 3, size=images.shape[:-1])
    assert_one_step_changes_the_encoder(built, model, "dice_crossentropy", images, masks)


@functools.lru_cache(maxsize=1)
def encoder_under_heads(name: str, rank: int):
    """One encoder under every head in turn: what a step changes in it is of no matter to the next."""
    return build_encoder((*[SIDES.get(name, SIDE)] * rank, 2), name)


@pytest.mark.parametrize(("encoder", "rank", "head"), encoder_params(RANKS, HEADS))
def test_every_encoder_trains_under_every_head_or_refuses(encoder, rank, head):
    if refuses(encoder, rank, decoder=False):
        assert encoder not in OWN_ENCODERS
        assert (encoder, rank) != ("densenet121", 2)
        with pytest.raises(UserError):
            build_encoder((*[SIDE] * rank, 2), encoder)
        return
    built = encoder_under_heads(encoder, rank)
    model = heads.classifier(built, registry.head(head), 3, seed=5)
    assert model.output_shape == (None, 3)
    images = smooth_images(BATCH, rank, channels=2, side=SIDES.get(encoder, SIDE))
    assert_one_step_changes_the_encoder(built, model, "categorical_crossentropy", images, np.arange(BATCH))


@pytest.fixture(scope="module")
def encoder_of():
    """The encoder of a file, for an input shape; those of many files are the same, and are built once."""
    built = {}

    def find(experiment, input_shape):
        options = build.options_for(experiment, registry.encoder(experiment.encoder_name))
        key = repr((experiment.encoder_name, sorted(options.items()), input_shape))
        if key not in built:
            built[key] = build.make_encoder(experiment, input_shape, seed=0)
        return built[key]

    return find


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_training_file_builds(path, encoder_of, monkeypatch):
    import keras

    # Random weights of large networks take most of the time, and nobody looks at them.
    monkeypatch.setattr(
        keras.initializers.VarianceScaling, "__call__", lambda _, shape, dtype: keras.ops.zeros(shape, dtype)
    )
    experiment = load_experiment("train", path)
    algorithm = build.make_algorithm(experiment)
    model = algorithm.make_model(encoder_of(experiment, algorithm.encoder_shape), seed=1)
    assert model.get_layer("encoder").input_shape == (None, *algorithm.encoder_shape)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A folder with the ``config.json`` of a run of every training file."""
    folder = tmp_path_factory.mktemp("pretrained")
    for path in FILES:
        experiment = load_experiment("train", path)
        base, name = experiment.run_location()
        (folder / base / name).mkdir(parents=True)
        (folder / base / name / "config.json").write_text(experiment.model_dump_json())
    return folder


@pytest.fixture
def load(pretrained, monkeypatch):
    """Load a file beside the runs that it can be finetuned from."""
    monkeypatch.chdir(pretrained)
    return lambda path: load_experiment("finetune" if path.parent.name == "finetune" else "train", path)


NETWORKS: dict[str, tuple] = {}


def network_of(experiment) -> tuple:
    """Shapes of input and output; twins that differ in the task alone have one network, which is built once."""
    settings = baseline_settings(experiment)
    paths = {key for key in settings if "dir" in key or "csv" in key}
    key = repr(sorted((name, value) for name, value in settings.items() if name not in paths))
    if key not in NETWORKS:
        _, model = build.make_model(experiment, seed=0)
        NETWORKS[key] = model.input_shape, model.output_shape
    return NETWORKS[key]


@pytest.mark.parametrize("path", FINETUNE_FILES, ids=lambda path: path.stem)
def test_every_finetuning_file_builds(path, load):
    experiment = load(path)
    input_shape, output_shape = network_of(experiment)
    assert input_shape == (None, *experiment.input_shape)
    spatial = experiment.input_shape[:-1] if experiment.task == "segmentation" else ()
    assert output_shape == (None, *spatial, experiment.num_classes)


@pytest.mark.parametrize("path", [*FILES, *FINETUNE_FILES], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_file_survives_its_own_resolution(path, load, tmp_path, caplog):
    """The resolved file alone repeats the run: it resolves to itself, without a warning that the file does not earn.

    A file may prepare scans otherwise than its pretraining, whose crops are smaller for example.
    """
    resolved = load(path).model_dump_json()
    (tmp_path / path.parent.name).mkdir()
    (tmp_path / path.parent.name / "config.json").write_text(resolved)
    caplog.clear()
    assert load(tmp_path / path.parent.name / "config.json").model_dump_json() == resolved
    assert [text for text in caplog.messages if "the scans are prepared otherwise" not in text] == []
