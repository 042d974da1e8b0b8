"""Codecs of spaces, against Gymnasium's own flattening and against hand-made rows."""

from __future__ import annotations

import json

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces.utils import flatten
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from hypothesis import example, given
from hypothesis import strategies as st

from plaudit.envs.spaces import Unfit, action_codec, obs_codec
from plaudit.nets.one_hot import Features
from plaudit.records.errors import UserError
from plaudit.records.spaces import ActionSpec

sizes = st.integers(1, 4)
shapes = st.lists(sizes, max_size=3).map(tuple)
boxes = st.builds(
    lambda shape, dtype: spaces.Box(-5, 5, shape, dtype),
    shapes,
    st.sampled_from([np.float32, np.float64, np.int32, np.int64]),
)
discretes = st.builds(lambda n, start: spaces.Discrete(n, start=start), sizes, st.integers(-3, 3))


@st.composite
def multi_discretes(draw):
    shape = draw(st.sampled_from([(1,), (3,), (2, 2)]))
    size = int(np.prod(shape))
    nvec = np.reshape(draw(st.lists(sizes, min_size=size, max_size=size)), shape)
    start = np.reshape(draw(st.lists(st.integers(-2, 2), min_size=size, max_size=size)), shape)
    return spaces.MultiDiscrete(nvec, start=start)


binaries = st.builds(spaces.MultiBinary, st.one_of(sizes, st.tuples(sizes, sizes)))
leaves = st.one_of(boxes, discretes, multi_discretes(), binaries)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
    ),
    max_leaves=5,
)


@given(space=trees, seed=st.integers(0, 1000))
@example(space=spaces.MultiDiscrete([1, 1, 1]), seed=0)
def test_a_row_is_gymnasiums_flattening(space, seed):
    space.seed(seed)
    obs = space.sample()
    codec = obs_codec(space)
    expected = np.asarray(flatten(space, obs), np.float32)
    if codec.spec.pieces[0].name == "nothing":  # choices among one, however many: one number 1
        assert (expected == 1.0).all()
        expected = expected[:1]
    found = codec.encode(obs)
    assert found.dtype == np.float32
    assert codec.spec.shape == found.shape
    assert np.array_equal(Features(codec.spec).one_hot(found), expected)
    assert codec.spec.num_features == len(expected)
    assert sum(piece.size for piece in codec.spec.pieces) == len(found)
    assert codec.spec.is_vector


@given(space=trees, seed=st.integers(0, 1000))
def test_a_batch_is_its_rows(space, seed):
    space.seed(seed)
    samples = [space.sample() for _ in range(3)]
    batch = concatenate(space, samples, create_empty_array(space, 3))
    codec = obs_codec(space)
    assert batch_space(space, 3).contains(batch)
    found = codec.encode_batch(batch, 3)
    assert np.array_equal(found, [codec.encode(obs) for obs in samples])


@given(space=trees, seed=st.integers(0, 1000))
def test_a_row_is_written_whole_and_alone(space, seed):
    space.seed(seed)
    codec = obs_codec(space)
    out = np.full((3, *codec.spec.shape), 7.5, codec.spec.dtype)
    obs = space.sample()
    codec.write(obs, out, 1)
    assert np.array_equal(out[1], codec.encode(obs))
    assert (out[[0, 2]] == 7.5).all()


@pytest.mark.parametrize("shape", [(6, 5, 3), (4, 4, 4), (3, 6, 5), (1, 8, 8), (8, 8, 1)])
def test_images_have_channels_first(shape):
    space = spaces.Box(0, 255, shape, np.uint8)
    image = space.sample()
    codec = obs_codec(space)
    found = codec.encode(image)
    is_last = shape in [(6, 5, 3), (4, 4, 4), (8, 8, 1)]
    channels = shape[2] if is_last else shape[0]
    assert found.dtype == np.uint8
    assert codec.spec.pieces[0].kind == "image"
    assert codec.spec.shape == found.shape
    for c in range(channels):
        assert np.array_equal(found[c], image[:, :, c] if is_last else image[c])


def test_a_mixture_says_where_its_image_is():
    space = spaces.Dict(
        {
            "arm": spaces.Tuple([spaces.Box(-1, 1, (2,)), spaces.Discrete(3, start=5)]),
            "eye": spaces.Box(0, 255, (4, 5, 3), np.uint8),
        }
    )
    space.seed(0)
    image = space["eye"].sample()
    codec = obs_codec(space)
    row = codec.encode({"eye": image, "arm": (np.array([0.25, -1], np.float32), 6)})
    assert codec.spec.shape == (2 + 1 + 60,)
    assert [(p.name, p.kind, p.shape) for p in codec.spec.pieces] == [
        ("arm.0", "vector", (2,)),
        ("arm.1", "choice", (1,)),
        ("eye", "image", (3, 4, 5)),
    ]
    assert codec.spec.pieces[1].sizes == (3,)
    assert row[:3].tolist() == [0.25, -1, 1]
    assert np.array_equal(row[3:].reshape(3, 4, 5), np.moveaxis(image, -1, 0))


@pytest.mark.parametrize(
    ("space", "obs", "said"),
    [
        (spaces.Box(0, 1, (2,)), np.zeros((1, 2), np.float32), r"shape \(1, 2\), not \(2,\)"),
        (spaces.Box(0, 1, ()), np.zeros(1, np.float32), r"shape \(1,\), not \(\)"),
        (spaces.Box(0, 1, (2,)), [0, None], "no array of numbers"),
        (spaces.Box(0, 1, (2,)), [[0], [0, 1]], "no array of numbers"),
        (spaces.Box(0, 9, (2,), np.int64), np.array([0.5, 1]), "dtype float64, not int64"),
        (spaces.Discrete(3, start=1), 0, "the observation 0, not between 1 and 3"),
        (spaces.Discrete(3, start=1), np.int64(4), "the observation 4, not between 1 and 3"),
        (spaces.Discrete(3), 1.0, "dtype float64, not of integers"),
        (spaces.Discrete(3), [1], r"shape \(1,\), not \(\)"),
        (spaces.MultiDiscrete([2, 3]), [1, 3], r"\[1, 3\], not between \[0 0\] and \[1 2\]"),
        (spaces.MultiBinary(2), [1, 2], "not zeros and ones"),
        (spaces.Box(0, 255, (4, 4, 3), np.uint8), np.zeros((4, 4, 3)), "float64, not uint8"),
        (spaces.Box(0, 255, (4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), r"\(4, 4, 3\)"),
        (spaces.Dict(a=spaces.Discrete(2)), {"b": 1}, "without 'a'"),
        (spaces.Dict(a=spaces.Discrete(2)), {"a": 2}, "the observation 2 'a', not between"),
        (spaces.Tuple([spaces.Discrete(2)]), 1, "without '0'"),
    ],
)
def test_what_does_not_fit_is_refused(space, obs, said):
    with pytest.raises(Unfit, match=said):
        obs_codec(space).encode(obs)


def test_numbers_of_a_wider_float_are_taken_as_float32():
    codec = obs_codec(spaces.Box(-1, 1, (2,)))
    assert codec.encode(np.array([0.1, 0.2])).tolist() == np.float32([0.1, 0.2]).tolist()
    assert codec.encode([0, 1]).tolist() == [0, 1]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(5),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Dict(a=spaces.Graph(spaces.Discrete(2), None)),
    ],
)
def test_other_observation_spaces_are_named(space):
    inner = space if not isinstance(space, spaces.Dict) else space["a"]
    with pytest.raises(UserError) as caught:
        obs_codec(space)
    assert f"the observation space {inner} cannot be learned from" in str(caught.value)


# --- actions


@pytest.mark.parametrize(
    ("space", "actions", "rows"),
    [
        (spaces.Discrete(3), [0, 2], [0, 2]),
        (spaces.Discrete(3, start=-1), [0, 2], [-1, 1]),
        (spaces.MultiDiscrete([2, 3]), [[0, 2], [1, 0]], [[0, 2], [1, 0]]),
        (spaces.MultiDiscrete([2, 3], start=[5, 7]), [[0, 2], [1, 0]], [[5, 9], [6, 7]]),
        (spaces.MultiDiscrete([[2], [3]]), [[0, 2], [1, 0]], [[[0], [2]], [[1], [0]]]),
        (spaces.MultiBinary(2), [[0, 1], [1, 1]], [[0, 1], [1, 1]]),
        (spaces.Box(-1, 1, (1, 2)), [[0.5, 1], [-1, 0]], [[[0.5, 1]], [[-1, 0]]]),
        (spaces.Box(-1, 1, (), np.float64), [[0.5], [-1]], [0.5, -1]),
    ],
)
def test_actions_are_of_their_space(space, actions, rows):
    codec = action_codec(space)
    batch = np.array(actions, codec.spec.dtype)
    assert batch.shape[1:] == codec.spec.shape
    found = codec.rows(batch)
    for row, expected in zip(found, rows, strict=True):
        assert space.contains(row)
        assert np.array_equal(row, expected)
    assert np.array_equal(codec.batch(batch), rows)
    assert batch_space(space, 2).contains(codec.batch(batch))


def test_a_choice_is_a_plain_integer():
    assert [type(row) for row in action_codec(spaces.Discrete(2)).rows(np.array([0, 1]))] == [
        int,
        int,
    ]


def test_bounds_are_kept_number_by_number():
    space = spaces.Box(np.float32([-1, -2]), np.float32([3, 4]))
    spec = action_codec(space).spec
    assert (spec.kind, spec.sizes, spec.low, spec.high) == ("box", (2,), (-1, -2), (3, 4))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(1, 1, (2,)),
        spaces.Box(0, 5, (2,), np.int64),
        spaces.Text(3),
        spaces.Dict(a=spaces.Discrete(2)),
    ],
)
def test_other_action_spaces_are_named(space):
    with pytest.raises(UserError) as caught:
        action_codec(space)
    assert f"the action space {space} " in str(caught.value)


def test_bounds_may_be_missing_on_any_side():
    space = spaces.Box(np.float32([-np.inf, 0, -np.inf]), np.float32([1, np.inf, np.inf]))
    spec = action_codec(space).spec
    assert (spec.low, spec.high) == ((-np.inf, 0, -np.inf), (1, np.inf, np.inf))
    assert ActionSpec.from_facts(json.loads(json.dumps(spec.facts(), allow_nan=False))) == spec


@pytest.mark.parametrize(
    ("space", "obs"),
    [
        (spaces.Box(0, 1, (0,)), np.zeros(0, np.float32)),
        (spaces.Box(0, 255, (0, 4, 3), np.uint8), np.zeros((0, 4, 3), np.uint8)),
        (spaces.Dict({}), {}),
        (spaces.Tuple([]), ()),
        (spaces.Dict(a=spaces.Box(0, 1, (0,)), b=spaces.Tuple([])), {"a": np.zeros(0), "b": ()}),
    ],
)
def test_what_shows_nothing_is_a_constant(space, obs):
    codec = obs_codec(space)
    assert codec.encode(obs).tolist() == [1.0]
    assert codec.spec.shape == (1,)
    batch = concatenate(space, [obs, obs], create_empty_array(space, 2))
    assert codec.encode_batch(batch, 2).tolist() == [[1.0], [1.0]]


def test_what_shows_nothing_is_checked_all_the_same():
    with pytest.raises(Unfit, match=r"shape \(1,\), not \(0,\)"):
        obs_codec(spaces.Box(0, 1, (0,))).encode(np.zeros(1, np.float32))


def test_a_choice_is_one_number_however_many_there_are():
    codec = obs_codec(spaces.MultiDiscrete([5000, 100_000], start=[3, 0]))
    assert codec.encode(np.array([5002, 99_999])).tolist() == [4999, 99_999]
    assert codec.spec.num_features == 105_000
    with pytest.raises(UserError, match="more than 16777216 values"):
        obs_codec(spaces.Discrete(2**24 + 1))


def test_all_of_gymnasiums_own_worlds_have_codecs():
    for name in ("Blackjack-v1", "Taxi-v4", "CliffWalking-v1", "Pendulum-v1", "Acrobot-v1"):
        env = gymnasium.make(name, disable_env_checker=True)
        obs, _ = env.reset(seed=0)
        expected = np.asarray(flatten(env.observation_space, obs), np.float32)
        codec = obs_codec(env.observation_space)
        assert np.array_equal(Features(codec.spec).one_hot(codec.encode(obs)), expected)
        action_codec(env.action_space)
        env.close()
