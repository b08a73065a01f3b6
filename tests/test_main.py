"""`python -m jaxloss`."""

import subprocess
import sys

import pytest

import jaxloss
from jaxloss import __main__ as terminal


def test_list_has_every_name_once_under_its_family(capsys):
    assert terminal.main([]) == 0
    out = capsys.readouterr().out
    listed = [line.split()[0] for line in out.splitlines() if line[:3].strip()]
    families = terminal.families()
    titles = families | terminal.modules()
    assert listed == [word for title, names in titles.items() for word in (title, *names)]
    assert sorted(sum(families.values(), [])) == jaxloss.__all__
    assert {"detection.fcos", "distance.edt", "geometry.nms"} < set(listed)
    assert max(map(len, out.splitlines())) <= 100
    assert "(Milletari, Navab and Ahmadi 2016)" in " ".join(out.split())


@pytest.mark.parametrize("name", jaxloss.__all__)
def test_entry_has_signature_summary_formula_and_reference(name, capsys):
    assert terminal.main([name]) == 0
    out = capsys.readouterr().out
    text = terminal.read(getattr(jaxloss, name))
    assert out.startswith(f"jaxloss.{name}(")
    assert text.summary in out
    for formula in terminal.formulas(text.body):
        assert formula.splitlines()[0] in out
    assert out.count("http") == text.sections["Reference"].count("http")


@pytest.mark.parametrize(
    "word, full",
    [
        ("detection.fcos", "detection.fcos"),
        ("nms", "geometry.nms"),
        ("jaxloss.distance.edt", "distance.edt"),
        ("softmax_cross_entropy", "optax_compat.softmax_cross_entropy"),
        ("iou", "iou"),
        ("geometry.iou", "geometry.iou"),
    ],
)
def test_entries_of_submodules(word, full, capsys):
    assert terminal.main([word]) == 0
    assert capsys.readouterr().out.startswith(f"jaxloss.{full}(")


def test_formulas_stand_behind_what_leads_to_them(capsys):
    assert terminal.main(["dice"]) == 0
    out = capsys.readouterr().out
    said = ["smooth)\n\n`squared=True`", '`squared="counts"` nnU-Net\'s:\n\n    1 - ', "tp = sum"]
    assert -1 < out.find(said[0]) < out.find(said[1]) < out.find(said[2])


def test_help(capsys):
    assert terminal.main(["--help"]) == 0
    assert "python -m jaxloss dice" in capsys.readouterr().out


def test_dice_in_full(capsys):
    assert terminal.main(["jaxloss.dice"]) == 0
    out = capsys.readouterr().out
    assert "jaxloss.dice(logits, labels, *, smooth=1.0, squared=False, per_class=True," in out
    assert "\n    Dice = 1 - (2 sum p y + smooth) / (sum p + sum y + smooth)\n" in out
    assert out.endswith(
        "\n\nMilletari, Navab and Ahmadi. V-Net. 3DV 2016. https://arxiv.org/abs/1606.04797\n\n"
        "Drozdzal et al. The Importance of Skip Connections in Biomedical Image Segmentation. 2016."
        "\nhttps://arxiv.org/abs/1608.04117\n"
    )


@pytest.mark.parametrize(
    "words, near", [(["hingge"], "hinge"), (["DiceLoss"], "dice"), (["giou", "diou"], "giou")]
)
def test_unknown_name_says_what_is_near(words, near, capsys):
    assert terminal.main(words) == 2
    said = capsys.readouterr()
    assert not said.out
    assert near in said.err


def test_module_runs():
    done = subprocess.run(
        [sys.executable, "-m", "jaxloss", "nothing-like-it"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("jaxloss has no 'nothing-like-it'")
