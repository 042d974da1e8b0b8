"""Slow learners of control in plain Python, from the books' boxes: no shared code, no tricks.

They are fed the same random words as the compiled ones, in the order that
`plaudit.mdp.learning.control` states, so that every action and every next state is the same.
Windows are whole episodes, traces are dense, queues are searched from end to end.
"""

from __future__ import annotations

import math

import numpy as np

MASK = (1 << 64) - 1


class Words:
    """xoshiro256++ seeded by splitmix64, in Python's integers."""

    def __init__(self, seed):
        self.s, z = [], seed & MASK
        for _ in range(4):
            z = (z + 0x9E3779B97F4A7C15) & MASK
            y = z
            y = ((y ^ (y >> 30)) * 0xBF58476D1CE4E5B9) & MASK
            y = ((y ^ (y >> 27)) * 0x94D049BB133111EB) & MASK
            self.s.append(y ^ (y >> 31))

    def uniform(self):
        s = self.s
        word = (self._turned((s[0] + s[3]) & MASK, 23) + s[0]) & MASK
        t = (s[1] << 17) & MASK
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = self._turned(s[3], 45)
        return (word >> 11) / 2**53

    @staticmethod
    def _turned(x, k):
        return ((x << k) | (x >> (64 - k))) & MASK

    def below(self, count):
        return int(self.uniform() * count)

    def normal(self):
        radius = math.sqrt(-2 * math.log(1 - self.uniform()))
        return radius * math.cos(2 * math.pi * self.uniform())


class Slow:
    """A world [A, S, S], its reward [A, S, S], and a learner that keeps all it has seen."""

    def __init__(self, transition, reward, gamma, exists, terminal, initial, std=None):
        self.p, self.r, self.gamma, self.std = transition, reward, gamma, std
        self.exists, self.terminal, self.initial = exists, terminal, initial
        self.num_actions, self.num_states, _ = transition.shape

    def run(self, learner, *, num_steps, alpha, epsilon, seed, limit=math.inf, **own):
        """q [S, A] after num_steps of the learner, with alpha and epsilon constant."""
        self.alpha, self.epsilon, self.own = alpha, epsilon, own
        self.words = Words(seed)
        self.q = np.where(self.exists, 0.0, -math.inf)
        self.t, self.pending, self.memory = 0, None, {}
        self.episode = []  # (s, a, r) of this episode
        state, length = self.first(), 0
        for _ in range(num_steps):
            action = self.choose(state) if self.pending is None else self.pending
            self.pending = None
            after, reward = self.step(state, action)
            length += 1
            self.t += 1
            self.episode.append((state, action, reward))
            over = bool(self.terminal[after])
            cut = not over and length >= limit
            learner(self, state, action, reward, after, over, cut)
            if over or cut:
                after, length, self.pending, self.episode = self.first(), 0, None, []
            state = after
        return self.q

    def drawn(self, probabilities):
        u, total = self.words.uniform(), 0.0
        for i, p in enumerate(probabilities):
            total += p
            if p > 0 and u < total:
                return i
        return max(i for i, p in enumerate(probabilities) if p > 0)

    def first(self):
        return self.drawn(self.initial)

    def step(self, s, a):
        after = self.drawn(self.p[a, s])
        noise = 0.0
        if self.std is not None and self.std[s, a] > 0:
            noise = self.std[s, a] * self.words.normal()
        return after, self.r[a, s, after] + noise

    def choose(self, s):
        if self.words.uniform() < self.epsilon:
            while True:
                a = self.words.below(self.num_actions)
                if self.exists[s, a]:
                    return a
        best, choice, ties = -math.inf, 0, 0
        for a in range(self.num_actions):
            if self.q[s, a] > best:
                best, choice, ties = self.q[s, a], a, 1
            elif self.q[s, a] == best and best > -math.inf:
                ties += 1
                if self.words.below(ties) == 0:
                    choice = a
        return choice

    def pi(self, s, epsilon):
        """Probability of each action by the definition of ε-greedy."""
        there = [a for a in range(self.num_actions) if self.exists[s, a]]
        best = max(self.q[s, a] for a in there)
        top = [a for a in there if self.q[s, a] == best]
        return {a: epsilon / len(there) + (a in top) * (1 - epsilon) / len(top) for a in there}

    def mean_q(self, s, epsilon):
        return sum(p * self.q[s, a] for a, p in self.pi(s, epsilon).items())

    def move(self, s, a, target):
        self.q[s, a] += self.alpha * (target - self.q[s, a])


def q_learning(w, s, a, r, after, over, cut):
    target = r if over else r + w.gamma * max(w.q[after])
    w.q[s, a] = w.q[s, a] + w.alpha * (target - w.q[s, a])


def double_q_learning(w, s, a, r, after, over, cut):
    tables = w.memory.setdefault("twins", [w.q.copy(), w.q.copy()])
    one, two = tables if w.words.uniform() < 0.5 else tables[::-1]
    target = r if over else r + w.gamma * two[after, int(np.argmax(one[after]))]
    one[s, a] += w.alpha * (target - one[s, a])
    w.q[s, a] = (tables[0][s, a] + tables[1][s, a]) / 2


def sarsa(w, s, a, r, after, over, cut):
    target = r
    if not over:
        w.pending = w.choose(after)
        target += w.gamma * w.q[after, w.pending]
    w.move(s, a, target)


def expected_sarsa(w, s, a, r, after, over, cut):
    w.move(s, a, r if over else r + w.gamma * w.mean_q(after, w.epsilon))


def sarsa_lambda(w, s, a, r, after, over, cut, replacing=False):
    e = w.memory.setdefault("e", np.zeros(w.q.shape))
    target = r
    if not over:
        w.pending = w.choose(after)
        target += w.gamma * w.q[after, w.pending]
    e[s, a] = 1 if replacing else e[s, a] + 1
    _spread(w, e, target - w.q[s, a])
    e *= 0 if over or cut else w.gamma * w.own["lam"]


def sarsa_lambda_replacing(w, s, a, r, after, over, cut):
    sarsa_lambda(w, s, a, r, after, over, cut, replacing=True)


def q_lambda(w, s, a, r, after, over, cut):
    e = w.memory.setdefault("e", np.zeros(w.q.shape))
    delta = (r if over else r + w.gamma * max(w.q[after])) - w.q[s, a]
    greedy = False
    if not over and not cut:
        w.pending = w.choose(after)
        greedy = w.q[after, w.pending] == max(w.q[after])
    e[s, a] += 1
    _spread(w, e, delta)
    e *= w.gamma * w.own["lam"] if greedy else 0


def _spread(w, e, delta):
    w.q[w.exists] += (w.alpha * delta * e)[w.exists]


def _due(w, over, cut):
    """The times τ of this episode that are learned now."""
    now = len(w.episode) - 1
    first = now - w.own["n"] + 1
    return range(max(first, 0), now + 1) if over or cut else range(first, first + (first >= 0))


def n_step_sarsa(w, s, a, r, after, over, cut):
    w.pending = None if over else w.choose(after)
    for tau in _due(w, over, cut):
        rewards = [step[2] for step in w.episode[tau:]]
        g = sum(w.gamma**i * x for i, x in enumerate(rewards))
        if not over:
            g += w.gamma ** len(rewards) * w.q[after, w.pending]
        w.move(*w.episode[tau][:2], g)


def n_step_tree_backup(w, s, a, r, after, over, cut):
    epsilon = w.own["target_epsilon"]

    def g(t):
        reward = w.episode[t][2]
        if t + 1 == len(w.episode):
            return reward if over else reward + w.gamma * w.mean_q(after, epsilon)
        s1, a1, _ = w.episode[t + 1]
        pi = w.pi(s1, epsilon)
        rest = sum(p * w.q[s1, b] for b, p in pi.items() if b != a1)
        return reward + w.gamma * rest + w.gamma * pi[a1] * g(t + 1)

    for tau in _due(w, over, cut):
        w.move(*w.episode[tau][:2], g(tau))


def n_step_q_sigma(w, s, a, r, after, over, cut):
    """The paper's sum of TD errors, on policy (ρ = 1)."""
    w.pending = None if over else w.choose(after)
    sigma = w.own["sigma"]
    for tau in _due(w, over, cut):
        g, weight = w.q[w.episode[tau][:2]], 1.0
        steps = [*w.episode, (after, w.pending, None)]
        for k in range(tau, len(w.episode)):
            s0, a0, reward = steps[k]
            s1, a1, _ = steps[k + 1]
            delta = reward - w.q[s0, a0]
            if not (over and k + 1 == len(w.episode)):
                mixed = sigma * w.q[s1, a1] + (1 - sigma) * w.mean_q(s1, w.epsilon)
                delta += w.gamma * mixed
                factor = w.gamma * ((1 - sigma) * w.pi(s1, w.epsilon)[a1] + sigma)
            g += weight * delta
            weight *= factor if k + 1 < len(w.episode) else 0
        w.move(*w.episode[tau][:2], g)


def dyna_q(w, s, a, r, after, over, cut):
    q_learning(w, s, a, r, after, over, cut)
    model, met = w.memory.setdefault("model", {}), w.memory.setdefault("met", [])
    if s not in met:
        met.append(s)
    model[s, a] = (r, after, over)
    for _ in range(w.own["num_planning"]):
        s1 = met[w.words.below(len(met))]
        tried = [b for b in range(w.num_actions) if (s1, b) in model]
        a1 = tried[w.words.below(len(tried))]
        q_learning(w, s1, a1, *model[s1, a1], False)


def dyna_q_plus(w, s, a, r, after, over, cut):
    q_learning(w, s, a, r, after, over, cut)
    model, met = w.memory.setdefault("model", {}), w.memory.setdefault("met", [])
    if s not in met:
        met.append(s)
    model[s, a] = (r, after, over, w.t)
    for _ in range(w.own["num_planning"]):
        s1 = met[w.words.below(len(met))]
        a1 = w.words.below(w.num_actions)
        while not w.exists[s1, a1]:
            a1 = w.words.below(w.num_actions)
        reward, next_state, ends, last = model.get((s1, a1), (0.0, s1, False, 0))
        bonus = w.own["kappa"] * math.sqrt(w.t - last)
        q_learning(w, s1, a1, reward + bonus, next_state, ends, False)


def prioritized_sweeping(w, s, a, r, after, over, cut):
    model, queue = w.memory.setdefault("model", {}), w.memory.setdefault("queue", {})

    def error(pair):
        reward, next_state, ends = model[pair]
        return (reward if ends else reward + w.gamma * max(w.q[next_state])) - w.q[pair]

    def enter(pair):
        if abs(error(pair)) > w.own["theta"]:
            queue[pair] = abs(error(pair))

    model[s, a] = (r, after, over)
    enter((s, a))
    for _ in range(w.own["num_planning"]):
        if not queue:
            break
        pair = max(queue, key=queue.get)
        del queue[pair]
        w.q[pair] += w.alpha * error(pair)
        for other, (_, leads_to, ends) in model.items():
            if leads_to == pair[0] and not ends:
                enter(other)


LEARNERS = {
    function.__name__: function
    for function in (
        q_learning,
        double_q_learning,
        sarsa,
        expected_sarsa,
        sarsa_lambda,
        sarsa_lambda_replacing,
        q_lambda,
        n_step_sarsa,
        n_step_tree_backup,
        n_step_q_sigma,
        dyna_q,
        dyna_q_plus,
        prioritized_sweeping,
    )
}
