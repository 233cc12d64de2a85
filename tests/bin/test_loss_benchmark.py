"""The benchmark of losses on a small shape."""

import json

from click.testing import CliRunner

from visionloop.bin.benchmarks.loss import loss


def test_both_losses_are_timed_and_their_host_reads_counted(tmp_path):
    small = ["--batch-size", "2", "--batch-size", "3", "--layers", "2", "--queries", "20", "--classes", "5", "--repeats", "1"]
    result = CliRunner().invoke(loss, [*small, "--json", str(tmp_path / "loss.json")])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "loss.json").read_text().splitlines()]
    assert [row["batch_size"] for row in rows] == [2, 3]
    for row in rows:
        assert row["criterion_ms"] > 0 and row["library_ms"] > 0
        assert row["criterion_reads"] == {"cpu": 1}
        assert sum(row["library_reads"].values()) > 4
        assert "nonzero" in row["network_reads"]
