"""What came of a run, in a form that can be compared to the bit."""

from self_supervised_3d_tasks.files.models import load_model

_TOLD_APART = {"config.json", "environment.json", "status.json", "state.json", "history.csv"}


def outcome(folder) -> dict[str, bytes | list]:
    """Every file of a run that says what came of it; not those that tell the time or the machine."""
    files = [
        path
        for path in folder.path.rglob("*")
        if path.suffix in {".csv", ".json", ".keras"} and path.name not in _TOLD_APART
    ]
    return {path.relative_to(folder.path).as_posix(): _content(path) for path in files}


def _content(path) -> bytes | list:
    """What a file holds; of a model its weights and layout, since the archive tells when it was made."""
    if path.suffix != ".keras":
        return path.read_bytes()
    model = load_model(path)
    return [model.to_json(), *(weight.tobytes() for weight in model.get_weights())]
