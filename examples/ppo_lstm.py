"""PPO with an LSTM under a policy, in one file (after CleanRL's ppo_atari_lstm).

The task: a cue is shown at the first step of an episode, and must be told at its last one. Each
row of the batch is an environment; episodes end at different steps. The masks of a rollout are
drawn again when the policy is updated, so that the ratio of new to old probabilities is 1 before
the first update.

Run it: python examples/ppo_lstm.py
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from dropout_policies_torch import LSTM
from torch import Tensor, nn

import dropout_policies as dp

CUES = 3
"""The number of cues; an observation is one of them, or a blank."""


@dataclass(frozen=True)
class Config:
    """What is trained.

    Args:
        environments: B, the number of environments.
        steps: T, the steps of a rollout.
        updates: the number of rollouts.
        epochs: how often each rollout is used.
        policy: the dropout policy.
        rate: its rate.
    """

    environments: int = 16
    steps: int = 24
    updates: int = 60
    epochs: int = 3
    policy: str = "variational"
    rate: float = 0.1


class Cues:
    """B environments. Reward is 1 for telling the cue at the last step of an episode.

    Args:
        count: B.
        generator: draws cues and lengths.
    """

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count, self.generator = count, generator
        self.cue = torch.zeros(count, dtype=torch.long)
        self.left = torch.zeros(count, dtype=torch.long)

    def begin(self, rows: Tensor) -> Tensor:
        """Begin a new episode in some rows, `[B]`, and observe all, `[B]`."""
        cues = torch.randint(CUES, (self.count,), generator=self.generator)
        lengths = torch.randint(2, 7, (self.count,), generator=self.generator)
        self.cue = torch.where(rows, cues, self.cue)
        self.left = torch.where(rows, lengths, self.left)
        return torch.where(rows, self.cue, CUES)

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Act; returns observations, rewards, and which episodes ended, `[B]` each."""
        self.left = self.left - 1
        done = self.left <= 0
        rewards = (done & (actions == self.cue)).float()
        return self.begin(done), rewards, done


class Agent(nn.Module):
    """Observations `[T, B]` to the logits of actions and to values, by an LSTM.

    Args:
        config: what is trained.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CUES + 1, 16)
        self.lstm = LSTM(16, 32, policy=config.policy, rate=config.rate, seed=1)
        self.actor, self.critic = nn.Linear(32, CUES), nn.Linear(32, 1)

    def forward(self, observations: Tensor, done: Tensor) -> tuple[Tensor, Tensor]:
        """Whole rollouts, step by step; `done[t]` says in which rows step t begins an episode."""
        outputs, state = [], None
        with dp.sequence(self) as scope:
            for x, ended in zip(self.embedding(observations), done, strict=True):
                scope.reset(ended)
                y, state = self.step(x, ended, state)
                outputs.append(y)
        y = torch.stack(outputs)
        return self.actor(y), self.critic(y)[..., 0]

    def step(
        self, x: Tensor, ended: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One step, from a state that is zero where an episode begins."""
        if state is not None:
            state = (state[0] * ~ended[:, None], state[1] * ~ended[:, None])
        y, state = self.lstm(x[None], state)
        return y[0], state


class Rollout(NamedTuple):
    """What a rollout was, `[T, B]` each; and the number of the LSTM's call in it."""

    observations: Tensor
    done: Tensor
    actions: Tensor
    log_probabilities: Tensor
    returns: Tensor
    advantages: Tensor
    calls: int


@torch.no_grad()
def play(agent: Agent, environments: Cues, config: Config) -> tuple[Rollout, float]:
    """Play a rollout. Returns it, and the mean reward of the episodes that ended."""
    calls = agent.lstm.calls
    done = torch.ones(config.environments, dtype=torch.bool)
    x, state, rows = environments.begin(done), None, []
    with dp.sequence(agent) as scope:
        for _ in range(config.steps):
            scope.reset(done)
            y, state = agent.step(agent.embedding(x), done, state)
            choice = torch.distributions.Categorical(logits=agent.actor(y))
            action = choice.sample()
            new_x, reward, new_done = environments.step(action)
            value = agent.critic(y)[:, 0]
            rows.append((x, done, action, choice.log_prob(action), reward, value, new_done))
            x, done = new_x, new_done
    observed, began, actions, log_probabilities, rewards, values, ended = map(
        torch.stack, zip(*rows, strict=True)
    )
    returns, later = torch.zeros_like(rewards), values[-1]
    for t in reversed(range(config.steps)):
        later = rewards[t] + 0.9 * later * ~ended[t]
        returns[t] = later
    share = float(rewards.sum() / ended.sum().clamp_min(1))
    rollout = Rollout(observed, began, actions, log_probabilities, returns, returns - values, calls)
    return rollout, share


def update(agent: Agent, optimizer: torch.optim.Optimizer, rollout: Rollout, epochs: int) -> float:
    """Use a rollout. Returns how far the ratio was from 1 before the first step."""
    farthest = 0.0
    for epoch in range(epochs):
        agent.lstm.calls = rollout.calls  # the masks of the rollout, again
        logits, values = agent(rollout.observations, rollout.done)
        choice = torch.distributions.Categorical(logits=logits)
        ratio = (choice.log_prob(rollout.actions) - rollout.log_probabilities).exp()
        if epoch == 0:
            farthest = (ratio - 1).abs().max().item()
        advantages = rollout.advantages / rollout.advantages.std()
        clipped = ratio.clamp(0.8, 1.2)
        loss = -torch.minimum(ratio * advantages, clipped * advantages).mean()
        loss = loss + 0.5 * (values - rollout.returns).square().mean()
        loss = loss - 0.01 * choice.entropy().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return farthest


def train(config: Config) -> tuple[list[float], float]:
    """Train an agent. Returns the mean reward of each rollout, and the farthest ratio from 1."""
    torch.manual_seed(0)
    agent = Agent(config)
    optimizer = torch.optim.Adam(agent.parameters(), lr=5e-3)
    environments = Cues(config.environments, torch.Generator().manual_seed(0))
    rewards, farthest = [], 0.0
    for _ in range(config.updates):
        rollout, reward = play(agent, environments, config)
        rewards.append(reward)
        farthest = max(farthest, update(agent, optimizer, rollout, config.epochs))
    return rewards, farthest


if __name__ == "__main__":
    learned, distance = train(Config())
    print(f"mean reward: {learned[0]:.2f} at first, {learned[-1]:.2f} at last")
    print(f"farthest ratio from 1 in a first epoch: {distance:.1e}")
