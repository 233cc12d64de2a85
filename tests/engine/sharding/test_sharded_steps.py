"""Single steps, averages and evaluations of a sharded run, seen from each of its ranks."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sharded_toy import (
    SETTINGS,
    differing,
    files_of,
    make_toy,
    started,
    tensors_of,
    train_on,
    whole_tensors,
)

from visionloop.engine.ema import ExponentialMovingAverage, named_state
from visionloop.engine.evaluation.evaluate import compute_scores, evaluate, evaluate_module
from visionloop.engine.loop import fit
from visionloop.engine.optim import state_by_name
from visionloop.engine.system.signals import StopFlag
from visionloop.engine.tensors import load_by_name, whole
from visionloop.engine.testing.short_runs import (
    CONFIG,
    on_ranks,
    same_bits,
    score,
    seeded_model,
    spec_of,
)
from visionloop.engine.train import run_training

FULL = {"shard": "full"}
# the decay of the average is 1 - 10/steps
LONG = {"steps": 24, "eval_every": 12, "save_every": 12}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs on two processes."""
    folder = tmp_path_factory.mktemp("runs")
    train_on(
        2,
        folder,
        plain=LONG,
        sharded=FULL | LONG,
        poisoned=FULL
        | {"task": "poisoned", "toy": {"poison": "3", "batch_norm": True}}
        | {"save_every": 1, "eval_every": 0},
    )
    return folder


def test_a_loss_that_is_infinite_on_one_rank_changes_no_bit_on_any(runs):
    before, after = (tensors_of(runs / "poisoned", step) for step in (3, 4))
    assert any("running_mean" in name for name in after)
    assert differing(before, after) == []
    last = tensors_of(runs / "poisoned", 6)
    assert all(torch.isfinite(tensor).all() for tensor in last.values())
    assert len(differing(after, last)) > len(last) / 2


def scales_of_fp16(output):
    """Return this rank's scales after steps without, with and again without an overflow."""
    settings = {"precision": "fp16", "task": "poisoned", "toy": {"poison": "1"}}
    scales = []
    with started(output, FULL | settings | {"eval_every": 0, "save_every": 0}) as (run, task):
        before_step = task.before_step

        def record(module, step, steps):
            scales.append(run.precision.scaler.get_scale())
            before_step(module, step, steps)

        task.before_step = record
        fit(run, task)
    return scales


def test_an_overflow_of_fp16_on_one_rank_halves_the_scale_on_all(tmp_path):
    first, second = on_ranks(2, scales_of_fp16, str(tmp_path / "run"), context="fork")
    assert first == second
    assert [scale / first[0] for scale in first[:4]] == [1, 1, 0.5, 0.5]


def disturb(module, plain, seed):
    """Give a sharded and a plain module the same new weights."""
    torch.manual_seed(seed)
    new = {name: torch.randn(tensor.shape) for name, tensor in plain.state_dict().items()}
    load_by_name(named_state(module), new, "weights")
    plain.load_state_dict(new)


def averages_that_differ(output):
    """Update and lend the averages of a sharded and of a plain module; name what differs."""
    wrong = []

    def compare(sharded, plain, what):
        for name, tensor in plain.items():
            if not same_bits(whole(sharded[name].detach()), tensor.detach()):
                wrong.append(f"{what}: {name}")

    with started(output, FULL | {"steps": 100}) as (run, task):
        plain = seeded_model(task)
        ema = ExponentialMovingAverage(plain, run.ema.decay)
        for step in range(5):
            disturb(run.module, plain, step)
            nonfinite = torch.tensor(float(step == 3))
            run.ema.update(step, nonfinite)
            ema.update(step, nonfinite)
            compare(run.ema.tensors, ema.tensors, f"average of step {step}")
        compare(named_state(run.module), named_state(plain), "weights")
        images = torch.rand(4, 3, 8, 8)
        plain.eval()
        run.module.eval()
        for lent in (True, False):
            if lent:
                with run.ema.applied(run.module), run.gathered(), torch.no_grad():
                    predicted = run.module(images)
                with ema.applied(plain), torch.no_grad():
                    expected = plain(images)
            else:
                with run.gathered(), torch.no_grad():
                    predicted = run.module(images)
                with torch.no_grad():
                    expected = plain(images)
            if not torch.equal(predicted, expected):
                wrong.append(f"prediction, lent: {lent}")
        compare(run.ema.tensors, ema.tensors, "average after its return")
        compare(named_state(run.module), named_state(plain), "weights after their return")
    return wrong


@pytest.mark.parametrize("processes", [2, 3])
def test_averages_of_shards_are_those_of_one_process_and_are_lent_and_returned_exactly(
    processes, tmp_path
):
    output = str(tmp_path / "run")
    for wrong in on_ranks(processes, averages_that_differ, output, context="fork"):
        assert wrong == []


def test_evaluations_score_the_average_and_draw_the_samples_of_a_plain_run(runs):
    records = [
        json.loads(path.read_text())
        for name in ("plain", "sharded")
        for path in sorted((runs / name / "evaluations").glob("*/record.json"))
    ]
    assert len(records) == 4  # two of each
    for plain, sharded in zip(records[:2], records[2:], strict=True):
        assert plain["scores"] == sharded["scores"] != sharded["raw_scores"]
        assert plain["raw_scores"] == sharded["raw_scores"]
    images = [
        {p.relative_to(runs / name): p.read_bytes() for p in (runs / name).rglob("*.jpg")}
        for name in ("plain", "sharded")
    ]
    assert images[0] and images[0] == images[1]


def facts_after_an_evaluation(output):
    """Evaluate, take steps, evaluate again; return what then holds on this rank."""
    with started(output, FULL | {"save_every": 0}) as (run, task):
        fit(run, task)  # evaluates at its steps 3 and 6
        trained = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
        parameters = dict(run.module.named_parameters())
        expected = {
            f"{name}/{entry}" for name in parameters for entry in ("step", "exp_avg", "exp_avg_sq")
        }
        steps = {
            name: float(value)
            for name, value in state_by_name(run.optimizer, run.module).items()
            if name.endswith("/step")
        }
        tensors = whole_tensors(run)
        plain = seeded_model(task)
        plain.load_state_dict({name: tensors[f"weights/{name}"] for name in plain.state_dict()})
        images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        run.model.eval()
        # of the weights that the optimizer has changed since the last evaluation
        same = torch.equal(run.model(images), plain.eval()(images))
        run.sharding.root.reshard()
        return {
            "foreign": [name for name, p in parameters.items() if id(p) not in trained],
            "without state": sorted(expected - state_by_name(run.optimizer, run.module).keys()),
            "steps": sorted(set(steps.values())),
            "same": same,
        }


def test_after_an_evaluation_the_optimizer_trains_the_modules_parameters_and_knows_all_states(
    tmp_path,
):
    for facts in on_ranks(2, facts_after_an_evaluation, str(tmp_path / "run"), context="fork"):
        assert facts == {"foreign": [], "without state": [], "steps": [6.0], "same": True}


def scores_of_fresh_weights(output):
    with started(output, FULL | {"batch_size": 6, "micro_batch": 2}) as (run, task):
        with run.gathered():
            metric = evaluate_module(run, task)
        scores = compute_scores(run.world, metric)
        run.state.step = run.config.eval_every
        evaluate(run, task)
        return [scores, run.state.scores, len(metric)]


@pytest.mark.parametrize("processes", [2, 3])
def test_uneven_evaluation_batches_give_the_scores_of_one_process_while_the_main_rank_draws(
    processes, tmp_path
):
    expected = score(make_toy)
    results = on_ranks(processes, scores_of_fresh_weights, str(tmp_path / "run"), context="fork")
    assert results[0][2] == 23
    for scores, of_average, _ in results:
        assert scores == of_average == expected
    assert list((tmp_path / "run" / "evaluations").rglob("*.jpg"))


def stop_in_evaluation(output):
    """Train; the last rank wants to stop at its first validation batch. All ranks."""
    task, stop = make_toy(), StopFlag()
    predict = task.predict

    def predict_and_stop(model, batch):
        stop.requested = int(os.environ["RANK"]) == 1
        return predict(model, batch)

    task.predict = predict_and_stop
    config = replace(CONFIG, **SETTINGS | FULL | LONG)
    result = run_training(spec_of(task, Path(output), config=config), start=None, stop=stop)
    return [result.state, result.step, result.scores]


def test_a_stop_in_an_evaluation_stops_all_ranks_and_the_resumed_run_has_the_same_bytes(
    runs, tmp_path
):
    (tmp_path / "run").mkdir()
    results = on_ranks(2, stop_in_evaluation, str(tmp_path / "run"), context="fork")
    assert results == [["stopped", 12, {}]] * 2
    train_on(2, tmp_path, run=FULL | LONG)
    last = ("checkpoints/step_00000024", "best", "evaluations")
    assert files_of(tmp_path / "run", *last) == files_of(runs / "sharded", *last)
