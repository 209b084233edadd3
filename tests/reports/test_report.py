from saccade.reports.answer import answer
from saccade.reports.basis import basis
from saccade.reports.fairness.finding import Finding
from saccade.reports.markup import block, code, prose
from saccade.reports.report import write_report
from saccade.reports.rows import rows
from saccade.reports.scales import Scale

FINDINGS = [
    Finding("one scale", "warning", "one size of model", "another size"),
    Finding("a second thing changed", "error", "patch_size is not the same"),
]


def written(made, tmp_path, *, seeds=3, findings=FINDINGS, **options):
    records = made.whole({"softmax": 0.92, "linear": 0.8}, seeds=seeds, costs={"linear": 0.7})
    found, rests_on = rows(records), basis(records)
    scale = Scale(rows=found, basis=rests_on)
    path = write_report(tmp_path, [scale], findings, answer(found, rests_on), **options)
    assert path == tmp_path / "report.md"
    return path.read_text(encoding="utf-8")


def test_what_confounds_stands_on_top(made, tmp_path):
    text = written(made, tmp_path)
    places = [
        text.index(part) for part in ("patch\\_size is not", "one size of", "| attention |", "Take softmax", "##")
    ]
    assert places[:4] == sorted(places[:4])
    assert "*Remedy: another size.*" in text


def test_it_holds_table_picture_sentence_command_and_machine(made, tmp_path):
    text = written(made, tmp_path, command="saccade compare linear", picture=tmp_path / "accuracy-cost.png")
    for part in (
        "`linear`",
        "![accuracy against cost](accuracy-cost.png)",
        "**Take softmax: nothing else",
        "```text\nsaccade compare linear\n```",
        "processor: AMD EPYC 9354",
        "(M − 1)(S − 1) degrees of freedom",
        "below −1 points",
        "[records.jsonl](records.jsonl)",
    ):
        assert part in text


def test_without_findings_there_is_no_place_for_them(made, tmp_path):
    assert "Before reading on" not in written(made, tmp_path, findings=[])


def test_one_seed_says_that_nothing_was_decided(made, tmp_path):
    text = written(made, tmp_path, seeds=1)
    assert "Nothing was decided: an interval needs 3 seeds." in text
    assert "Holm" not in text


def test_the_text_of_others_is_text(made, tmp_path):
    evil = Finding("rule", "error", "<img src=x> [a](javascript:b) **bold**\n# heading | `x`")
    (line,) = [line for line in written(made, tmp_path, findings=[evil]).splitlines() if "img" in line]
    assert line == ("* **rule**: &lt;img src=x&gt; \\[a\\](javascript:b) \\*\\*bold\\*\\* \\# heading \\| \\`x\\`.")
    assert prose("a & b") == "a &amp; b"
    assert code("plain") == "`plain`"
    assert block("a\n````\nb").startswith("`````text\n")
