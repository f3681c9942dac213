from itertools import product

from fedsi.seeds import Purpose, generator


def test_a_stream_is_a_function_of_its_four_arguments() -> None:
    keys = list(product((0, 1), Purpose, (0, 1, 2), (0, 1, 2)))
    first = {key: generator(*key).integers(2**62) for key in keys}
    again = {key: generator(*key).integers(2**62) for key in reversed(keys)}
    assert first == again
    assert len(set(first.values())) == len(keys)


def test_streams_do_not_depend_on_the_library_version() -> None:
    # Written down once; a change would silently change everybody's results.
    drawn = generator(7, Purpose.TRAINING_ORDER, 3, 11).permutation(8).tolist()
    assert drawn == [4, 1, 0, 5, 3, 2, 6, 7]
