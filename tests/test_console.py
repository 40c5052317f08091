"""What the terminal draws."""

from mem1.console import TrainProgress, curve


def test_a_curve_goes_from_the_least_to_the_largest_value():
    assert curve("reward", [0.0, 0.5, 1.0]) == "reward 0.00 ▁▄█ 1.00"
    assert curve("reward", [2.0, 1.0]) == "reward 2.00 █▁ 1.00"


def test_a_level_curve_is_flat():
    assert curve("em", [0.3, 0.3]) == "em 0.30 ▁▁ 0.30"


def test_a_long_curve_is_made_of_means_and_fits_a_line():
    values = [float(step % 2) for step in range(1000)]
    assert curve("reward", values) == f"reward 0.50 {'▁' * 50} 0.50"
    assert len(curve("reward", [*values, 1.0])) < 80


def test_training_draws_its_rewards(capfd):
    with TrainProgress(num_steps=3) as progress:
        for step, reward in enumerate([0.0, 0.5, 1.0], start=1):
            progress.step(step, {"reward": reward})
        progress.step(4, {"validation/reward": 0.7})
    shown = capfd.readouterr().err
    assert "reward 0.00 ▁▄█ 1.00" in shown
    assert "step 4: held out 0.700" in shown


def test_training_tells_the_level_where_there_is_a_curriculum(capfd):
    with TrainProgress(num_steps=2) as progress:
        progress.step(1, {"level": 1.0, "reward": 0.5, "validation/reward": 0.25})
        progress.step(2, {"level": 2.0, "reward": 0.5, "validation/reward": 0.5})
    shown = capfd.readouterr().err
    assert "step 1: level 1  reward 0.500  held out 0.250" in shown
    assert "step 2: level 2" in shown
