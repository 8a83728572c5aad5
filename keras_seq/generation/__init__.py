"""Text and tunes from trained models, step by step over an explicit state."""

from keras_seq.generation.batched import generate_ids as generate_ids
from keras_seq.generation.beams import beam_search as beam_search
from keras_seq.generation.frames import generate_frames as generate_frames
from keras_seq.generation.midi import draw_piano_roll as draw_piano_roll
from keras_seq.generation.midi import read_midi as read_midi
from keras_seq.generation.midi import write_midi as write_midi
from keras_seq.generation.note_sampling import sample_notes as sample_notes
from keras_seq.generation.sampling import sample as sample
from keras_seq.generation.streaming import generate as generate

__all__ = [
    "beam_search",
    "draw_piano_roll",
    "generate",
    "generate_frames",
    "generate_ids",
    "read_midi",
    "sample",
    "sample_notes",
    "write_midi",
]
