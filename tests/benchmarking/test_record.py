"""What is concluded from times: ratios, the fastest of each side, shares of the machine's rates; tables and pictures."""

import dataclasses
import io
import json

import pytest
import torch
from PIL import Image
from rich.console import Console

from convmix.benchmarking import roofline
from convmix.benchmarking.bar_plots import bars, lines
from convmix.benchmarking.disturbance import Load
from convmix.benchmarking.record import processor_line, record, summary, table
from convmix.benchmarking.roofline import Rates, measure_rates, operations
from convmix.benchmarking.rounds import Lane, Result
from convmix.benchmarking.speed_page import page
from convmix.benchmarking.work import Implementation, Work, contenders
from convmix.speed.backends import EnginePlan

RATES = Rates(matmul_fp32=100e9, matmul_bf16=400e9, copy=20e9)
WORK = Work("convmixer_8_2_k3_p4", "inference", 8, 16, 16, 3, "cpu", 1, "bf16", 1.0)
RESULT = Result(
    WORK,
    (
        Lane(Implementation("official path", "official", EnginePlan()), "eager fp32", 0.1, (400.0, 420.0, 380.0), 50.0, 0.0),
        Lane(Implementation("slow peer", "peer", EnginePlan()), "eager fp32", 0.1, (300.0, 300.0, 300.0), 50.0, 1e-7),
        Lane(Implementation("good peer", "peer", EnginePlan(dtype="bf16")), "eager bf16", 9.0, (100.0, 110.0, 90.0), 40.0, 1e-3),
        Lane(Implementation("broken", "peer", EnginePlan()), failed="it is not installed"),
        Lane(Implementation("convmix", "ours"), "native bf16", 1.0, (50.0, 50.0, 30.0), 30.0, 2e-3),
    ),
)


def lane_of(made, name):
    return next(lane for lane in made["lanes"] if lane["name"] == name)


def printed(made):
    """The table as a terminal of 80 columns shows it."""
    console = Console(file=io.StringIO(), width=80)
    console.print(table(made))
    return console.file.getvalue().splitlines()


def test_ratios_are_taken_round_by_round():
    made = record(RESULT, rates=RATES, macs=10**9, command="convmix benchmark")
    assert (made["ours"], made["best_peer"]) == ("convmix", "good peer")
    assert made["ours_to_best_peer"] == {"median": pytest.approx(2.2), "low": pytest.approx(2.1), "high": pytest.approx(2.6)}
    assert made["ours_to_official"]["median"] == pytest.approx(8.4)  # of 8, 8.4 and 12.67
    assert lane_of(made, "slow peer")["ours_is_faster"]["median"] == pytest.approx(6)
    assert lane_of(made, "convmix")["ours_is_faster"]["median"] == 1
    assert lane_of(made, "good peer")["images_per_s"] == pytest.approx(80)


def test_shares_are_of_the_rate_of_the_type():
    made = record(RESULT, rates=RATES, macs=10**9, command="")
    assert lane_of(made, "official path")["share_of_matmul_rate"] == pytest.approx(2 * 8e9 / 0.4 / 100e9)
    assert lane_of(made, "good peer")["share_of_matmul_rate"] == pytest.approx(2 * 8e9 / 0.1 / 400e9)
    assert operations(10, 4, "training") == 3 * operations(10, 4, "inference") == 240


def test_a_record_is_json_and_names_machine_and_versions():
    made = json.loads(json.dumps(record(RESULT, rates=RATES, macs=1, command="convmix benchmark x")))
    assert made["command"] == "convmix benchmark x"
    assert made["versions"]["torch"] and made["machine"]["threads"] == 1
    assert lane_of(made, "broken") == {"name": "broken", "role": "peer", "plan": "", "failed": "it is not installed"}


def test_without_an_official_path_or_peer_there_is_no_ratio():
    made = record(Result(WORK, RESULT.lanes[-1:]), rates=RATES, macs=1, command="")
    assert made["ours_to_official"] is made["ours_to_best_peer"] is None
    assert "times as fast" not in summary(made)


def test_the_table_has_the_fastest_first_and_says_what_failed():
    made = record(RESULT, rates=RATES, macs=10**9, command="")
    lines = printed(made)
    fastest_first = ["convmix", "good peer", "slow peer", "official path"]
    starts = [line.split("  ")[0] for line in lines]
    assert [start for start in starts if start in fastest_first] == 2 * fastest_first  # the speeds, then the costs
    assert lines[-2:] == ["convmix: computed by native bf16", "broken: it is not installed"]
    assert "2.20 (2.10 to 2.60) times as fast as the best peer (good peer)" in summary(made)


def test_the_table_fits_80_columns_with_a_line_for_every_contender():
    for kind in ("inference", "training"):
        of = dataclasses.replace(WORK, kind=kind, threads=16, batch_size=16, model="convmixer_1024_20_ks9_p14")
        everyone = contenders(of)
        lanes = [Lane(one, "openvino int8 folded 16 streams", 123.4, (54321.0, 60000.0, 50000.0), 12345.0, 1e-3) for one in everyone]
        made = record(Result(of, tuple(lanes)), rates=RATES, macs=10**9, command="")
        lines = printed(made)
        assert max(map(len, lines)) <= 80
        for one in everyone:
            assert sum(line.split("  ")[0] == one.name for line in lines) == 2, one.name


def test_a_disturbed_race_has_times_and_no_ratios():
    made = record(dataclasses.replace(RESULT, load=Load(10.0, 0.43, 0.0)), rates=RATES, macs=10**9, command="")
    assert made["ours_to_best_peer"]["median"] == pytest.approx(2.2)  # kept in the record, beside the reason
    assert made["load"] == {"elapsed_s": 10.0, "others": 0.43, "stolen": 0.0}
    said, shown = summary(made), "\n".join(printed(made))
    assert "other programs took 43% of its processor time" in said and "No ratio is given" in said
    assert "times as fast" not in said and "official\n" not in shown and "2.20" not in shown and "80.0" in shown
    html = page([made], bars(made)).html()
    assert 'class="note"' in html and "other programs took 43%" in html and ">2.20<" not in html


def test_a_ratio_that_varies_is_not_given_and_the_steady_one_is():
    swinging = dataclasses.replace(RESULT.lanes[0], ms=(150.0, 500.0, 300.0, 450.0))
    steady = [dataclasses.replace(lane, ms=(100.0, 101.0, 100.0, 101.0)) for lane in (RESULT.lanes[2], RESULT.lanes[4])]
    made = record(Result(WORK, (swinging, *steady)), rates=RATES, macs=10**9, command="")
    said = summary(made)
    assert "No ratio to the official path is given: its quartiles over the rounds, 2.62 and 4.58" in said
    assert "convmix is 1.00 (1.00 to 1.00) times as fast as the best peer" in said
    assert "varies" in "\n".join(printed(made))


def test_the_page_shows_picture_numbers_and_what_failed():
    made = record(RESULT, rates=RATES, macs=10**9, command="convmix benchmark <x>")
    html = page([made], bars(made)).html()
    assert "data:image/png;base64," in html and "convmix benchmark &lt;x&gt;" in html and "<script" not in html
    assert "2.20" in html and "it is not installed" in html and html.count("<tr>") == 1 + 4 + 1 + 1
    swept = page([made | {"point": 1}, made | {"point": 2}], b"\x89PNG", over="batch").html()
    assert "batch 1<" in swept and "batch 2<" in swept


def test_the_processor_is_named_with_what_it_can():
    made = record(RESULT, rates=RATES, macs=1, command="")
    assert made["machine"]["processor"] and "instruction_sets" in made["machine"]
    line = processor_line({"machine": {"name": "a card", "processor": "Xeon", "cores": 2, "instruction_sets": ["avx2", "amx_tile"]}})
    assert line == "Processor: Xeon, 2 usable; avx2, amx_tile."
    assert "not known" in processor_line({"machine": {"name": "M4", "cores": 8}})


def test_pictures_are_900_pixels_wide():
    made = record(RESULT, rates=RATES, macs=10**9, command="")
    assert Image.open(io.BytesIO(bars(made))).width == 900
    swept = [made | {"point": 1}, made | {"point": 2}]
    assert Image.open(io.BytesIO(lines(swept, "batch"))).width == 900


def test_the_machines_rates_are_measured(monkeypatch):
    monkeypatch.setattr(roofline, "SIDE", 256)
    monkeypatch.setattr(roofline, "COPIED", 2**22)
    rates = measure_rates(torch.device("cpu"))
    assert 1e8 < rates.matmul_fp32 < 1e15 and 1e7 < rates.matmul_bf16 < 1e15 and 1e7 < rates.copy < 1e13
