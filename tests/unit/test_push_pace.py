"""Pushes are spread over time."""

from mdmlib.services.push_pace import PushPace


class Time:
    """A clock that only sleeping, or being told to, moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.now += seconds


def paced(pace: PushPace, count: int) -> list[tuple[int, int]]:
    pace.begin()
    return list(pace.slices(count))


def test_a_second_takes_as_many_pushes_as_are_set() -> None:
    time = Time()

    slices = paced(PushPace(500, clock=time, sleep=time.sleep), 1000)

    assert slices == [(start, start + 100) for start in range(0, 1000, 100)]
    assert round(time.slept, 3) == 1.8  # nothing comes after the last slice


def test_the_pace_is_kept_from_one_invocation_to_the_next() -> None:
    time = Time()
    pace = PushPace(500, clock=time, sleep=time.sleep)

    for _ in range(10):
        paced(pace, 100)

    assert round(time.slept, 3) == 1.8


def test_time_that_passed_anyway_is_not_slept_through() -> None:
    time = Time()
    pace = PushPace(500, clock=time, sleep=time.sleep)

    for _ in range(10):
        paced(pace, 100)
        time.now += 60

    assert time.slept == 0


def test_a_clock_that_is_set_back_delays_a_second_at_most() -> None:
    time = Time()
    pace = PushPace(1, clock=time, sleep=time.sleep)
    paced(pace, 1)
    time.now -= 3600

    paced(pace, 1)

    assert time.slept == 1


def test_the_slowest_pace_is_one_a_second() -> None:
    time = Time()
    pace = PushPace(0, clock=time, sleep=time.sleep)

    assert pace.begin() == pace.seconds
    assert list(pace.slices(3)) == [(0, 1), (1, 2), (2, 3)]


def test_an_invocation_ends_in_time_when_apns_is_slow() -> None:
    time = Time()
    pace = PushPace(5, clock=time, sleep=time.sleep)
    pace.begin()
    done = []

    for piece in pace.slices(100):
        done.append(piece)
        time.now += 15

    assert len(done) == 3
