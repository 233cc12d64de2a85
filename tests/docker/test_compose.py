"""docker/compose.yaml: data, runs, stops and ports. It is parsed, not started."""

import re
import shlex

import pytest
import yaml
from environments import ROOT
from torch.distributed.run import get_args_parser


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker/compose.yaml").read_text())


def mounts(compose, service):
    return {mount["target"]: mount for mount in compose["services"][service]["volumes"]}


def test_compose_trains_on_read_only_data_and_writes_runs(compose):
    data, runs = mounts(compose, "train")["/data"], mounts(compose, "train")["/workspace/runs"]
    assert data["read_only"] is True and not runs.get("read_only", False)
    # a folder that Docker makes would belong to root
    assert [mount["bind"]["create_host_path"] for mount in (data, runs)] == [False, False]
    workspace = re.findall(
        r"^WORKDIR (.+)$", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE
    )[-1]
    assert runs["target"] == f"{workspace}/runs", "the default --output is runs/ in there"
    command = shlex.split(compose["services"]["train"]["command"])
    ours = command.index("visionloop-classification")
    assert command[ours : ours + 4] == ["visionloop-classification", "train", "--data", "/data"]


def test_compose_starts_a_process_for_each_gpu_and_ends_it_within_the_grace_period(compose):
    train = compose["services"]["train"]
    launcher, _, _ = train["command"].partition(" --no-python ")
    arguments = get_args_parser().parse_args([*shlex.split(launcher)[1:], "command"])
    assert launcher.startswith("torchrun ") and arguments.standalone
    assert arguments.nproc_per_node == "gpu"
    assert arguments.shutdown_timeout < int(train["stop_grace_period"].removesuffix("s"))
    assert train["ulimits"] == {"memlock": -1}


def test_compose_gives_a_stop_the_time_that_a_checkpoint_takes(compose):
    train = compose["services"]["train"]
    assert (
        train["stop_grace_period"] == "120s"
        and train["init"] is True
        and train["shm_size"] == "8gb"
    )


def test_compose_shows_tensorboard_to_this_machine_alone(compose):
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert ports == ["127.0.0.1:6006:6006"]
    assert mounts(compose, "tensorboard")["/workspace/runs"]["read_only"] is True
    assert "network_mode" not in compose["services"]["tensorboard"]


def test_compose_builds_the_image_beside_it_and_runs_nothing_as_root(compose):
    for service in compose["services"].values():
        build = service["build"]
        assert (
            ROOT / "docker" / build["context"] / build["dockerfile"]
        ).resolve() == ROOT / "docker/Dockerfile"
        assert service["user"] == "${RUN_AS:-1000:1000}" and service["cap_drop"] == ["ALL"]
    device = compose["services"]["train"]["deploy"]["resources"]["reservations"]["devices"][0]
    assert device["capabilities"] == ["gpu"] and "deploy" not in compose["services"]["tensorboard"]
