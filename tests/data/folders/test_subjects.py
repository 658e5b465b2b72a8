from __future__ import annotations

import numpy as np
import pytest

from self_supervised_3d_tasks.data.folders.subjects import subjects_of, warn_of_lookalikes
from self_supervised_3d_tasks.data.folders.trees import Place, unique_names
from self_supervised_3d_tasks.errors import UserError


def subjects(*paths: str, pattern: str | None = None) -> list[str]:
    places = [Place(*path.rpartition("/")[::2]) for path in paths]
    named = dict(zip(unique_names(places), places, strict=True))
    return list(subjects_of(named, pattern).values())


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["sub-01_ses-test_T1w", "sub-01_ses-retest_T1w", "sub-02_T1w"], ["sub-01", "sub-01", "sub-02"]),
        (["sub-01/ses-1/anat/x", "sub-02/ses-1/anat/x"], ["sub-01", "sub-02"]),
        (["HGG/B_1/B_1_t1", "HGG/B_1/B_1_t2", "LGG/B_2/B_2_t1"], ["B_1", "B_1", "B_2"]),
        (["p1/visit1/T1", "p1/visit2/T1", "p2/visit1/T1"], ["p1", "p1", "p2"]),
        (["p1/early/T1", "p1/late/T1", "p2/early/T1", "p2/late/T1"], ["p1", "p1", "p2", "p2"]),
        (["p1/20200131/T1", "p1/20210131/T1", "p2/20200201/T1"], ["p1", "p1", "p2"]),
        (["a", "b", "p1/c"], ["a", "b", "c"]),
        (["site/a", "site/b", "site/c"], ["a", "b", "c"]),
        (["BRATS/BRATS_1", "BRATS/BRATS_2"], ["BRATS_1", "BRATS_2"]),
    ],
)
def test_subjects_from_names_and_folders(paths: list[str], expected: list[str]) -> None:
    assert subjects(*paths) == expected


def test_folders_of_many_scans_are_no_subjects() -> None:
    paths = [f"{kind}/{kind[0]}{number}" for kind in ("healthy", "sick") for number in range(11)]
    assert len(set(subjects(*paths))) == 22


def test_a_pattern_may_match_the_path() -> None:
    assert subjects("p1/x", "p1/y", "p2/z", pattern="^(p[0-9])/") == ["p1", "p1", "p2"]
    assert subjects("p1/s1", "p2/s2", pattern="^(s[0-9])") == ["s1", "s2"]
    with pytest.raises(UserError, match="does not match the case 'x'"):
        subjects("p1/x", pattern="^(q)")


def told(caplog, *parts: list[str]) -> bool:
    caplog.clear()
    found = warn_of_lookalikes([(name, name) for name in part] for part in parts)
    assert found == bool(caplog.records) and len(caplog.records) <= 1
    return found


@pytest.mark.parametrize(
    "pair",
    [
        ("p1_ses-1", "p1_ses-2"),
        ("Miller_visit1", "Miller_visit2"),
        ("01_Patient_L", "01_Patient_R"),
        ("x-left", "x-right"),
        ("BraTS-GLI-00012-000", "BraTS-GLI-00012-001"),
        ("OAS1_0001_MR1", "OAS1_0001_MR2"),
        ("p12_baseline_T1w", "p12_followup_T1w"),
        ("p12_01", "p12_02"),
    ],
)
def test_one_persons_names_on_two_sides(pair: tuple[str, str], caplog) -> None:
    others = ["q7_99", "other", "third_one"]
    assert told(caplog, [pair[0], *others[:1]], [pair[1]], others[1:])
    assert pair[0] in caplog.text and pair[1] in caplog.text
    assert not told(caplog, [*pair, "q7_99"], ["other"])


@pytest.mark.parametrize(
    "pattern",
    ["hippocampus_{:03}", "s{:02}", "BraTS19_{:03}", "IXI{:03}-Guys-0828", "{:03}_S_0295", "BRATS-2020-{:03}"],
)
def test_numbered_people_are_not_suspected(pattern: str, caplog) -> None:
    names = np.random.default_rng(0).permutation([pattern.format(number) for number in range(40)]).tolist()
    assert not told(caplog, names[:30], names[30:36], names[36:])


def test_one_file_name_in_a_folder_per_kind_is_one_person(caplog) -> None:
    parts = [[(f"{kind}_case{number}", f"case{number}") for number in range(9)] for kind in ("T1", "T2")]
    assert warn_of_lookalikes(parts)
    assert "T1_case0 and T2_case0" in caplog.text
    caplog.clear()
    everywhere = [[(f"p{person}_scan1", "scan1") for person in people] for people in (range(9), range(9, 12))]
    assert not warn_of_lookalikes(everywhere)
