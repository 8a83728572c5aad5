"""Tunes: draws of notes, streaming, MIDI files and pictures."""

import errno
import os

import mido
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_seq.generation import (
    draw_piano_roll,
    generate_frames,
    read_midi,
    sample_notes,
    write_midi,
)
from keras_seq.layers import TCN, RTransformer
from keras_seq.models import FrameModel, SequenceClassifier


def small(core=None, notes=88):
    core = core or RTransformer(units=8, levels=1, window=3, heads=2, span=12, seed=1)
    model = FrameModel(core, notes=notes, seed=1)
    model.build((None, None, notes))
    return model


@pytest.fixture
def roll():
    return (np.random.default_rng(0).random((30, 88)) < 0.05).astype("uint8")


def test_notes_are_drawn_with_their_chances():
    logits = np.tile([[0.0, 2.0, -1.0]], (4000, 1))
    for temperature in (1.0, 0.5):
        drawn = sample_notes(logits, temperature=temperature, seed=3).numpy()
        assert set(np.unique(drawn)) == {0, 1}
        chance = 1 / (1 + np.exp(-logits[0] / temperature))
        np.testing.assert_allclose(drawn.mean(axis=0), chance, atol=0.03)
        assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.05
    np.testing.assert_array_equal(sample_notes(logits, temperature=0.0)[0], [0, 1, 0])
    again = [sample_notes(logits, seed=seed).numpy() for seed in (1, 1, 2)]
    np.testing.assert_array_equal(again[0], again[1])
    assert (again[0] != again[2]).any()


def test_options_at_their_extremes():
    logits = np.tile(np.array([[0.0, 2.0, -1.0, 1e30, -np.inf]], "float32"), (4000, 1))
    for temperature in (1e300, 3e38, tf.constant(1e300, tf.float64)):
        chance = sample_notes(logits, temperature).numpy().mean(axis=0)
        np.testing.assert_allclose(chance[:3], 0.5, atol=0.04)
        assert chance[4] == 0
    for temperature in (1e-45, 1e-38, 1e-300):
        np.testing.assert_array_equal(sample_notes(logits, temperature)[0, 1:], [1, 0, 1, 0])
        assert 0.45 < sample_notes(logits, temperature).numpy()[:, 0].mean() < 0.55
    assert sample_notes(logits[:1], 0.0, top_notes=2**40).numpy().sum() == 2
    with pytest.raises(tf.errors.InvalidArgumentError, match="`top_notes` must be"):
        sample_notes(logits, top_notes=tf.constant(-1))
    for bad in (np.nan, -np.nan):
        with pytest.raises(tf.errors.InvalidArgumentError, match="`logits` must not be NaN"):
            sample_notes([[0.0, bad]])


def test_no_more_than_the_likeliest_notes():
    logits = np.array([[8.0, 9.0, 9.0, -9.0], [8.0, 7.0, 9.0, 9.5]])
    np.testing.assert_array_equal(
        sample_notes(logits, temperature=0.0, top_notes=2), [[0, 1, 1, 0], [0, 0, 1, 1]]
    )
    np.testing.assert_array_equal(sample_notes(logits[:1], 0.0, top_notes=1), [[0, 1, 0, 0]])
    assert sample_notes(logits, 0.0, top_notes=9).numpy().sum() == 7


@pytest.mark.parametrize("kind", ["r_transformer", "tcn"])
def test_streaming_equals_the_full_pass(kind, roll):
    """Likeliest notes, frame by frame, are those of the whole tune read again each time."""
    model = small(TCN(8, 2, 3) if kind == "tcn" else None)
    model.dense.bias.assign(np.linspace(-1, 1, 88))
    prime = roll[:7]
    made = np.array(list(generate_frames(model, prime, length=4, temperature=0.0)))
    whole = prime.astype("float32")
    for _ in range(4):
        following = ops.convert_to_numpy(model(whole[None]))[0, -1] > 0
        whole = np.concatenate([whole, following[None].astype("float32")])
    np.testing.assert_array_equal(made, whole[7:])
    assert made.dtype == np.uint8 and 0 < made.mean() < 1


def test_a_seed_is_a_tune(roll):
    model = small()
    tunes = [np.array(list(generate_frames(model, roll, 6, seed=seed))) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(tunes[0], tunes[1])
    assert (tunes[0] != tunes[2]).any()
    assert (np.array(list(generate_frames(model, None, 5, top_notes=3))).sum(axis=1) <= 3).all()
    assert list(generate_frames(model, length=0)) == []


def test_what_does_not_fit_is_refused(roll):
    model = small()
    with pytest.raises(ValueError, match=r"`prime` must be of shape \(t, 88\)"):
        generate_frames(model, roll[:, :5])
    with pytest.raises(ValueError, match="`top_notes` must be an integer"):
        generate_frames(model, top_notes=-1)
    with pytest.raises(ValueError, match="`temperature`"):
        generate_frames(model, temperature=-1.0)
    with pytest.raises(ValueError, match="`length` must be 0 or more"):
        generate_frames(model, length=-1)
    with pytest.raises(TypeError, match="FrameModel"):
        generate_frames(SequenceClassifier(TCN(4, 1), 3))


@pytest.mark.parametrize("frame_beats", [0.5, 0.25, 1.0])
def test_midi_round_trip(frame_beats, roll, tmp_path):
    roll[-3:] = 0  # silence at the end counts
    roll[:2] = 0
    path = write_midi(tmp_path / "in" / "tune.mid", roll, frame_beats=frame_beats)
    np.testing.assert_array_equal(read_midi(path, frame_beats=frame_beats), roll)


def test_midi_file_sounds_as_written(tmp_path):
    roll = np.zeros((8, 88), "uint8")
    roll[2:6, 39] = 1  # C4 (pitch 60), held for four frames of 0.3 seconds
    file = mido.MidiFile(str(write_midi(tmp_path / "tune.mid", roll)))
    assert file.length == pytest.approx(8 * 0.3)
    now, events = 0.0, []
    for message in file:
        now += message.time
        if message.type in ("note_on", "note_off"):
            events.append((message.type, message.note, round(now, 3)))
    assert events == [("note_on", 60, 0.6), ("note_off", 60, 1.8)]


@pytest.mark.parametrize("write", [write_midi, draw_piano_roll])
def test_tune_and_picture_are_whole_or_as_before(write, roll, tmp_path, monkeypatch):
    path = tmp_path / "file.mid"
    path.write_text("former")

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match=r"No space left on device: .*file\.mid"):
            write(path, roll)
    assert path.read_text() == "former" and list(tmp_path.iterdir()) == [path]
    write(path, roll)
    assert path.read_bytes()[:4] in (b"MThd", b"\x89PNG")


def test_other_programs_midi_files_are_read(tmp_path):
    """Several tracks, notes ended by velocity 0, percussion, keys beyond the piano, odd times."""
    file = mido.MidiFile(ticks_per_beat=96)
    for channel, pitch in ((0, 60), (1, 64), (9, 40), (2, 5)):
        track = mido.MidiTrack()
        track.append(mido.Message("note_on", channel=channel, note=pitch, velocity=9, time=50))
        track.append(mido.Message("note_on", channel=channel, note=pitch, velocity=0, time=90))
        file.tracks.append(track)
    file.save(str(tmp_path / "other.mid"))
    roll = read_midi(tmp_path / "other.mid")
    assert roll.shape[0] == 3
    np.testing.assert_array_equal(np.argwhere(roll), [[1, 39], [1, 43], [2, 39], [2, 43]])


def test_what_is_no_tune_is_refused(roll, tmp_path):
    with pytest.raises(FileNotFoundError):
        read_midi(tmp_path / "none.mid")
    (tmp_path / "text.mid").write_text("no tune")
    with pytest.raises(ValueError, match="no readable MIDI file"):
        read_midi(tmp_path / "text.mid")
    with pytest.raises(ValueError, match="has no note"):
        read_midi(write_midi(tmp_path / "silence.mid", np.zeros((3, 88))))
    for options in ({"frame_beats": 0}, {"tempo": -1}, {"velocity": 0}):
        with pytest.raises(ValueError, match=f"`{next(iter(options))}` must be"):
            write_midi(tmp_path / "tune.mid", roll, **options)
    with pytest.raises(ValueError, match="`frames` must be of shape"):
        write_midi(tmp_path / "tune.mid", roll * 2)


def test_a_tune_of_a_few_bytes_and_many_frames_is_refused(tmp_path):
    file = mido.MidiFile(ticks_per_beat=1)
    file.tracks.append(mido.MidiTrack())
    for velocity in (9, 0):
        time = 0x0FFFFFFF
        file.tracks[0].append(mido.Message("note_on", note=60, velocity=velocity, time=time))
    file.save(str(tmp_path / "long.mid"))
    with pytest.raises(ValueError, match=r"long\.mid must be a tune of at most 1,000,000 frames"):
        read_midi(tmp_path / "long.mid")
    assert len(read_midi(tmp_path / "long.mid", frame_beats=1e6)) == 537


def test_picture(roll, tmp_path):
    path = tmp_path / "tune.png"
    assert draw_piano_roll(path, roll, prime=10, title="A tune")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert draw_piano_roll(tmp_path / "silence.png", np.zeros((0, 88)))
