"""Advice from a model's own predictions: what is read, what is refused, and whether the numbers are those of other
libraries."""

import calibration as uncertainty_calibration
import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from har_ls.cli import main
from har_ls.core import HarLsError
from har_ls.evidence.outputs import look, outputs_text, read_outputs, recommendation

CLASSES = ["walking", "sitting", "lying"]


def table(scale=2.0, people=16, windows=50, seed=0):
    "Outputs that are honest when divided by `scale`."
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(2 * people), windows)
    z = rng.normal(0, 1.5, (len(subject), 3))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    y = (rng.random(len(z))[:, None] > p.cumsum(1)).sum(1).clip(max=2)
    part = np.where(subject < people, "validation", "test")
    return pd.DataFrame(
        dict(part=part, subject=subject, y=np.array(CLASSES)[y])
        | {f"logit_{name}": scale * z[:, k] for k, name in enumerate(CLASSES)}
    )


def arrays(frame):
    "The same as arrays."
    made = {"classes": np.array(CLASSES)}
    for part, some in frame.groupby("part"):
        made |= {
            f"{part}_logits": some.filter(like="logit_").to_numpy(),
            f"{part}_y": some.y.to_numpy(str),
            f"{part}_subject": some.subject.to_numpy(),
        }
    return made


@pytest.fixture
def written(tmp_path):
    frame = table()
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.csv.gz", index=False)
    frame.to_parquet(tmp_path / "a.parquet", index=False)
    np.savez(tmp_path / "a.npz", **arrays(frame))
    return tmp_path


def test_every_format_gives_the_same(written):
    found = [look(read_outputs(written / name)) for name in ("a.csv", "a.csv.gz", "a.parquet", "a.npz")]
    for other in found[1:]:
        assert np.allclose(
            [other.temperature, other.gap.value, other.gap.low, *other.ece, *other.nll],
            [found[0].temperature, found[0].gap.value, found[0].gap.low, *found[0].ece, *found[0].nll],
        )


def test_numbers_are_those_of_other_libraries(written):
    outputs = read_outputs(written / "a.csv")
    found, test = look(outputs), outputs.test
    for t, error, nll in zip((1.0, found.temperature), found.ece, found.nll):
        z = torch.tensor(test.logits[0] / t)
        p, y = z.softmax(-1), torch.tensor(test.y)
        assert np.isclose(error, float(multiclass_calibration_error(p, y, num_classes=3, n_bins=15)), atol=1e-6)
        sure, right = p.max(-1).values.numpy(), (p.argmax(-1) == y).numpy()
        assert np.isclose(error, uncertainty_calibration.get_ece(sure, right.astype(int), num_bins=15), atol=1e-6)
        assert np.isclose(nll, float(torch.nn.functional.cross_entropy(z, y)))
    z, y = torch.tensor(outputs.validation.logits[0]), torch.tensor(outputs.validation.y)
    least = min(np.geomspace(0.5, 5, 2000), key=lambda t: float(torch.nn.functional.cross_entropy(z / t, y)))
    assert abs(np.log(found.temperature / least)) < 2e-3


@pytest.mark.parametrize("scale, begins", [(2.0, "Divide"), (0.5, "Divide")])
def test_the_temperature_that_was_put_in_comes_out(tmp_path, scale, begins):
    table(scale, people=40).to_csv(tmp_path / "a.csv", index=False)
    found = look(read_outputs(tmp_path / "a.csv"))
    assert abs(np.log(found.temperature / scale)) < 0.1 and recommendation(found).startswith(begins)
    assert np.sign(found.gap.value) == np.sign(scale - 1)


def test_an_honest_model_is_rarely_sent_to_be_mended(tmp_path):
    advice = []
    for seed in range(60):
        table(1.0, people=12, windows=30, seed=seed).to_parquet(tmp_path / "a.parquet", index=False)
        advice.append(recommendation(look(read_outputs(tmp_path / "a.parquet"))).startswith("Divide"))
    assert np.mean(advice) <= 0.1  # 2.5 % of them by chance; 0.1 is five standard errors away


@pytest.mark.parametrize(
    "fault, words",
    [
        (lambda t: t.assign(logit_lying=t.logit_lying.mask(t.index == 4)), "row 5: logit_lying"),
        (lambda t: t.assign(logit_lying=t.logit_lying.mask(t.index == 4, np.inf)), "expected a finite number"),
        (lambda t: t.assign(logit_lying=t.logit_lying.astype(object).mask(t.index == 4, "1,5")), "'1,5'"),
        (lambda t: t.assign(y=t.y.mask(t.index == 0, "flying")), "'flying'"),
        (lambda t: t.assign(part=t.part.mask(t.index == 2, "train")), "row 3: part is 'train'"),
        (lambda t: t.drop(columns="subject"), "no column subject"),
        (lambda t: t.assign(subject=t.subject.astype(float).mask(t.index == 6)), "row 7: no subject"),
        (lambda t: t.drop(columns=["logit_lying", "logit_sitting"]), "at least two classes"),
        (lambda t: t[t.part == "test"], "no rows of the validation part"),
        (
            lambda t: t.assign(**np.exp(t.filter(like="logit_")).pipe(lambda p: p.div(p.sum(axis=1), axis=0))),
            "are probabilities",
        ),
    ],
)
def test_a_faulty_table_is_refused_by_name(tmp_path, fault, words):
    fault(table(people=4, windows=5)).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(HarLsError, match="a.csv") as error:
        read_outputs(tmp_path / "a.csv")
    assert words in str(error.value)


@pytest.mark.parametrize(
    "fault, words",
    [
        (lambda a: a | {"test_y": a["test_y"][:-1]}, "test_y has shape"),
        (lambda a: a | {"test_logits": a["test_logits"][:, :2]}, "with the same classes"),
        (lambda a: a | {"test_logits": a["test_logits"][0]}, "expected [windows, classes]"),
        (lambda a: {k: v for k, v in a.items() if k != "validation_subject"}, "no array validation_subject"),
        (lambda a: a | {"classes": a["classes"][:2]}, "2 names in classes"),
        (
            lambda a: a | {"test_logits": np.where(np.arange(3) == 1, np.nan, a["test_logits"])},
            "test row 1 has nan for class sitting",
        ),
    ],
)
def test_misaligned_arrays_are_refused_by_name(tmp_path, fault, words):
    np.savez(tmp_path / "a.npz", **fault(arrays(table(people=4, windows=5))))
    with pytest.raises(HarLsError) as error:
        read_outputs(tmp_path / "a.npz")
    assert words in str(error.value) and "a.npz" in str(error.value)


@pytest.mark.parametrize("name, content", [("a.npz", b"PK no"), ("a.parquet", b"PAR1"), ("a.csv", b"\xff\xfe\x00")])
def test_a_damaged_file_is_refused_with_a_sentence(tmp_path, capsys, name, content):
    (tmp_path / name).write_bytes(content)
    assert main(["advise", "--predictions", str(tmp_path / name)]) == 1
    said = capsys.readouterr().err
    assert name in said and "Traceback" not in said


def test_few_people_and_known_people_are_said(tmp_path):
    few = table(people=3)
    few.to_csv(tmp_path / "few.csv", index=False)
    assert "Too few people" in outputs_text(tmp_path / "few.csv", tmp_path)
    both = table().assign(subject=lambda t: t.subject % 16)
    both.to_csv(tmp_path / "both.csv", index=False)
    assert "16 people are in both parts" in outputs_text(tmp_path / "both.csv", tmp_path)


def test_the_command_writes_a_page(written, capsys):
    assert main(["advise", "--predictions", str(written / "a.csv"), "--out", str(written / "advice")]) == 0
    page = (written / "advice" / "advise_outputs.html").read_text()
    said = capsys.readouterr().out
    assert said.splitlines()[0] in page and page.count("<figure>") == 2 and str(written) not in page
