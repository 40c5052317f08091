"""The policy: what trains, what it's compared with, and what it leaves behind."""

import copy
import random
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from ledger_runs import groups, tiny_policy, train_config, unchanged, weights  # noqa: E402
from models import random_model  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from mem1.engines.local import load_model  # noqa: E402
from mem1.errors import ConfigError, ModelError  # noqa: E402
from mem1.packing import pack  # noqa: E402
from mem1.train.config import CriticConfig, LoraConfig, LossConfig  # noqa: E402
from mem1.train.policy import Policy, make_policy  # noqa: E402
from mem1.train.scoring import hidden_states, score  # noqa: E402

LORA = LoraConfig(rank=4, alpha=8)
KL = LossConfig(kl=0.1, kl_in="loss")
(ROW,) = pack(groups(2), row_tokens=5000)
AT = torch.ones(len(ROW.targets))


def disturb(policy: Policy) -> None:
    """Move all that trains, as an update would."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for state in policy.parts().values():
            for tensor in state.tensors.values():
                tensor.add_(torch.randn(tensor.shape, generator=rng), alpha=0.1)


def logprobs(policy: Policy):
    with torch.no_grad():
        return policy.score(ROW, temperature_T=AT).logprobs_T


def ref_logprobs(policy: Policy):
    with torch.no_grad():
        return policy.ref_logprobs(ROW, temperature_T=AT)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_the_reference_is_the_policy_as_it_came_and_stays(tiny, lora):
    policy = tiny_policy(tiny, train_config(loss=KL, lora=lora))
    before = logprobs(policy)
    assert torch.equal(ref_logprobs(policy), before)
    disturb(policy)
    assert torch.equal(ref_logprobs(policy), before)
    assert (logprobs(policy) - before).abs().max() > 0.01


def test_only_adapters_train_with_lora(tiny):
    policy = tiny_policy(tiny, train_config(lora=LORA))
    trained = [name for name, p in policy.model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert {name.split(".", 1)[1] for name in weights(policy)} == set(trained)
    # Nobody needs a second model to compare with.
    assert tiny_policy(tiny, train_config(loss=KL, lora=LORA)).reference is None


def test_lora_on_layers_that_are_not_there_is_refused(tiny):
    with pytest.raises(ModelError, match=r"train.lora.targets = \('nowhere',\)"):
        tiny_policy(tiny, train_config(lora=LoraConfig(targets=("nowhere",))))


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_an_exported_policy_is_an_ordinary_model_with_equal_logits(tiny, tmp_path, lora):
    policy = tiny_policy(tiny, train_config(lora=lora))
    disturb(policy)
    policy.export(tmp_path / "policy")
    plain = AutoModelForCausalLM.from_pretrained(str(tmp_path / "policy"))
    ids = torch.tensor([[3, 1, 4, 1, 5, 9]])
    with torch.no_grad():
        expected, found = policy.model(ids).logits, plain(ids).logits
    assert (found - expected).abs().max() < 1e-5
    assert not any("lora" in name for name, _ in plain.named_parameters())
    assert "mem1" not in (tmp_path / "policy" / "config.json").read_text()


def test_exporting_leaves_adapters_as_they_are(tiny, tmp_path):
    policy = tiny_policy(tiny, train_config(lora=LORA))
    disturb(policy)
    before, scored = weights(policy), logprobs(policy)
    policy.export(tmp_path / "policy")
    assert unchanged(policy, before)
    assert torch.equal(logprobs(policy), scored)


def test_an_engine_samples_from_the_adapted_weights(tiny):
    policy = tiny_policy(tiny, train_config(lora=LORA))
    disturb(policy)
    with torch.no_grad():
        sampled = score(policy.sampled_model, ROW, temperature_T=AT).logprobs_T
    assert torch.equal(sampled, logprobs(policy))


SETTINGS = {
    "full": train_config(),
    "lora": train_config(lora=LORA),
    "critic": train_config("ppo"),
    "head": train_config("ppo", critic=CriticConfig(kind="head")),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_checkpoint_holds_all_that_trains(tiny, name):
    policy, other = (tiny_policy(tiny, SETTINGS[name]) for _ in range(2))
    disturb(policy)
    other.load_parts(policy.parts())
    assert unchanged(other, weights(policy))
    assert set(policy.parts()) == {"policy"} | (
        {"critic", "value_head"} if name == "critic" else set()
    ) | ({"value_head"} if name == "head" else set())


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_recomputing_layers_changes_no_gradient(kind):
    def gradients(config):
        policy = make_policy(random_model(kind), config=config)
        policy.learn(True)
        scores = policy.score(ROW, temperature_T=AT)
        (scores.logprobs_T.sum() + scores.values_T.sum()).backward()
        policy.learn(False)
        parameters = [*policy.policy_parameters(), *policy.critic_parameters()]
        return [p.grad for p in parameters if p.grad is not None]

    plain = gradients(train_config("ppo"))
    again = gradients(train_config("ppo", gradient_checkpointing=True))
    assert len(plain) == len(again) > 20
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, again, strict=True))


def test_layers_are_recomputed_only_while_learning(tiny):
    policy = tiny_policy(tiny, train_config("ppo", gradient_checkpointing=True))
    states = []
    for learning in (True, False):
        policy.learn(learning)
        states.append((policy.model.training, policy.critic.training))
    assert states == [(True, True), (False, False)]


@pytest.mark.parametrize("kind", ["separate", "head"])
def test_values_begin_at_zero_and_are_float32(tiny, kind):
    config = train_config("ppo", critic=CriticConfig(kind=kind))
    policy = tiny_policy(tiny, config, dtype="bfloat16")
    values = policy.score(ROW, temperature_T=AT).values_T
    assert values is not None
    assert (values.dtype, values.abs().max().item()) == (torch.float32, 0.0)


def test_a_critic_is_a_copy_that_does_not_share_weights(tiny):
    policy = tiny_policy(tiny, train_config("ppo"))
    before = copy.deepcopy(policy.critic.state_dict())
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(policy.critic.state_dict()[name], t) for name, t in before.items())


def test_a_smaller_critic_is_the_policys_first_layers(tiny):
    critic = CriticConfig(num_layers=1)
    policy = tiny_policy(tiny, train_config("ppo", critic=critic))
    mine, layers = policy.critic.state_dict(), ".layers."
    theirs = policy.model.state_dict()
    assert {name.split(layers)[1][0] for name in mine if layers in name} == {"0"}
    assert len({name.split(layers)[1][0] for name in theirs if layers in name}) == 2
    assert all(torch.equal(theirs[name], weight) for name, weight in mine.items())
    decoder = policy.model.get_decoder()
    decoder.layers = decoder.layers[:1]
    assert torch.equal(hidden_states(policy.critic, ROW), hidden_states(policy.model, ROW))


def test_a_critic_has_no_more_layers_than_the_policy(tiny):
    with pytest.raises(ConfigError, match=r"num_layers = 3: the policy has 2"):
        tiny_policy(tiny, train_config("ppo", critic=CriticConfig(num_layers=3)))


def test_the_same_seed_makes_the_same_adapters(tiny: Path):
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(random.randrange(1000))
        made.append(
            make_policy(
                load_model(tiny, device="cpu", dtype="float32"),
                config=train_config(lora=LORA, seed=seed),
            )
        )
    assert unchanged(made[0], weights(made[1]))
    assert not unchanged(made[0], weights(made[2]))
