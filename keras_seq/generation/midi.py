"""Piano rolls as MIDI files and as pictures."""

from pathlib import Path
from typing import Any

import numpy as np

from keras_seq import _files

LOWEST_PITCH = 21  # MIDI pitch of the first column, the key A0
KEYS = 88
TICKS = 480  # in a quarter note
MOST_FRAMES = 1_000_000  # of a tune that is read: a few bytes may say any length
DRUMS = 9  # the channel of percussion, whose notes are no pitches
_FEWEST = 'Install what reads and writes MIDI files: pip install "keras-seq[music]"'


def write_midi(
    path: str | Path,
    frames: Any,
    frame_beats: float = 0.5,
    tempo: float = 100.0,
    velocity: int = 80,
) -> Path:
    """Writes a piano roll as a MIDI file.

    A note that sounds in successive frames is one held note, since a piano roll does not say
    whether it was struck again.

    Args:
        path: the file.
        frames: (t, 88) zeros and ones; column 0 is the key A0.
        frame_beats: length of a frame in quarter notes; with the default tempo and half a beat,
            0.3 seconds.
        tempo: quarter notes a minute.
        velocity: loudness, 1 to 127.

    Raises:
        ValueError: for frames of another shape, or a number out of range.
        ImportError: without mido.

    Example:

    >>> frames = np.zeros((8, 88), "uint8")
    >>> frames[:4, 39] = 1  # C4 for four frames
    >>> path = keras_seq.generation.write_midi("tune.mid", frames)
    >>> (keras_seq.generation.read_midi(path) == frames).all()
    np.True_
    """
    mido = _mido()
    frames = _check_frames(frames)
    _check_positive(frame_beats=frame_beats, tempo=tempo)
    if not 1 <= velocity <= 127:
        raise ValueError(f"`velocity` must be from 1 to 127. Received: velocity={velocity}.")
    file = mido.MidiFile(ticks_per_beat=TICKS)
    track = mido.MidiTrack()
    file.tracks.append(track)
    track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo)))
    track.append(mido.Message("program_change", program=0))
    # +1 where a note begins, -1 where it ends; one more row for the end of the tune.
    edges = np.diff(np.pad(frames.astype(np.int8), ((1, 1), (0, 0))), axis=0)
    now = 0
    for index, row in enumerate(edges):
        tick = round(index * frame_beats * TICKS)
        for kind, sign in (("note_off", -1), ("note_on", 1)):
            for note in np.flatnonzero(row == sign):
                pitch = int(note) + LOWEST_PITCH
                loudness = velocity if sign > 0 else 0
                track.append(mido.Message(kind, note=pitch, velocity=loudness, time=tick - now))
                now = tick
    end = round(len(frames) * frame_beats * TICKS)
    track.append(mido.MetaMessage("end_of_track", time=end - now))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _files.atomic(path) as temporary:
        file.save(str(temporary))
    return path


def read_midi(path: str | Path, frame_beats: float = 0.5) -> np.ndarray:
    """Reads a MIDI file as a piano roll.

    The notes of all tracks and channels are taken but percussion and what lies outside of the 88
    keys. Begin and end of a note are moved to the nearest frame, and a note sounds for a frame at
    least.

    Args:
        path: the file.
        frame_beats: length of a frame in quarter notes.

    Output shape:
        (t, 88) zeros and ones in uint8.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no MIDI file, or has no note.
        ImportError: without mido.
    """
    mido = _mido()
    _check_positive(frame_beats=frame_beats)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    try:
        file = mido.MidiFile(str(path))
    except Exception as error:  # mido raises errors of several kinds, EOFError among them
        raise ValueError(f"{path} is no readable MIDI file ({error}).") from None
    frame = file.ticks_per_beat * frame_beats
    notes: list[tuple[int, float, float]] = []
    end = 0
    for track in file.tracks:
        tick, held = 0, {}
        for message in track:
            tick += message.time
            if message.type not in ("note_on", "note_off") or message.channel == DRUMS:
                continue
            key = (message.channel, message.note)
            if key in held:  # a note that is struck again ends first
                notes.append((message.note, held.pop(key) / frame, tick / frame))
            if message.type == "note_on" and message.velocity:
                held[key] = tick
        notes += [(key[1], begun / frame, tick / frame) for key, begun in held.items()]
        end = max(end, tick)
    spans = [
        (pitch - LOWEST_PITCH, round(begin), max(round(begin) + 1, round(stop)))
        for pitch, begin, stop in notes
        if 0 <= pitch - LOWEST_PITCH < KEYS
    ]
    if not spans:
        raise ValueError(f"{path} has no note of the {KEYS} keys of a piano.")
    frames = max(round(end / frame), *(stop for *_, stop in spans))
    if frames > MOST_FRAMES:
        raise ValueError(
            f"{path} must be a tune of at most {MOST_FRAMES:,} frames. Received: {frames:,}, of "
            f"frame_beats={frame_beats}. Make the frames longer, or cut the tune."
        )
    roll = np.zeros((frames, KEYS), np.uint8)
    for note, begin, stop in spans:
        roll[begin:stop, note] = 1
    return roll


def draw_piano_roll(path: str | Path, frames: Any, prime: int = 0, title: str = "") -> bool:
    """Draws a piano roll as a PNG file.

    Args:
        path: the file.
        frames: (t, 88) zeros and ones.
        prime: the first so many frames are drawn in another colour.
        title: what stands above.

    Returns:
        Whether it was drawn; `False` without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    frames = _check_frames(frames)
    used = np.flatnonzero(frames.any(axis=0))
    low, high = (int(used[0]), int(used[-1])) if len(used) else (27, 63)
    figure = Figure(figsize=(min(4 + len(frames) / 40, 24), 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for colour, begin, part in (("C1", 0, frames[:prime]), ("C0", prime, frames[prime:])):
        for note in range(low, high + 1):
            edges = np.flatnonzero(np.diff(np.pad(part[:, note].astype(np.int8), 1)))
            spans = [(begin + a, b - a) for a, b in edges.reshape(-1, 2)]
            axes.broken_barh(spans, (note + LOWEST_PITCH - 0.45, 0.9), facecolors=colour)
    if prime:
        axes.axvline(prime, color="0.4", linewidth=1, linestyle="--")
    octaves = [pitch for pitch in range(12, 120, 12) if low - 2 <= pitch - LOWEST_PITCH <= high + 2]
    axes.set_yticks(octaves, [f"C{pitch // 12 - 1}" for pitch in octaves])
    axes.set_xlim(0, max(len(frames), 1))
    axes.set_ylim(low + LOWEST_PITCH - 2, high + LOWEST_PITCH + 2)
    axes.set_xlabel("frame")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    with _files.atomic(path, suffix=".png") as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return True


def _mido():
    try:
        import mido
    except ImportError as error:
        raise ImportError(_FEWEST) from error
    return mido


def _check_frames(frames) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.ndim != 2 or frames.shape[1] != KEYS or not np.isin(frames, (0, 1)).all():
        raise ValueError(
            f"`frames` must be of shape (t, {KEYS}) with zeros and ones. Received: "
            f"frames.shape={frames.shape}."
        )
    return frames.astype(np.uint8)


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not value > 0:
            raise ValueError(f"`{name}` must be positive. Received: {name}={value}.")
