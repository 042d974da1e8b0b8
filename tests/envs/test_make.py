"""Worlds by name, their options, and the sentences where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from plaudit.envs.make import env_options, make_env, make_worlds, world_file
from plaudit.envs.native import Native
from plaudit.envs.processes import Processes
from plaudit.envs.settings import WorldSettings
from plaudit.envs.sync import Sync
from plaudit.records.errors import UserError

HERE = Path(__file__).parent
FILE = str(HERE / "strange_envs.py")


def first(settings, **more):
    worlds = make_worlds(settings, seed=0, **more)
    obs = worlds.reset()
    worlds.close()
    return obs


def test_options_are_read_as_yaml_reads_scalars():
    texts = {"a": "8x8", "b": "-8.0", "c": "true", "d": "3", "e": "1e-3", "f": "null"}
    texts |= {
        "g": "False",
        "h": ".5",
        "i": "1.2.3",
        "j": "yes",
        "k": "0x10",
        "l": "a b",
        "m": "1_0",
    }
    found = env_options(WorldSettings(env_options=texts))
    assert list(found.values()) == [
        *("8x8", -8.0, True, 3, 0.001, None, False, 0.5, "1.2.3", "yes", "0x10", "a b", "1_0")
    ]
    assert type(found["d"]) is int


def test_options_reach_the_environment():
    small = make_worlds(WorldSettings(env="FrozenLake-v1"), seed=0)
    assert small.obs_spec.num_features == 16
    large = WorldSettings(env="FrozenLake-v1", env_options={"map_name": "8x8"}, num_envs=2)
    assert make_worlds(large, seed=0).obs_spec.num_features == 64
    assert first(large).shape == (2, 1)
    assert first(large, num_envs=5).shape == (5, 1)


def test_the_recorded_time_limit_is_that_of_the_options():
    env = make_env(WorldSettings(env="Pendulum-v1", max_episode_steps=2))
    env.reset(seed=0)
    assert [env.step(np.zeros(1, np.float32))[3] for _ in range(2)] == [False, True]
    env.close()
    env = make_env(WorldSettings(env="Pendulum-v1"))
    env.reset(seed=0)
    assert sum(1 for _ in iter(lambda: env.step(np.zeros(1, np.float32))[3], True)) == 199
    env.close()


@pytest.mark.parametrize(
    ("vector", "kind"),
    [("auto", Sync), ("sync", Sync), ("processes", Processes), ("native", Native)],
)
def test_vector_says_how_copies_are_stepped(vector, kind):
    worlds = make_worlds(WorldSettings(vector=vector, num_envs=2), seed=0)
    assert isinstance(worlds, kind)
    assert worlds.reset().shape == (2, 4)
    worlds.close()


def test_auto_takes_the_vector_form_where_there_is_nothing_else():
    worlds = make_worlds(WorldSettings(env=f"{FILE}:OnlyNative-v0", num_envs=2), seed=0)
    assert isinstance(worlds, Native)
    assert worlds.reset().tolist() == [[1, 0], [1, 0]]
    worlds.close()


def test_an_environment_of_a_module_that_registers_it(tmp_path):
    (tmp_path / "my_worlds.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "gymnasium.register(id='Mine-v0', entry_point=CartPoleEnv, max_episode_steps=3)\n"
    )
    code = (
        "from plaudit.envs.make import make_worlds\n"
        "from plaudit.envs.settings import WorldSettings\n"
        "if __name__ == '__main__':\n"
        "    for vector in ('sync', 'processes'):\n"
        "        worlds = make_worlds(WorldSettings(env='my_worlds:Mine-v0', vector=vector), seed=0)\n"
        "        print(worlds.reset().shape)\n"
        "        worlds.close()\n"
    )
    (tmp_path / "main.py").write_text(code)
    run = [sys.executable, "main.py"]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "(1, 4)\n(1, 4)\n"


def test_a_module_of_the_folder_is_found_by_the_installed_command_too(tmp_path):
    (tmp_path / "my_worlds.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "gymnasium.register(id='Mine-v0', entry_point=CartPoleEnv)\n"
    )
    code = (
        "from plaudit.envs.make import make_env\n"
        "from plaudit.envs.settings import WorldSettings\n"
        "print(make_env(WorldSettings(env='my_worlds:Mine-v0')).spec.id)\n"
    )
    run = [sys.executable, "-P", "-c", code]  # -P: without the folder on the path
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "Mine-v0\n"


def test_a_script_without_its_main_guard_is_told(tmp_path):
    (tmp_path / "main.py").write_text(
        "from plaudit.envs.make import make_worlds\n"
        "from plaudit.envs.settings import WorldSettings\n"
        "make_worlds(WorldSettings(vector='processes'), seed=0)\n"
    )
    run = [sys.executable, str(tmp_path / "main.py")]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "its process ended with exit code 1 before its environment was made" in done.stderr
    assert "if __name__ == '__main__':" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"env": "CartPoll-v1"}, r"no environment 'CartPoll-v1' \(did you mean 'CartPole-v1'\?\)$"),
        ({"env": "CartPole-v7"}, r"no environment 'CartPole-v7' \(did you mean 'CartPole-v[01]'"),
        ({"env": "Zzzzzzzzz"}, r"no environment 'Zzzzzzzzz'; gymnasium.register\(id=..., entry_po"),
        ({"env": "no_module:A-v0"}, "environment module 'no_module' could not be imported"),
        ({"env": f"{FILE}:Countin-v0"}, r"strange_envs.py \(did you mean 'Counting-v0'\?\)$"),
        (
            {"env": f"{HERE}/strange_env.py:A-v0"},
            r"environment file .* does not exist \(did you mean 'strange_envs.py'\?\)",
        ),
        ({"env": f"{FILE}:NeedsBox2D-v0"}, r"needs box2d.* pip install 'plaudit\[gym\]'$"),
        (
            {"env": "FrozenLake-v1", "env_options": {"map": "8x8"}},
            r"FrozenLake-v1 has no option 'map' \(env_options\)",
        ),
        (
            {"env": "FrozenLake-v1", "env_options": {"map_name": "9x9"}},
            "FrozenLake-v1 could not be made: KeyError: '9x9'",
        ),
        ({"env": "Pendulum-v1", "vector": "native"}, "Pendulum-v1 has no vector form of its own"),
    ],
)
def test_sentences_where_there_is_no_such_world(settings, said):
    with pytest.raises(UserError, match=said) as caught:
        make_worlds(WorldSettings(**settings), seed=0)
    assert "\n" not in str(caught.value)


def test_a_file_with_an_error_is_told(tmp_path):
    (tmp_path / "broken.py").write_text("import gymnasium\n1 / 0\n")
    with pytest.raises(UserError, match=r"broken.py could not be read: ZeroDivisionError"):
        make_worlds(WorldSettings(env=f"{tmp_path}/broken.py:A-v0"), seed=0)


@pytest.mark.parametrize("vector", ["sync", "processes"])
def test_files_beside_an_environments_file_are_found_when_they_are_needed(tmp_path, vector):
    """Gymnasium imports an entry point by name when the environment is made, and not before."""
    (tmp_path / "worlds.py").write_text(
        "import gymnasium\nimport names\n"
        "gymnasium.register(id=names.ID, entry_point='beside_it:World')\n"
        "gymnasium.register(id='In' + names.ID, entry_point=f'{__name__}:World')\n"
        "def World(**options):\n    from beside_it import World\n    return World(**options)\n"
    )
    env_id = f"Beside{vector.title()}-v0"
    (tmp_path / "names.py").write_text(f"ID = {env_id!r}\n")
    (tmp_path / "beside_it.py").write_text(
        "from gymnasium.envs.classic_control import CartPoleEnv\nclass World(CartPoleEnv): pass\n"
    )
    path = list(sys.path)
    for name in (env_id, f"In{env_id}"):
        where = f"{tmp_path}/worlds.py:{name}"
        worlds = make_worlds(WorldSettings(env=where, vector=vector, num_envs=1), seed=0)
        assert worlds.obs_spec.shape == (4,)
        worlds.close()
    assert sys.path == path
    assert "beside_it" not in sys.modules


def test_atari_games_ask_for_their_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(UserError, match=r"ALE/Pong-v5 needs ale_py.* 'plaudit\[atari\]'$"):
        make_worlds(WorldSettings(env="ALE/Pong-v5"), seed=0)


def test_what_cannot_be_made_in_a_process_is_told():
    settings = WorldSettings(env="FrozenLake-v1", env_options={"map": "1"}, vector="processes")
    with pytest.raises(UserError, match="FrozenLake-v1 has no option 'map'"):
        make_worlds(settings, seed=0)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("CartPole-v1", None),
        ("mine.py:Mine-v0", "mine.py"),
        ("mine:Mine-v0", "mine.py"),
        ("pack.inner:Mine-v0", "pack/inner.py"),
        ("pack:Mine-v0", "pack/__init__.py"),
        ("gymnasium:CartPole-v1", None),
    ],
)
def test_the_file_of_an_environment_of_ones_own_is_known(tmp_path, monkeypatch, name, file):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pack").mkdir()
    for made in ("mine.py", "pack/inner.py", "pack/__init__.py"):
        (tmp_path / made).write_text("")
    found = world_file(name)
    assert (found is None) == (file is None)
    assert found is None or found.resolve() == tmp_path / str(file)
